"""What Codex has beyond a shell: its freeform tool for patches, and what it does about errors."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from e2e.cli import CLIENTS, FINAL, Client, Ended, asking_for, run
from e2e.played import PROVIDERS
from fake_upstream import Answer, FakeUpstream, Seen
from relay_process import RelayProcess, Start
from talk import DIALECTS, JSON, one
from vendor import Tee

Ask = Callable[..., Awaitable[Ended]]

CODEX = CLIENTS["codex"]
PATCHES = asking_for("gpt-5.5", CODEX)  # to a model that it knows it offers apply_patch
TEXT = 'hé "llo" 🌍\\n'
PATCH = f"*** Begin Patch\n*** Add File: hello.txt\n+{TEXT}\n*** End Patch\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def codex(installed: Callable[[str], Path], home: Path) -> Ask:
    path = installed("codex")

    async def ask(server: RelayProcess, client: Client = CODEX) -> Ended:
        async with Tee("responses", server.url) as tee:
            ended = await run(client, path, tee.url, home)
        tee.judge()
        return ended

    return ask


@pytest.mark.parametrize("behind", [name for name in PROVIDERS if name != "responses"])
async def test_a_freeform_patch_edits_a_file(
    codex: Ask, behind: str, relay: Start, upstream: FakeUpstream, home: Path
) -> None:
    """For a provider without freeform tools it is wrapped as a function, and unwrapped again."""
    provider = PROVIDERS[behind]
    call = ("call_p1", "apply_patch", json.dumps({"input": PATCH}))

    def answer(seen: Seen) -> Answer:
        if provider.results(seen.json):
            return provider.says(seen, text=FINAL)
        return provider.says(seen, text="I patch.", calls=[call])

    upstream.script(answer)
    ended = await codex(await relay(one(upstream, behind)), PATCHES)
    assert ended.status == 0, ended.output
    assert FINAL in ended.out
    assert (home / "hello.txt").read_text() == f"{TEXT}\n"
    first, second = (seen.json for seen in upstream.requests)
    assert "apply_patch" in json.dumps(first["tools"])
    assert "hello.txt" in provider.results(second)["call_p1"]
    assert {"input": PATCH} in arguments(second)


def arguments(body: JSON) -> list[JSON]:
    """What tools were called with, in the history of a request of any dialect."""
    if isinstance(body, list):
        return [found for each in body for found in arguments(each)]
    if not isinstance(body, dict):
        return []
    text = body.get("arguments")
    given = [json.loads(text) if isinstance(text, str) else body.get("input") or body.get("args")]
    return [each for each in given if each] + arguments(list(body.values()))


@pytest.mark.parametrize("behind", PROVIDERS)
async def test_an_error_in_mid_stream_is_tried_again(
    codex: Ask, behind: str, relay: Start, upstream: FakeUpstream
) -> None:
    provider = PROVIDERS[behind]
    whole = provider.stream(text="One two three.")
    broken = whole.but(cut_after=len(whole.wire) // 2)
    upstream.script(broken, provider.stream(text=FINAL))
    server = await relay(one(upstream, behind))
    ended = await codex(server)
    assert ended.status == 0, ended.output
    assert FINAL in ended.out
    assert len(upstream.requests) == 2
    assert (await server.logged(1)).code != "OK"
    assert (await server.logged(2)).code == "OK"


@pytest.mark.parametrize("behind", ["anthropic", "openai"])
async def test_a_limit_is_waited_for(
    codex: Ask, behind: str, relay: Start, upstream: FakeUpstream
) -> None:
    """Codex stops at once at a 429 that does not say how long in whole seconds."""
    refused = DIALECTS[behind].error(429, "Slow down.")
    upstream.script(refused, PROVIDERS[behind].stream(text=FINAL))
    ended = await codex(await relay(one(upstream, behind)))
    assert ended.status == 0, ended.output
    assert FINAL in ended.out


TOO_LONG = {
    "anthropic": "prompt is too long: 210000 tokens > 200000 maximum",
    "openai": "This model's maximum context length is 128000 tokens, but you asked for 140000.",
}


@pytest.mark.parametrize("behind", TOO_LONG)
async def test_a_conversation_that_is_too_long_is_told_as_such(
    codex: Ask, behind: str, relay: Start, upstream: FakeUpstream
) -> None:
    upstream.script(DIALECTS[behind].error(400, TOO_LONG[behind]))
    ended = await codex(await relay(one(upstream, behind)))
    assert ended.status != 0
    assert "ran out of room" in ended.out
    assert len(upstream.requests) == 1
