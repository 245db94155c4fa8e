"""A rule may hold a request while all are cooling down, and ask a second one beside the first."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientSession
from fake_upstream import (
    HEAD,
    TEXT,
    Answer,
    FakeUpstream,
    anthropic_stream,
    chat_error,
    chat_stream,
    chat_whole,
)
from relay_process import SOON, RelayProcess, Start, run
from talk import CLIENT_KEY, JSON, ask, config, dial, eventually

Upstreams = Callable[[int], Awaitable[list[FakeUpstream]]]

NEVER = Answer(delay=3600)
LATER = chat_error(429, "slow down").but(headers={"retry-after": "1"})
MUCH_LATER = chat_error(429, "slow down").but(headers={"retry-after": "600"})


def ruled(*upstreams: FakeUpstream, dialect: str = "openai", **rule: JSON) -> JSON:
    """The providers as `config` has them, with more to the rule than its targets."""
    made = config(*upstreams, dialect=dialect)
    return made | {"routing_rules": {"m": {"to": list(made["providers"]), **rule}}}


async def record(server: RelayProcess, count: int = 1) -> JSON:
    """The count-th request's line, as it was written."""
    await server.logged(count)
    return [line for line in server.log() if "held_ms" in line][count - 1]


async def idle(http: ClientSession, server: RelayProcess) -> None:
    """Nothing is counted as under way any more."""

    async def none_busy() -> bool:
        async with http.get(f"{server.url}/admin/status") as response:
            return (await response.json())["busy"] == {}

    await eventually(none_busy)


# ---- Waiting -------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_request_is_held_until_one_is_back(
    streamed: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(LATER, chat_stream(text=TEXT) if streamed else chat_whole(text=TEXT))
    server = await relay(ruled(upstream, wait="20s"))
    reply = await ask(http, server, stream=streamed)
    assert reply.status == 200
    assert reply.said.text == TEXT
    assert len(upstream.requests) == 2
    line = await record(server)
    assert line["code"] == "OK"
    assert [attempt["outcome"] for attempt in line["attempts"]] == ["rate_limited", "ok"]
    assert line["held_ms"] >= 900  # the provider said a second
    assert "held;dur=" in reply.headers["server-timing"]
    await idle(http, server)


async def test_without_wait_nothing_is_held(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(LATER)
    server = await relay(ruled(upstream))
    assert (await ask(http, server)).status == 429
    assert (await record(server))["held_ms"] is None


async def test_when_the_time_is_over_the_answer_says_how_long_it_will_be(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(MUCH_LATER)
    server = await relay(ruled(upstream, wait="300ms"))
    for _ in range(2):  # the one that was told, and one that finds all cooling down
        reply = await ask(http, server)
        assert reply.status == 429
        assert 590 <= int(reply.headers["retry-after"]) <= 600
    assert len(upstream.requests) == 1
    assert (await record(server, 2))["held_ms"] >= 300


async def test_of_all_that_cool_down_the_soonest_is_told(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(MUCH_LATER)
    second.script(MUCH_LATER.but(headers={"retry-after": "60"}))
    server = await relay(ruled(first, second))
    for _ in range(2):
        reply = await ask(http, server)
        assert reply.status == 429
        assert 55 <= int(reply.headers["retry-after"]) <= 60


async def test_a_success_of_another_request_lets_the_held_one_go(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """A busy provider that says nothing of its end is marked for ten seconds; the answer of a
    request that was under way shows that it is well."""
    go = asyncio.Event()
    slow = chat_whole(text="slow").but(hold={HEAD: go})
    upstream.script(slow, chat_error(503, "busy"), chat_whole(text="held"))
    server = await relay(ruled(upstream, wait="60s"))
    first = asyncio.create_task(ask(http, server))
    await upstream.arrived(1)
    second = asyncio.create_task(ask(http, server))
    await eventually(lambda: is_marked(http, server))
    go.set()
    assert (await first).said.text == "slow"
    assert (await second).said.text == "held"
    assert 0 < (await record(server, 2))["held_ms"] < 9000


async def is_marked(http: ClientSession, server: RelayProcess) -> bool:
    async with http.get(f"{server.url}/admin/health") as response:
        return (await response.json())["marks"] != []


async def test_a_held_stream_gets_its_head_and_keep_alives(
    upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(LATER.but(headers={"retry-after": "2"}), anthropic_stream(text=TEXT))
    made = ruled(upstream, dialect="anthropic", wait="20s") | {"timeouts": {"gate": 0.2}}
    server = await relay(made, env={"RELAY_KEEPALIVE": "0.2"})
    async with dial(server) as wire:
        await wire.post("anthropic")
        assert await wire.head() == 200
        before = await wire.until(b": keep-alive")
        assert TEXT.split()[0].encode() not in before
        await wire.until(b"message_stop")
    assert (await record(server))["code"] == "OK"


async def test_a_client_that_leaves_is_held_no_longer(upstream: FakeUpstream, relay: Start) -> None:
    upstream.script(MUCH_LATER)
    server = await relay(ruled(upstream, wait="60s"))
    async with dial(server) as wire:
        await wire.post("openai")
        await upstream.arrived()
    assert (await record(server))["code"] == "CD"
    assert len(upstream.requests) == 1


async def test_what_waiting_does_not_mend_is_not_waited_for(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(400, "temperature must be below 2"))
    server = await relay(ruled(upstream, wait="60s"))
    assert (await ask(http, server)).status == 400
    assert not (await record(server))["held_ms"]


async def test_a_client_is_not_held_longer_than_it_waits(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """The makers' SDKs say how long that is."""
    upstream.script(MUCH_LATER)
    server = await relay(ruled(upstream, wait="10m"))
    reply = await ask(http, server, headers={"X-Stainless-Timeout": "5"})
    assert reply.status == 429
    assert 4400 <= (await record(server))["held_ms"] < 5000


# ---- Hedging -------------------------------------------------------------------------------


async def test_the_second_wins_and_the_first_is_called_off(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(NEVER)
    server = await relay(ruled(first, second, hedge_after="200ms"))
    reply = await ask(http, server, stream=True)
    assert reply.status == 200
    assert reply.headers["x-relay-provider"] == "second"
    assert reply.headers["x-relay-attempts"] == "2"
    await asyncio.wait_for(first.requests[0].left.wait(), SOON)
    line = await record(server)
    assert [(a["target"], a["outcome"]) for a in line["attempts"]] == [
        ("second/m", "ok"),
        ("first/m", "outrun"),
    ]
    assert line["provider"] == "second"
    await idle(http, server)


def priced(*upstreams: FakeUpstream, **rule: JSON) -> JSON:
    """What is read costs one thousandth at the first and ten at the second, what is written 0."""
    made = ruled(*upstreams, **rule)
    for number, provider in enumerate(made["providers"].values()):
        provider["prices"] = {"m": {"input": 1000 * 10**number}}
    limits = {"tokens_per_day": 10**6, "cost_per_day": 1000}
    return made | {"keys": {"alice": {"key": CLIENT_KEY, "limits": limits}}}


async def used(server: RelayProcess) -> dict[str, tuple[int, ...]]:
    """What the store has of each provider once relay is gone."""
    await server.stop()
    command = ("usage", "-c", server.file.name, "--json", "--by", "provider")
    ran = await run(*command, cwd=server.file.parent)
    names = ("requests", "estimated", "tokens_in", "tokens_out", "cost")
    days = json.loads(ran.stdout)["days"]
    return {day["provider"]: tuple(day[name] for name in names) for day in days}


async def test_who_was_outrun_is_paid_for_what_it_read(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    """The same prompt as the winner's, who told how long it is."""
    first, second = await upstreams(2)
    first.script(NEVER)
    second.script(chat_stream(text=TEXT))
    server = await relay(priced(first, second, hedge_after="200ms"))
    reply = await ask(http, server, stream=True, headers={"x-api-key": CLIENT_KEY})
    assert reply.headers["x-relay-provider"] == "second"
    line = await record(server)
    assert (line["tokens_in"], line["estimated"]) == (1045, True)
    assert line["cost"] == pytest.approx(1.045 + 10.45)
    assert await used(server) == {
        "first": (0, 1, 1045, 0, pytest.approx(1.045)),
        "second": (1, 0, 1045, 57, pytest.approx(10.45)),
    }


async def test_a_client_that_leaves_two_at_once_pays_for_both(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(NEVER)
    second.script(NEVER)
    server = await relay(priced(first, second, hedge_after="100ms"))
    async with dial(server) as wire:
        await wire.post("openai", {"x-api-key": CLIENT_KEY}, text="x" * 3000)
        await second.arrived()
    line = await record(server)
    read = line["cost"] * 1000 / 11
    assert read == pytest.approx(1020, abs=40)
    (one, other) = (await used(server)).values()
    assert one[1:4] == other[1:4] == (1, round(read), 0)
    assert one[0] + other[0] == 1


async def test_the_first_may_still_win(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    go = asyncio.Event()
    first.script(chat_stream(text=TEXT).but(hold={HEAD: go}))
    second.script(NEVER)
    server = await relay(ruled(first, second, hedge_after="200ms"))
    asking = asyncio.create_task(ask(http, server, stream=True))
    await second.arrived()
    go.set()
    reply = await asking
    assert reply.said.text == TEXT
    assert reply.headers["x-relay-provider"] == "first"
    await asyncio.wait_for(second.requests[0].left.wait(), SOON)
    await idle(http, server)


async def test_who_begins_in_time_has_no_other_beside_it(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    server = await relay(ruled(first, second, hedge_after="30s"))
    assert (await ask(http, server, stream=True)).headers["x-relay-provider"] == "first"
    assert second.requests == []


async def test_a_whole_answer_may_take_its_time(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_whole(text=TEXT).but(delay=0.5))
    server = await relay(ruled(first, second, hedge_after="50ms"))
    reply = await ask(http, server, stream=False)
    assert reply.headers["x-relay-provider"] == "first"
    assert second.requests == []


async def test_there_is_one_hedge_and_no_more(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    """The third is asked when both have failed, and nobody beside it."""
    first, second, third, fourth = await upstreams(4)
    first.script(NEVER)
    second.script(NEVER)
    third.script(chat_stream(text=TEXT).but(delay=0.5))
    made = ruled(first, second, third, fourth, hedge_after="100ms")
    server = await relay(made | {"timeouts": {"first_event": 2}})
    reply = await ask(http, server, stream=True)
    assert reply.headers["x-relay-provider"] == "third"
    outcomes = [attempt["outcome"] for attempt in (await record(server))["attempts"]]
    assert outcomes == ["timeout", "timeout", "ok"]
    assert fourth.requests == []
    await idle(http, server)


async def test_when_one_of_both_fails_the_other_goes_on(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    go = asyncio.Event()
    first.script(chat_stream(text=TEXT).but(hold={HEAD: go}))
    second.script(chat_error(503, "busy"))
    server = await relay(ruled(first, second, hedge_after="100ms"))
    asking = asyncio.create_task(ask(http, server, stream=True))
    await second.arrived()
    go.set()
    reply = await asking
    assert reply.said.text == TEXT
    assert reply.headers["x-relay-provider"] == "first"
    assert reply.headers["x-relay-attempts"] == "2"


async def test_when_both_fail_both_are_named(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_error(503, "too busy").but(delay=0.4))
    second.script(chat_error(503, "no room"))
    server = await relay(ruled(first, second, hedge_after="100ms"))
    reply = await ask(http, server, stream=True)
    assert reply.status == 503
    assert b"too busy" in reply.body
    assert b"no room" in reply.body
    await idle(http, server)


async def test_a_client_that_leaves_takes_both_along(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(NEVER)
    second.script(NEVER)
    server = await relay(ruled(first, second, hedge_after="100ms"))
    async with dial(server) as wire:
        await wire.post("openai")
        await second.arrived()
    for upstream in (first, second):
        await asyncio.wait_for(upstream.requests[0].left.wait(), SOON)
    line = await record(server)
    assert line["code"] == "CD"
    assert [attempt["outcome"] for attempt in line["attempts"]] == ["cancelled", "cancelled"]
    await idle(http, server)


# ---- Balance -------------------------------------------------------------------------------


async def test_new_conversations_take_turns_and_known_ones_stay(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    all_three = await upstreams(3)
    server = await relay(ruled(*all_three, balance="round_robin"))
    for _ in range(2):
        served = [
            (await ask(http, server, headers={"x-session-id": str(n)})).headers["x-relay-provider"]
            for n in range(6)
        ]
        assert served == ["first", "second", "third"] * 2
    assert [len(upstream.requests) for upstream in all_three] == [4, 4, 4]


async def test_the_least_busy_is_asked_and_every_way_out_counts(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    go = asyncio.Event()
    for upstream in (first, second):
        upstream.script(chat_stream(text=TEXT).but(hold={2: go}))  # in the middle of its answer
    server = await relay(ruled(first, second, balance="least_busy"))
    asking = [
        asyncio.create_task(ask(http, server, stream=True, headers={"x-session-id": str(n)}))
        for n in range(6)
    ]
    await eventually_all(first, second, 6)
    async with http.get(f"{server.url}/admin/status") as response:
        assert sum((await response.json())["busy"].values()) == 6
    assert (len(first.requests), len(second.requests)) == (3, 3)
    asking[0].cancel()
    go.set()
    await asyncio.gather(*asking, return_exceptions=True)
    await idle(http, server)


async def eventually_all(first: FakeUpstream, second: FakeUpstream, count: int) -> None:
    async def arrived() -> bool:
        return len(first.requests) + len(second.requests) == count

    await eventually(arrived)


# ---- What cannot be said in a target's dialect ---------------------------------------------

# passes through as it is; in another dialect's words it cannot be said
ODD = {"role": "user", "content": [{"type": "text", "text": 7}]}


def mixed(first: FakeUpstream, second: FakeUpstream, **rule: JSON) -> JSON:
    """The first speaks the client's dialect, the second another."""
    made = ruled(first, second, **rule)
    made["providers"]["second"]["api_format"] = "anthropic"
    return made


async def test_a_hedge_that_cannot_be_said_leaves_the_first_alone(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    first.script(chat_stream(text=TEXT).but(delay=1))
    server = await relay(mixed(first, second, hedge_after="50ms"))
    reply = await ask(http, server, stream=True, messages=[ODD])
    assert (reply.status, reply.said.text) == (200, "".join(TEXT))
    assert second.requests == []


async def test_what_never_left_is_not_charged(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    made = ruled(upstream)
    made["providers"]["first"]["api_format"] = "anthropic"
    server = await relay(made)
    reply = await ask(http, server, messages=[ODD])
    assert reply.status == 400
    line = await record(server)
    assert (line["attempts"], line["estimated"], upstream.requests) == ([], False, [])
