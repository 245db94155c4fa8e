"""Equals share as their rule says, whatever happened before; what is counted comes to nothing."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.configs import plan_of

import relay

T = 1_700_000_000.0
PLAN = plan_of(
    """
providers:
  one: {api_format: openai, endpoint: "http://one/v1", api_key: [a, b], weight: 1}
  two: {api_format: openai, endpoint: "http://two/v1", weight: 2}
  three: {api_format: openai, endpoint: "http://three/v1", api_key: [c, d, e], weight: 5}
default: one
"""
)
TARGETS = tuple(relay.Target(provider, "m") for provider in PLAN.providers.values())
LANES = [
    relay.Lane(target, plan, credential, plan.endpoint("openai"))
    for target in TARGETS
    for plan in target.provider.plans
    for credential in plan.credentials
]
MODES = [mode for mode in relay.BALANCES if mode != "order"]
lanes = st.sampled_from(LANES)
marks = st.lists(st.tuples(lanes, st.sampled_from(("rate_limited", "overloaded"))), max_size=4)
identities = st.text("abc", max_size=3)


def route(mode: str) -> relay.Route:
    return relay.Route("m", "rule m", (TARGETS,), mode)


def order(balance: relay.Balance, mode: str, identity: str, at: float = 0.0) -> list[relay.Lane]:
    """The lanes that may be used now, in order."""
    seen = balance.lanes(route(mode), "openai", identity, lambda: T + at)
    return [lane for lane, mark in seen if mark is None]


def marked(failures: list[tuple[relay.Lane, str]]) -> relay.Health:
    health = relay.Health()
    for lane, name in failures:
        health.failed(lane, relay.UpstreamError(name, "no"), T)
    return health


@given(marks, st.sampled_from(MODES), identities, st.lists(lanes, max_size=12))
def test_every_lane_is_offered_once_and_the_same_history_gives_the_same_order(
    failures: list[tuple[relay.Lane, str]], mode: str, identity: str, begun: list[relay.Lane]
) -> None:
    def lived() -> list[tuple[relay.Lane, relay.Mark | None]]:
        balance = relay.Balance(marked(failures))
        for lane in begun:
            balance.begin_attempt(lane, route(mode))
            balance.note_latency(lane, 0.5, T)
        return list(balance.lanes(route(mode), "openai", identity, lambda: T))

    first = lived()
    assert sorted(str(lane) for lane, _ in first) == sorted(map(str, LANES))
    assert first == lived()


@given(marks, st.lists(lanes, max_size=20), identities)
def test_least_busy_never_picks_a_busier_lane(
    failures: list[tuple[relay.Lane, str]], begun: list[relay.Lane], identity: str
) -> None:
    balance = relay.Balance(marked(failures))
    for lane in begun:
        balance.begin_attempt(lane, route("least_busy"))
    free = order(balance, "least_busy", identity)
    load = Counter(lane.name for lane in begun)
    assert not free or load[free[0].name] == min(load[lane.name] for lane in free)


@given(st.integers(0, 60), st.lists(lanes, max_size=10))
def test_round_robin_is_fair_to_targets_and_to_their_credentials(
    rounds: int, before: list[relay.Lane]
) -> None:
    """From any beginning: in any n requests each has its share, give or take the first round."""
    balance = relay.Balance(relay.Health())
    for lane in before:
        balance.begin_attempt(lane, route("round_robin")).end()
    picked = []
    for n in range(rounds):
        picked.append(order(balance, "round_robin", f"request {n}")[0])
        balance.begin_attempt(picked[-1], route("round_robin"))
    targets = Counter(str(lane.target) for lane in picked)
    counts = [targets[str(target)] for target in TARGETS]
    assert max(counts) - min(counts) <= 1
    for target in TARGETS:
        own = [lane for lane in LANES if lane.target is target]
        keys = Counter(lane.name for lane in picked)
        assert max(keys[o.name] for o in own) - min(keys[o.name] for o in own) <= 1


def test_shares_are_by_weight() -> None:
    balance, number = relay.Balance(relay.Health()), 4000
    picked = Counter(
        order(balance, "weighted", f"conversation {n}")[0].target.provider.name
        for n in range(number)
    )
    for target in TARGETS:
        share = target.provider.config.weight / 8
        assert picked[target.provider.name] / number == pytest.approx(share, abs=0.03)


@given(st.lists(st.tuples(lanes, st.floats(0.01, 60)), max_size=20), identities)
def test_least_latency_takes_the_sooner_of_two(
    seen: list[tuple[relay.Lane, float]], identity: str
) -> None:
    """So the slowest of three never comes first; and among all, no order but these two."""
    balance = relay.Balance(relay.Health())
    for lane, seconds in seen:
        balance.note_latency(lane, seconds, T)
    soon = {
        str(t): min(balance.seconds(lane, T) for lane in LANES if lane.target is t) for t in TARGETS
    }
    first = str(order(balance, "least_latency", identity)[0].target)
    assert sum(soon[first] <= other for other in soon.values()) >= 2


@given(st.floats(0.1, 100), st.floats(0, 3600))
def test_a_time_fades_so_that_who_was_slow_is_asked_again(seconds: float, later: float) -> None:
    balance = relay.Balance(relay.Health())
    balance.note_latency(LANES[0], seconds, T)
    assert balance.seconds(LANES[0], T) == pytest.approx(seconds)
    assert balance.seconds(LANES[0], T + relay.FADING) == pytest.approx(seconds / 2)
    assert balance.seconds(LANES[0], T + later) <= seconds


@given(st.sampled_from(MODES), lanes, st.lists(lanes, max_size=12), identities)
def test_a_conversation_stays_where_it_was_bound(
    mode: str, served: relay.Lane, begun: list[relay.Lane], identity: str
) -> None:
    balance = relay.Balance(health := relay.Health())
    health.succeeded(served, f"x{identity}", T)
    for lane in begun:
        balance.begin_attempt(lane, route(mode))
        balance.note_latency(lane, 0.5, T)
    assert order(balance, mode, f"x{identity}")[0] == served


@given(
    st.lists(st.tuples(lanes, st.integers(0, 3)), max_size=20), st.randoms(use_true_random=False)
)
def test_what_is_counted_comes_to_nothing(
    begun: list[tuple[relay.Lane, int]], chance: random.Random
) -> None:
    """Whoever ends an attempt, in any order, and however often."""
    balance = relay.Balance(relay.Health())
    flights = [(balance.begin_attempt(lane, route("least_busy")), again) for lane, again in begun]
    chance.shuffle(flights)
    for flight, again in flights:
        for _ in range(again + 1):
            flight.end()
        assert all(count > 0 for count in balance.busy.values())
    assert balance.busy == {}


def test_memory_is_bounded() -> None:
    """Clients make up model names, and each is a lane."""
    balance = relay.Balance(relay.Health())
    for n in range(15_000):
        lane = relay.replace(LANES[0], target=relay.Target(TARGETS[0].provider, f"made-up-{n}"))
        balance.begin_attempt(lane, route("round_robin")).end()
        balance.note_latency(lane, 1.0, T)
    assert len(balance._turns) <= 10_000
    assert len(balance._soon) <= 10_000
    assert balance.busy == {}


@given(seconds=st.floats(0, 1e5), back=st.floats(0, 1e9))
def test_a_time_that_is_still_to_come_has_faded_too(seconds: float, back: float) -> None:
    """The clock was set back since: nobody is kept waiting until it is that late again."""
    balance = relay.Balance(relay.Health())
    balance.note_latency(LANES[0], seconds, T)
    assert 0 <= balance.seconds(LANES[0], T - back) <= seconds
    assert balance.seconds(LANES[0], T - back - relay.FADING) == pytest.approx(
        balance.seconds(LANES[0], T - back) / 2
    )
