"""The vendors' SDKs for Node and Vercel's AI SDK, each before a provider of every dialect: a tool
round trip, whole and streamed, by the scripts in node/.

They are found by RELAY_TEST_NODE and RELAY_TEST_SDKS; `eval "$(.ci/clients)"` installs them and
sets those.  Every answer relay gives is also held against the types of the Python SDKs.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.cli import LONGEST
from e2e.played import PROVIDERS
from fake_upstream import Answer, FakeUpstream, Seen
from relay_process import Start
from talk import CLIENT_KEY, JSON, one
from vendor import Tee

SCRIPTS = {  # -> the client's dialect
    "anthropic": "anthropic",
    "chat": "openai",
    "genai": "gemini",
    "responses": "responses",
    "ai anthropic": "anthropic",
    "ai openai": "openai",
    "ai compatible": "openai",
    "ai gemini": "gemini",
    "ai responses": "responses",
}
CALLS = [
    ("call_1", "get_weather", '{"city": "Oslo"}'),
    ("call_2", "get_weather", '{"city": "Rome"}'),
]
RESULTS = {"call_1": "Oslo: 22 C", "call_2": "Rome: 22 C"}


async def node(program: Path, script: str, url: str, sdks: Path, mode: str) -> JSON:
    """What a script prints."""
    env = {"RELAY_URL": url, "RELAY_KEY": CLIENT_KEY, "RELAY_TEST_SDKS": str(sdks)}
    pipe = asyncio.subprocess.PIPE
    name, *more = script.split()
    file = Path(__file__).parent / "node" / f"{name}.mjs"
    process = await asyncio.create_subprocess_exec(
        str(program), str(file), mode, *more, env=env, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(LONGEST / 2):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out + err
    return json.loads(out)


@pytest.mark.parametrize("behind", PROVIDERS)
@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_tool_round_trip(
    script: str,
    behind: str,
    relay: Start,
    upstream: FakeUpstream,
    installed: Callable[[str], Path],
) -> None:
    program, sdks = installed("node"), installed("sdks")
    provider = PROVIDERS[behind]

    def answer(seen: Seen) -> Answer:
        if provider.results(seen.json):
            return provider.says(seen, text="Warm in both.")
        return provider.says(seen, text="Both.", reasoning="Need weather.", calls=CALLS)

    upstream.script(answer)
    server = await relay(one(upstream, behind))
    for mode in ("whole", "streamed"):
        async with Tee(SCRIPTS[script], server.url) as tee:
            told = await node(program, script, tee.url, sdks, mode)
        tee.judge()
        assert told["text"] == "Warm in both."
        assert told["calls"] == [[id, name, json.loads(text)] for id, name, text in CALLS]
        assert told["usage"] == [1045, 57]

        first, second = (seen.json for seen in upstream.requests[-2:])
        assert not provider.results(first)
        results = provider.results(second)
        assert results.keys() == RESULTS.keys()
        assert all(RESULTS[call] in result for call, result in results.items())
        if not (script.startswith("ai ") and SCRIPTS[script] == behind):
            assert provider.seal in json.dumps(second)  # the AI SDK itself does not send it back
        assert "rly1." not in json.dumps(second)
