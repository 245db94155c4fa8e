"""Before the real one on PYTHONPATH: as if uvloop were not installed."""

raise ImportError
