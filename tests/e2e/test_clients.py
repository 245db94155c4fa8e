"""The real command-line clients, headless, each before a provider of every dialect: the model asks
for a command, the client runs it and sends what it printed, the model has the last word.

The clients are found by RELAY_TEST_CLAUDE and the like; `eval "$(.ci/clients)"` sets them.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.cli import CLIENTS, FINAL, PRINTED, Client, run
from e2e.played import PROVIDERS, Provider
from fake_upstream import Answer, FakeUpstream, Seen
from relay_process import Start
from talk import CLIENT_KEY, JSON, UPSTREAM_KEY, one
from vendor import Tee

import relay as program


def test_every_dialect_is_played() -> None:
    assert PROVIDERS.keys() == program.DIALECTS.keys()
    assert {client.speaks for client in CLIENTS.values()} == program.DIALECTS.keys()


def playing(provider: Provider, client: Client) -> Callable[[Seen], Answer]:
    """A model that calls the client's shell once; small questions without tools get an answer."""

    def answer(seen: Seen) -> Answer:
        if PRINTED in json.dumps(provider.results(seen.json)):
            return provider.stream(text=FINAL)
        call = ("call_a1", client.tool, json.dumps(client.call))
        return provider.stream(text="I will.", reasoning="A command.", calls=[call])

    return answer


@pytest.mark.parametrize("behind", PROVIDERS)
@pytest.mark.parametrize("name", CLIENTS)
async def test_a_tool_round_trip(
    name: str,
    behind: str,
    relay: Start,
    upstream: FakeUpstream,
    installed: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    client, provider = CLIENTS[name], PROVIDERS[behind]
    path = installed(client.program or name)
    upstream.script(playing(provider, client))
    server = await relay(one(upstream, behind, models={"claude-*": "real-model"}))
    home = tmp_path / "home"
    home.mkdir()
    async with Tee(client.speaks, server.url) as tee:
        ended = await run(client, path, tee.url, home)
    assert ended.status == 0, ended.output
    assert FINAL in ended.out
    tee.judge()

    assert [seen.path for seen in upstream.requests] == [provider.path] * 2, ended.output
    for seen in upstream.requests:
        assert CLIENT_KEY not in str(seen.headers)
        assert UPSTREAM_KEY in str(seen.headers)
        assert "rly1." not in seen.body.decode()
        line = await server.logged(1 + upstream.requests.index(seen))
        assert (line.status, line.code, line.target) == (200, "OK", "first/real-model")

    first, second = upstream.requests
    assert not provider.results(first.json)
    ((call, result),) = provider.results(second.json).items()
    assert PRINTED in result
    assert call == "call_a1"
    assert provider.seal in second.body.decode()  # whether or not the client sends it back
    assert behind == "gemini" or "A command." in second.body.decode()
    if client.speaks != behind:
        check_continued(provider, first.json, second.json)


def check_continued(provider: Provider, first: JSON, second: JSON) -> None:
    """As text, the second request begins with the first: what the provider's cache needs."""
    before, after = unmarked(first), unmarked(second)
    turns = program.dumps(before[provider.turns])
    written = program.dumps(before)
    beginning = written[: written.index(turns) + len(turns) - 1]
    assert program.dumps(after).startswith(beginning)
    assert before | {provider.turns: None} == after | {provider.turns: None}


def unmarked(value: JSON) -> JSON:
    """Without the marks of a cache, which go to the end of what is said."""
    if isinstance(value, dict):
        return {key: unmarked(value[key]) for key in value if key != "cache_control"}
    return [unmarked(item) for item in value] if isinstance(value, list) else value
