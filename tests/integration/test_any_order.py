"""Any order of failures, departures, hedges, waits and reloads: nothing is left behind."""

import asyncio
import os
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp import ClientError, ClientSession
from fake_upstream import (
    Answer,
    FakeUpstream,
    Seen,
    anthropic_error,
    anthropic_stream,
    anthropic_whole,
    chat_error,
    chat_stream,
    chat_whole,
    data,
    stream,
    whole,
)
from relay_process import SECRET, RelayProcess, Start
from talk import DIALECTS, JSON, ask, eventually

KEY, ADMIN = f"{SECRET}-of-alice", f"{SECRET}-of-the-admin"
AS_ALICE, AS_ADMIN = {"x-api-key": KEY}, {"x-api-key": ADMIN}
SEEDS = range(int(os.environ.get("RELAY_TEST_ORDERS", "2")))
REQUESTS, AT_ONCE = 250, 12
PLANS_END = '{"error": {"code": "1308", "message": "[1308][used up][x]"}}'


def any_answer(chance: random.Random) -> Callable[[Seen], Answer]:
    """A provider in any mood, in the dialect it is asked in."""

    def answer(seen: Seen) -> Answer:
        asked, anthropic = seen.json if seen.body else {}, seen.path.endswith("/messages")
        streamed = bool(asked.get("stream"))
        words = ["word "] * chance.randrange(1, 20)
        said = anthropic_stream if anthropic else chat_stream
        good = said(words) if streamed else (anthropic_whole if anthropic else chat_whole)("word")
        if seen.path.endswith("/embeddings"):
            good = whole({"data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}})
        if seen.path.endswith("/completions") and "prompt" in asked:
            good = stream(map(data, [{"choices": [{"text": "a"}]}] * 3))
        error = anthropic_error if anthropic else chat_error
        slow = chance.choice((0.0, 0.0, 0.05, 0.3))
        moods = {
            "good": good.but(delay=slow, pause=chance.choice((0, 0, 0.01))),
            "cut": good.but(delay=slow, cut_after=chance.randrange(400)),
            "reset": good.but(reset=True),
            "silent": good.but(delay=3),
            "hangs": good.but(never_ends=streamed, delay=slow),
            "limits": error(429, "slow down", headers={"retry-after": "1"}),
            "breaks": error(chance.choice((500, 502, 503, 529)), "out of order").but(delay=slow),
            "spent": Answer(status=429, body=PLANS_END.encode()),
            "refuses": error(400, "not like that"),
            "nonsense": Answer(body=b"<html>no</html>", content_type="text/html"),
        }
        weights = (10, 2, 1, 1, 1, 1, 2, 0.3, 1, 1)
        return chance.choices(list(moods.values()), weights)[0]

    return answer


def settings(upstreams: list[FakeUpstream], generation: int) -> JSON:
    first, second, third = (upstream.url for upstream in upstreams)
    short = {"first_event": 1, "idle": 1, "total": 4, "connect": 1}
    return {
        "admin_key": ADMIN,
        "timeouts": {"total": 6, "gate": 0.5},
        "keys": {
            "alice": {"key": KEY, "raw": True, "limits": {"concurrent": AT_ONCE}},
            f"bob{generation}": {"key": f"{SECRET}-of-bob-{generation}"},
        },
        "providers": {
            "first": {
                "api_format": "openai",
                "endpoint": f"{first}/v1",
                "api_key": ["k1", "k2", f"k3-{generation}"],
                "timeouts": short,
            },
            "second": {
                "api_format": "anthropic",
                "endpoint": second,
                "api_key": "k",
                "timeouts": short,
            },
            "third": {
                "api_format": "openai",
                "endpoint": f"{third}/v1",
                "api_key": ["k1", "k2"],
                "timeouts": short,
            },
        },
        "routing_rules": {
            "plain": ["first", "second", "third"],
            "hedged": {"to": ["first", "third", "second"], "hedge_after": "100ms"},
            "held": {"to": ["second", "first"], "wait": "2s", "balance": "round_robin"},
            "busy": {"to": ["third", "first"], "balance": "least_busy", "hedge_after": "50ms"},
        },
        "state": "sqlite:state.db",
    }


async def one_request(http: ClientSession, server: RelayProcess, chance: random.Random) -> None:
    """Any request, read for as long as its client likes."""
    model = chance.choice(("plain", "hedged", "held", "busy"))
    kind = chance.choice(("openai", "openai", "anthropic", "anthropic", "embed", "complete"))
    if kind in DIALECTS:
        body = DIALECTS[kind].body(model=model, stream=chance.random() < 0.7)
        path = DIALECTS[kind].path
    else:
        body, path = {"model": model, "prompt": "x", "input": "x"}, "/v1/completions"
        path = "/v1/embeddings" if kind == "embed" else path
    headers = AS_ALICE | {"x-session-id": str(chance.randrange(20))}
    leaves = chance.choice((None, None, 0.0, 0.05, 0.1, 0.3, 1.0))

    with suppress(TimeoutError, ClientError, ConnectionError):
        async with (
            asyncio.timeout(leaves),
            http.post(f"{server.url}{path}", json=body, headers=headers) as response,
        ):
            await response.read()


async def looked(http: ClientSession, server: RelayProcess, what: str) -> JSON:
    async with http.get(f"{server.url}/admin/{what}", headers=AS_ADMIN) as response:
        assert response.status == 200
        return await response.json()


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_left_behind(
    seed: int,
    upstreams: Callable[[int], Awaitable[list[FakeUpstream]]],
    relay: Start,
    http: ClientSession,
) -> None:
    """No attempt counts as under way, no probe, no permit; the books agree with the log."""
    chance, played = random.Random(seed), await upstreams(3)
    for upstream in played:
        upstream.script(any_answer(chance))
    server = await relay(settings(played, 0))
    room = asyncio.Semaphore(AT_ONCE)

    async def client() -> None:
        async with room:
            await one_request(http, server, chance)

    clients = []
    for number in range(REQUESTS):
        clients.append(asyncio.create_task(client()))
        if number % 50 == 49:
            server.write(settings(played, number))
            await server.hup()
            await cleared(http, server)
    await asyncio.gather(*clients)
    await quiet(http, server)
    marks = (await looked(http, server, "health"))["marks"]
    assert all(mark["next_probe"] is not None for mark in marks), marks
    for upstream in played:
        upstream.script(lambda seen: chat_whole("fine"))
    await cleared(http, server)
    asked = [ask(http, server, headers=AS_ALICE, model="first/m") for _ in range(AT_ONCE)]
    assert [reply.status for reply in await asyncio.gather(*asked)] == [200] * AT_ONCE
    await quiet(http, server)
    assert await server.stop() == 0
    assert not [line for line in server.log() if line.get("message") == "internal error"]
    lines = [line for line in server.log() if "code" in line]
    assert {line["status"] for line in lines} <= {0, 200, 400, 429, 502, 503, 504, 529}
    books_agree(server, lines)


async def quiet(http: ClientSession, server: RelayProcess) -> None:
    """Once nothing is counted as under way."""

    async def nothing_runs() -> bool:
        status = await looked(http, server, "status")
        return (status["running"], status["busy"]) == (0, {})

    await eventually(nothing_runs)


async def cleared(http: ClientSession, server: RelayProcess) -> None:
    path = f"{server.url}/admin/health/clear"
    async with http.post(path, headers=AS_ADMIN, json={"all": True}) as response:
        assert response.status == 200


def books_agree(server: RelayProcess, lines: list[JSON]) -> None:
    """Ledger, budgets and log have counted the same."""
    file = sqlite3.connect(server.file.parent / "state.db")
    try:
        query = "SELECT sum(requests), sum(tokens_in + tokens_out) FROM usage WHERE span = 3600"
        query += " AND provider NOT LIKE '%/%'"  # those are credentials, counted once more
        requests, tokens = file.execute(query).fetchone()
        (spent,) = file.execute(
            "SELECT sum(tokens) FROM spent WHERE key = 'alice' AND length(period) = 10"
        ).fetchone()
    finally:
        file.close()
    let_in = [line for line in lines if "has concurrent" not in (line["error"] or "")]
    assert requests == len(let_in)
    told = [line for line in lines if line["tokens_in"] and not line["estimated"]]
    assert tokens >= sum(line["tokens_in"] + line["tokens_out"] for line in told)
    assert spent == tokens
