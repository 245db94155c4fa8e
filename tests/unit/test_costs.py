"""What has to stay cheap, counted: calls, not time, so that a busy machine changes nothing.

A Python call takes about a tenth of a microsecond, with what it does.  Each bound is a little above
what is reached; who has a reason to go over one raises it, and says so.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from unit.configs import plan_of

import relay

LIMITS = "{rpm: 1000000, tpm: 1000000000, tokens_per_day: 1000000000}"
SECRET = "sk-alice-0123456789abcdef"


class Nobody(relay.Upstream):
    def __init__(self) -> None:
        """Who is not asked needs no connections."""


class Calls:
    """Of functions written in Python, and of those written in C."""

    python = 0
    c = 0


@contextmanager
def counted() -> Iterator[Calls]:
    calls = Calls()

    def note(_: FrameType, event: str, __: Any) -> None:
        calls.python += event == "call"
        calls.c += event == "c_call"

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def plan_with(keys: int) -> relay.Plan:
    others = "".join(f"  other-{n}: {{key: sk-other-{n:032}}}\n" for n in range(keys - 1))
    return plan_of(
        f"keys:\n  alice: {{key: {SECRET}, limits: {LIMITS}}}\n{others}"
        "providers:\n  p:\n"
        "    api_format: openai\n"
        "    endpoint: http://p.example/v1\n"
        "    api_key: k\n"
        "    models: {m: the-model}\n"
        "    prices: {the-model: {input: 1, output: 3}}\n"
        "log: {format: json}\n"
    )


class Shelf(relay.Sink):
    """Lines that wait for a thread there is not: what it does would be counted now and then."""

    def __init__(self) -> None:
        super().__init__(None)
        self._most = 1 << 20


def relay_of(plan: relay.Plan) -> relay.Relay:
    log = relay.Log(plan.config.log, plan.zone, Shelf())
    return relay.Relay(plan, Nobody(), log, 10.0, relay.MemoryStore())


def answered(served: relay.Relay) -> relay.Exchange:
    """A request that is to be settled."""
    plan = served.plan
    exchange = relay.Exchange(plan, make_mocked_request("POST", "/v1/messages"), relay.CHAT)
    exchange.caller = plan.caller([SECRET], 0.0) or relay.Caller()
    exchange.peek = relay.Peek("m", False)
    exchange.route = relay.permitted("m", exchange.caller, plan)
    exchange.lane, _ = next(served.lanes(exchange))
    exchange.tried.append(relay.Tried(exchange.lane, "ok", 200, 0.5))
    exchange.first, exchange.usage = exchange.began + 0.6, relay.Usage(input=11, output=7)
    exchange.status, exchange.code = 200, "OK"
    return exchange


async def calls_of_a_request(keys: int) -> Calls:
    """From its permit to the line in the log, the second time: what can be found once is."""
    served = relay_of(plan_with(keys))
    for exchange in (answered(served), answered(served)):
        with counted() as calls:
            await served.reserve(exchange, 11, 64)
            served.settle(exchange)
    return calls


async def test_a_request_is_accounted_for_with_few_calls() -> None:
    """Limits, ledger, metrics, feed and log: of some 90 microseconds this was 160 calls."""
    assert (await calls_of_a_request(keys=1)).python <= 85


async def test_it_costs_the_same_with_many_keys() -> None:
    one, many = await calls_of_a_request(keys=1), await calls_of_a_request(keys=500)
    assert (one.python, one.c) == (many.python, many.c)


@pytest.mark.parametrize(
    "cost",
    [
        lambda plan: plan.caller([SECRET], 0.0),
        lambda plan: plan.caller(["sk-nobody"], 0.0),
        lambda plan: plan.redacted("application/json"),
    ],
    ids=["a key", "no key", "no secret"],
)
def test_looking_up_costs_the_same_with_many_keys(cost: Callable[[relay.Plan], object]) -> None:
    spent = list[tuple[int, int]]()
    for plan in (plan_with(1), plan_with(500)):
        cost(plan)
        with counted() as calls:
            cost(plan)
        spent.append((calls.python, calls.c))
    assert spent[0] == spent[1]
