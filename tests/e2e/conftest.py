"""Fixtures of the end-to-end tests: every client, before every provider, whole and streamed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_upstream import Answer, FakeUpstream, Seen
from talk import DIALECTS

Says = Callable[..., None]
Installed = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients take their settings from a test alone."""
    for name in os.environ:
        if name.startswith(("ANTHROPIC_", "CLAUDE_", "CODEX_", "GEMINI_", "GOOGLE_", "OPENAI_")):
            monkeypatch.delenv(name)


@pytest.fixture(params=["anthropic", "openai"])
def behind(request: pytest.FixtureRequest) -> str:
    """The dialect of the provider behind relay."""
    dialect: str = request.param
    return dialect


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def says(upstream: FakeUpstream, behind: str) -> Says:
    """`says(text="Hello.")`: what the provider answers, whole or streamed as it is asked."""
    speaks = DIALECTS[behind]

    def script(**said: Any) -> None:
        def answer(seen: Seen) -> Answer:
            return (speaks.stream if seen.json.get("stream") else speaks.whole)(**said)

        upstream.script(answer, path=speaks.path)

    return script


@pytest.fixture
def installed() -> Installed:
    """`installed("codex")`: a real client's command, as `.ci/clients` tells it."""

    def find(client: str) -> Path:
        variable = f"RELAY_TEST_{client.upper()}"
        if path := os.environ.get(variable):
            return Path(path)
        reason = f"{variable} is not set; .ci/clients installs {client}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return find
