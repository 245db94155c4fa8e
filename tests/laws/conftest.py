"""How deep the laws look: the same examples every time, or more of them and random.

RELAY_TEST_EXAMPLES=2000 pytest tests/laws
"""

import os

from hypothesis import HealthCheck, Phase, settings

DEEPER = os.environ.get("RELAY_TEST_EXAMPLES")

settings.register_profile(
    "relay",
    max_examples=int(DEEPER or 25),
    derandomize=DEEPER is None,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("relay")
