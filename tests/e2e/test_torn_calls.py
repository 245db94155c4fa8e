"""Real clients before providers that break off inside a tool call: nothing of it is run, the model
is told nothing of it, and the client asks again by itself, as it does without relay.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.cli import CLIENTS, FINAL, PRINTED, SHELL, asking_for, run
from e2e.played import PROVIDERS
from fake_upstream import Answer, FakeUpstream, Seen, stream
from relay_process import Start
from talk import JSON, one

# Of a script in two halves the first is whole, and the cut is in the comment behind it.
SCRIPT = """
await tools.exec_command({cmd: "echo first >> ran"});
// and then once more, and say so
await tools.exec_command({cmd: "echo second >> ran"}); text("relay-" + 42);
"""
COMMAND = f"echo first >> ran; echo second >> ran; {SHELL}"
CASES = {
    # To this model Codex offers one freeform tool, which runs JavaScript.
    "codex-script": (asking_for("gpt-6-sol", CLIENTS["codex"]), "exec", {"input": SCRIPT}),
    "codex": (CLIENTS["codex"], "exec_command", {"cmd": COMMAND}),
    "claude": (CLIENTS["claude"], "Bash", CLIENTS["claude"].call | {"command": COMMAND}),
}


def offered(body: JSON, name: str) -> str:
    """A tool's name as the provider is told it."""
    (found,) = set(re.findall(rf'"name": "((?:\w+__)?{name})"', json.dumps(body["tools"])))
    return found


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize(
    ("case", "behind"),
    [
        (case, behind)
        for case, (client, *_) in CASES.items()
        for behind in PROVIDERS
        if behind != client.speaks  # its bytes are passed on
    ],
)
async def test_a_call_that_breaks_off_is_asked_for_again(
    case: str,
    behind: str,
    how: str,
    relay: Start,
    upstream: FakeUpstream,
    installed: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    client, tool, given = CASES[case]
    provider = PROVIDERS[behind]
    told: list[str] = []
    asked: list[str] = []

    def answer(seen: Seen) -> Answer:
        if any(PRINTED in result for result in provider.results(seen.json).values()):
            return provider.says(seen, text=FINAL)
        told.extend(provider.results(seen.json).values())
        name = offered(seen.json, tool)
        whole = provider.says(seen, text="I will.", calls=[("call_1", name, json.dumps(given))])
        asked.append(name)
        if len(asked) > 1:
            return whole
        cut = whole.wire.index(b"once more" if case == "codex-script" else b"second")
        return whole.but(cut_after=cut) if how == "reset" else stream([whole.wire[:cut]])

    upstream.script(answer, path=provider.path if behind != "gemini" else "")
    home = tmp_path / "home"
    home.mkdir()
    server = await relay(one(upstream, behind))
    ended = await run(client, installed(case.partition("-")[0]), server.url, home)
    assert ended.status == 0, ended.output
    assert FINAL in ended.out
    assert told == []
    assert len(asked) == 2
    assert (home / "ran").read_text() == "first\nsecond\n"
