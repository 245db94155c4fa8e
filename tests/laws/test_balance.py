"""Equals share as their rule says, whatever happened before; what is counted comes to nothing."""

from __future__ import annotations

import itertools
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


# ---- Left before it is used up

SWITCHING = plan_of(
    """
providers:
  plans:
    api_format: openai
    endpoints: {first: "http://one/v1", second: "http://two/v1"}
    billing_plans: [first, second]
    api_key: {first: [a-secret, b-secret], second: [c-secret, d-secret]}
    switch_at: 90%
  paid: {api_format: openai, endpoint: "http://paid/v1", api_key: [e-secret], switch_below: 1.00}
  other: {api_format: openai, endpoint: "http://other/v1", api_key: [f-secret]}
"""
)
ACCOUNTS = [lane.credential.name for lane in SWITCHING.accounts()]
IN_ORDER = relay.Route(
    "m", "rule m", tuple((relay.Target(p, "m"),) for p in SWITCHING.providers.values())
)
shares = st.fixed_dictionaries({}, optional=dict.fromkeys(ACCOUNTS, st.sampled_from([0.1, 0.95])))
spent = st.sets(st.sampled_from(ACCOUNTS))


def known(used: dict[str, float], exhausted: set[str]) -> relay.Balance:
    """What is left: of a share, a window's or a balance."""
    health = relay.Health()
    for name, share in used.items():
        window = relay.QuotaWindow("5h", share, T + 3600, 18000.0)
        health.quotas.note(name, relay.Quota((window,), 10 * (1 - share), "CNY", T))
    for lane in SWITCHING.accounts():
        if lane.credential.name in exhausted:
            error = relay.UpstreamError("plan_exhausted", "no", retry_after=3600)
            health.failed(lane, error, T)
    return relay.Balance(health)


def credentials(balance: relay.Balance, identity: str) -> tuple[list[str], list[str]]:
    """(those that may be used, in order; those that are left for the first of them)"""
    left = {"of": "an earlier try"}
    seen = balance.lanes(IN_ORDER, "openai", identity, lambda: T, left)
    usable = (lane.credential.name for lane, mark in seen if mark is None)
    first = [*itertools.islice(usable, 1)]
    left_first = [*left] if first else []
    order = [*first, *usable]
    assert not {*left} & {*order}  # at last nothing is left that may be used
    return order, left_first


def is_low(name: str, used: dict[str, float]) -> bool:
    return used.get(name, 0.0) > 0.9 and not name.startswith("other/")


@given(shares, spent, identities)
def test_a_new_conversation_takes_what_is_nearly_used_up_last(
    used: dict[str, float], exhausted: set[str], identity: str
) -> None:
    order, left = credentials(known(used, exhausted), identity)
    lows = [is_low(name, used) for name in order]
    assert lows == sorted(lows)
    assert all(is_low(name, used) for name in left)
    if order and not lows[0]:
        plan = ACCOUNTS.index(order[0]) // 2
        assert {n for n in ACCOUNTS[: 2 * plan] if is_low(n, used)} <= {*left}
    assert len(order) == len(set(order))


@given(shares, spent, identities)
def test_the_next_plan_opens_if_all_of_the_one_before_are_used_up_or_nearly_so(
    used: dict[str, float], exhausted: set[str], identity: str
) -> None:
    order, _ = credentials(known(used, exhausted), identity)
    first = [name for name in ACCOUNTS if name.startswith("plans/first/")]
    opens = all(name in exhausted or is_low(name, used) for name in first)
    assert any(name.startswith("plans/second/") for name in order) == (
        opens and not {name for name in ACCOUNTS if name.startswith("plans/second/")} <= exhausted
    )


@given(shares, spent, st.sampled_from(ACCOUNTS))
def test_a_running_conversation_stays_until_it_is_used_up(
    used: dict[str, float], exhausted: set[str], name: str
) -> None:
    balance = known(used, exhausted - {name})
    balance.health.sticky.bind("talk", name, T)
    order, left = credentials(balance, "talk")
    assert name not in left
    if name.startswith("plans/first/"):
        assert order[0] == name


@given(shares, spent, identities)
def test_without_the_keys_what_is_left_changes_nothing(
    used: dict[str, float], exhausted: set[str], identity: str
) -> None:
    plain = relay.Route("m", "rule m", IN_ORDER.groups)
    plain = relay.replace(
        plain,
        groups=tuple((without_keys(target),) for (target,) in IN_ORDER.groups),
    )

    def order(balance: relay.Balance) -> list[tuple[str, bool]]:
        seen = balance.lanes(plain, "openai", identity, lambda: T)
        return [(lane.credential.name, mark is None) for lane, mark in seen]

    assert order(known(used, exhausted)) == order(known({}, exhausted))


def without_keys(target: relay.Target) -> relay.Target:
    config = relay.replace(target.provider.config, switch_at=None, switch_below=None)
    return relay.Target(relay.replace(target.provider, config=config), target.model)


@given(st.lists(shares, max_size=6))
def test_two_relays_that_hear_one_another_agree_on_what_is_left(
    words: list[dict[str, float]],
) -> None:
    """Each learns something in turn, and tells the other."""
    books = [relay.Notebook(relay.Health()) for _ in range(2)]
    for number, used in enumerate(words):
        own, other = books[number % 2], books[1 - number % 2]
        for name, share in used.items():
            window = relay.QuotaWindow("5h", share, T + 3600, 18000.0)
            own._health.quotas.note(name, relay.Quota((window,), at=T + number))
        other.apply(own.collect(T + number))
    one, two = (book._health.quotas.known for book in books)
    assert {n: q.windows for n, q in one.items()} == {n: q.windows for n, q in two.items()}
