"""A request's way through relay, where what matters is the order of single steps."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.configs import plan_of

import relay

CONFIG = """
providers:
  a: {api_format: openai, endpoint: "http://a.example/v1", api_key: k}
  b: {api_format: openai, endpoint: "http://b.example/v1", api_key: k}
routing_rules: {m: {to: [a, b], hedge_after: 30s}}
"""


class Silent(relay.Upstream):
    """Providers that never say a word."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def send(self, method: str, url: str, *_: object) -> relay.LinkReply:
        self.asked.append(url.split("/")[2])
        return await asyncio.get_running_loop().create_future()


PRICED = CONFIG.replace(
    "api_key: k}", "api_key: k, prices: {m: {input: 1000000.0, output: 1000000.0}}}"
)


def relay_of(plan: relay.Plan, upstream: relay.Upstream) -> relay.Relay:
    log = relay.Log(plan.config.log, plan.zone, relay.Sink(None))
    return relay.Relay(plan, upstream, log, 10.0, relay.SQLiteStore())


def exchange_of(plan: relay.Plan) -> relay.Exchange:
    request = make_mocked_request("POST", "/v1/chat/completions")
    exchange = relay.Conversation(plan, request, relay.CHAT)
    exchange.body = relay.Body(b'{"model": "m", "stream": true, "messages": []}')
    exchange.peek = relay.Peek("m", True)
    exchange.route = relay.permitted("m", exchange.caller, plan)
    return exchange


def lanes_of(
    served: relay.Relay, exchange: relay.Exchange
) -> Iterator[tuple[relay.Lane, relay.Mark | None]]:
    return served.balance.lanes(exchange.route, "openai", exchange.id, time.time)


def exchange_of_alice(plan: relay.Plan, limits: relay.LimitConfig) -> relay.Exchange:
    exchange = exchange_of(plan)
    exchange.caller = relay.Caller("alice", limits=limits)
    return exchange


async def test_of_requests_that_come_at_once_one_is_the_probe() -> None:
    """Also where the rule hedges, and an attempt is a task that begins a moment later."""
    plan, upstream = plan_of(CONFIG), Silent()
    served = relay_of(plan, upstream)
    first = exchange_of(plan)
    lane, _ = next(lanes_of(served, first))
    served.health.failed(lane, relay.UpstreamError("rate_limited", "slow down"), now=0.0)
    tasks = [asyncio.create_task(served.first_answer(each)) for each in (first, exchange_of(plan))]
    for _ in range(5):
        await asyncio.sleep(0)
    assert upstream.asked == ["a.example", "b.example"]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert served.balance.busy == {}
    assert not any(mark.probing for mark in served.health.marks.values())


class Full(Silent):
    """No more files may be opened."""

    async def send(self, method: str, url: str, *_: object) -> relay.LinkReply:
        self.asked.append(url.split("/")[2])
        raise relay.NoDescriptors


async def test_where_no_more_files_may_be_opened_nobody_is_asked_blamed_or_paid() -> None:
    plan, upstream = plan_of(PRICED.replace(", hedge_after: 30s", "")), Full()
    served, exchange = relay_of(plan, upstream), exchange_of(plan)
    exchange.likely_input = 1000
    with pytest.raises(relay.NoDescriptors):
        await served.first_answer(exchange)
    assert upstream.asked == ["a.example"]
    assert served.health.marks == {}
    (bill,) = exchange.bills()
    assert bill.usage == relay.Usage()


async def test_many_that_are_held_do_not_wear_the_machine_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In an outage they are hundreds, and each that looks every moment costs all others theirs."""
    plan = plan_of(CONFIG.replace("hedge_after: 30s", "wait: 20s"))
    served, first, looks = relay_of(plan, Silent()), exchange_of(plan), list[int]()
    for lane, _ in lanes_of(served, first):
        slow_down = relay.UpstreamError("rate_limited", "slow down", retry_after=600)
        served.health.failed(lane, slow_down, now=time.time())
    lanes = served.balance.lanes

    def counted(*args: Any) -> Iterator[tuple[relay.Lane, relay.Mark | None]]:
        looks.append(1)
        return lanes(*args)

    held = [asyncio.create_task(served.first_answer(exchange_of(plan))) for _ in range(300)]
    await asyncio.sleep(0)
    monkeypatch.setattr(served.balance, "lanes", counted)
    await asyncio.sleep(0.5)
    for task in held:
        task.cancel()
    await asyncio.wait(held)
    assert 0 < len(looks) <= 300
    assert served.held == 0


class Closable:
    """An answer of which only counts whether it was let go of."""

    closed = False

    def close(self) -> None:
        self.closed = True


async def test_a_client_that_leaves_while_the_loser_is_called_off_takes_the_answer_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody takes what has won: its lane must not stay busy, nor its connection open."""
    plan = plan_of(CONFIG.replace("30s", "1ms"))
    served, exchange, won = relay_of(plan, Silent()), exchange_of(plan), Closable()
    asked, called_off, goes = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def attempt(exchange: relay.Exchange, lane: relay.Lane, failures: object) -> Closable:
        if asked.is_set():
            return won
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            called_off.set()
            await goes.wait()  # a connection that takes its time to close
        raise AssertionError

    monkeypatch.setattr(served, "attempt", attempt)
    client = asyncio.create_task(served.first_answer(exchange))
    await called_off.wait()
    assert not won.closed
    client.cancel()
    await asyncio.wait([client])
    goes.set()
    assert won.closed


async def test_the_permit_comes_back_whatever_fails_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of(CONFIG)
    served, exchange = relay_of(plan, Silent()), exchange_of(plan)
    exchange.caller = relay.Caller("alice", limits=relay.LimitConfig(concurrent=1))
    await served.accounts.reserve(exchange)
    monkeypatch.setattr(served.accounts, "metrics", None)
    with pytest.raises(AttributeError):
        served.accounts.settle(exchange, served.log)
    await served.accounts.reserve(exchange)


counts = st.integers() | st.integers(10**7, 10**20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(usage=st.none() | st.builds(relay.Usage, counts, counts, counts, counts, counts))
async def test_settling_never_raises_whatever_usage_a_provider_claims(
    usage: relay.Usage | None,
) -> None:
    plan = plan_of(PRICED)
    served = relay_of(plan, Silent())
    limits = relay.LimitConfig(tokens_per_day=10**6, cost_per_day=1.0)
    exchange = exchange_of_alice(plan, limits)
    await served.accounts.reserve(exchange)
    lane, _ = next(lanes_of(served, exchange))
    attempt = relay.Attempt(lane)
    attempt.outcome, attempt.status = "ok", 200
    exchange.attempts.append(attempt)
    exchange.current, exchange.first_at = attempt, exchange.began
    exchange.usage, exchange.status, exchange.code = usage, 200, "OK"
    served.accounts.settle(exchange, served.log)
    (_, data), *_ = [(each.kind, each.data) for each in served.log.feed.since(0)][::-1]
    assert relay.dumps(data)
    if usage and relay.is_absurd(usage):
        assert data["tokens_in"] is None
        await served.accounts.reserve(exchange_of_alice(plan, limits))


@pytest.mark.parametrize(("patience", "times"), [(60.0, 2), (0.0, 1)], ids=["at once", "late"])
async def test_a_request_that_was_read_for_long_is_not_said_again(
    patience: float, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept connection that closes without a word: at once, or when the provider had its time."""
    monkeypatch.setattr(relay.Upstream, "_CLOSED_BEFORE", patience)
    asked = list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"first")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        asked.append(await reader.readuntil(b"second"))
        writer.close()

    async def once_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (answer if not asked else last)(reader, writer)

    async def last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"second"))
        writer.close()

    connections = relay.Upstream()
    async with await asyncio.start_server(once_more, "127.0.0.1", 0) as provider:
        url = f"http://127.0.0.1:{provider.sockets[0].getsockname()[1]}/"
        assert await (await connections.send("POST", url, {}, b"first", 5)).read() == b""
        with pytest.raises(relay.UpstreamError, match="closed the connection"):
            await connections.send("POST", url, {}, b"second", 5)
        await connections.close()
    assert len(asked) == times


async def test_of_two_answers_at_once_one_is_taken_and_the_conversation_stays_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of(CONFIG.replace("30s", "1ms"))
    served, exchange, answered = relay_of(plan, Silent()), exchange_of(plan), asyncio.Event()
    exchange.__dict__["identity"] = "conversation"

    async def begin(exchange: relay.Exchange, _: relay.Attempt) -> None:
        if len(exchange.attempts) == 2:
            answered.set()
        await answered.wait()

    monkeypatch.setattr(served, "begin", begin)
    taken = await served.first_answer(exchange)
    assert sorted(each.outcome for each in exchange.attempts) == ["ok", "outrun"]
    assert taken.outcome == "ok"
    assert exchange.sticky == "miss"
    bound = served.health.sticky.bound("conversation", time.time())
    assert bound == [taken.lane.credential.name]
    taken.close()
    assert served.balance.busy == {}
