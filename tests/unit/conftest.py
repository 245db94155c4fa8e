"""Options of the unit tests.

`pytest tests/unit --accept` writes what is read into the golden fixtures; the diff is the review.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="rewrite tests/fixtures/*/*/events.json")


@pytest.fixture
def accept(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("accept", False))
