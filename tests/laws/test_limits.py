"""Over any schedule of requests, ends and clocks: rates, concurrency and budgets hold."""

import copy
import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay

DAY = 86400.0
BEGAN = 1_700_000_000.0
UTC = relay.datetime.UTC

sizes = st.builds(relay.Spend, st.integers(0, 500), st.integers(0, 3 * relay.MONEY))
shares = st.floats(0, 1)


@dataclass(frozen=True)
class Step:
    """Time goes by, then a request comes; of those under way, some end."""

    later: float
    asked: relay.Spend
    ends: tuple[tuple[int, float], ...]  # (which, the share of its reservation that it used)


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from((0.0, 0.3, 1.0, 7.5, 59.0, 60.5, 3600.0, DAY)),
        sizes,
        st.lists(st.tuples(st.integers(0, 30), shares), max_size=3).map(tuple),
    ),
    max_size=40,
)
limits = st.builds(
    relay.LimitConfig,
    rpm=st.none() | st.integers(1, 6),
    tpm=st.none() | st.integers(1, 1500),
    concurrent=st.none() | st.integers(1, 5),
    tokens_per_day=st.none() | st.integers(1, 4000),
    cost_per_month=st.none() | st.floats(0, 10),
)


def add(sums: relay.Spend, spend: relay.Spend) -> None:
    sums.tokens += spend.tokens
    sums.cost += spend.cost


@dataclass
class Life:
    """What happened, told by the one who lived it."""

    limits: relay.Limits = field(default_factory=relay.Limits)
    admitted: list[tuple[float, relay.Permit]] = field(default_factory=list)
    running: list[relay.Permit] = field(default_factory=list)
    most_running: int = 0
    used: dict[str, relay.Spend] = field(default_factory=dict)  # by permit
    spent: dict[str, relay.Spend] = field(default_factory=dict)  # by period
    largest: dict[str, relay.Spend] = field(default_factory=dict)  # one request, per period
    refused: list[relay.RelayError] = field(default_factory=list)
    now: float = 0.0

    def end(self, permit: relay.Permit, share: float) -> None:
        asked = permit.reserved
        used = relay.Spend(int(asked.tokens * share), int(asked.cost * share))
        self.limits.settle(permit, used, BEGAN + self.now)
        self.limits.settle(permit, used, BEGAN + self.now)  # again: it changes nothing
        self.running.remove(permit)
        self.used[permit.id] = used
        for label in relay.clock_at(BEGAN + self.now, UTC).periods:
            add(self.spent.setdefault(label, relay.Spend()), used)
            most = self.largest.setdefault(label, relay.Spend())
            most.tokens, most.cost = max(most.tokens, used.tokens), max(most.cost, used.cost)


def lived(config: relay.LimitConfig, schedule: list[Step]) -> Life:
    life, caller = Life(), relay.Caller("alice", limits=config, zone=UTC)
    for number, step in enumerate(schedule):
        life.now += step.later
        for which, share in step.ends:
            if life.running:
                life.end(life.running[which % len(life.running)], share)
        try:
            permit = life.limits.admit(str(number), caller, step.asked, life.now, BEGAN + life.now)
        except (relay.LimitExceeded, relay.BudgetSpent) as error:
            life.refused.append(error)
            continue
        life.admitted.append((life.now, permit))
        life.running.append(permit)
        life.most_running = max(life.most_running, len(life.running))
    return life


@given(config=limits, schedule=steps)
def test_no_minute_holds_more_than_the_rate(
    config: relay.LimitConfig, schedule: list[Step]
) -> None:
    life = lived(config, schedule)
    for begin, _ in life.admitted:
        inside = [p for at, p in life.admitted if begin <= at < begin + 60]
        assert config.rpm is None or len(inside) <= config.rpm
        # what is under way counts as reserved, what is over as used
        tokens = [p.reserved.tokens if p.open else life.used[p.id].tokens for p in inside]
        assert config.tpm is None or sum(tokens) <= config.tpm


@given(config=limits, schedule=steps)
def test_never_more_at_once(config: relay.LimitConfig, schedule: list[Step]) -> None:
    life = lived(config, schedule)
    assert config.concurrent is None or life.most_running <= config.concurrent


@given(config=limits, schedule=steps)
def test_a_budget_is_overshot_by_the_request_admitted_last_at_most(
    config: relay.LimitConfig, schedule: list[Step]
) -> None:
    """Whatever is under way comes to all that it reserved, the worst there is."""
    life = lived(config, schedule)
    while life.running:
        life.end(life.running[0], 1.0)
    for limit in relay.limits_of(config):
        for label, spent in life.spent.items():
            if limit.is_budget and (len(label) == 7) is limit.word.endswith("month"):
                most = limit.most + getattr(life.largest[label], limit.what)
                assert getattr(spent, limit.what) <= most


@given(config=limits, schedule=steps)
def test_permits_balance(config: relay.LimitConfig, schedule: list[Step]) -> None:
    """When everybody is gone the key is as free as it was, but for what was used."""
    life = lived(config, schedule)
    while life.running:
        life.end(life.running[0], 0.5)
    stored, ended = life.limits.collect()
    assert sorted(end.id for end in ended) == sorted(permit.id for _, permit in life.admitted)
    assert {label: spend for (_, label), spend in stored.items()} == life.spent
    free = relay.Caller("alice", limits=relay.LimitConfig(concurrent=1, rpm=1), zone=UTC)
    later = life.now + 61
    assert life.limits.admit("last", free, relay.Spend(), later, BEGAN + later).open


@given(config=limits, schedule=steps)
def test_who_waits_as_told_is_let_in(config: relay.LimitConfig, schedule: list[Step]) -> None:
    """`retry_after` of a rate is long enough, and a refusal for good is never worth a wait."""
    life = lived(config, schedule)
    while life.running:
        life.end(life.running[0], 1.0)
    rates = relay.LimitConfig(rpm=config.rpm, tpm=config.tpm)
    caller = relay.Caller("alice", limits=rates, zone=UTC)
    asked = relay.Spend(tokens=min(100, config.tpm or 100))
    wait = 0.0
    try:
        life.limits.admit("again", caller, asked, life.now, BEGAN + life.now)
    except relay.LimitExceeded as error:
        wait = error.retry_after or math.inf
    assert wait <= 60
    if wait:
        later = math.ceil(life.now + wait)
        life.limits.admit("later", caller, asked, later, BEGAN + later)


@given(
    shares=st.lists(st.tuples(sizes, st.integers(0, 2)), max_size=20),
    stored=st.lists(st.integers(0, 2), max_size=6),
)
def test_relays_that_share_a_store_know_what_all_spent(
    shares: list[tuple[relay.Spend, int]], stored: list[int]
) -> None:
    """Any number of relays, batches in any order: once all are stored, all know the same sum."""
    relays = [relay.Limits() for _ in range(3)]
    caller, sums = relay.Caller("alice", zone=UTC), dict[tuple[str, str], relay.Spend]()

    def store(index: int) -> None:
        for who, spend in relays[index].collect()[0].items():
            add(sums.setdefault(who, relay.Spend()), spend)
        relays[index].learn(sums)

    for number, (spend, index) in enumerate(shares):
        permit = relays[index].admit(str(number), caller, spend, float(number), BEGAN)
        relays[index].settle(permit, spend, BEGAN)
        if number < len(stored):
            store(stored[number])
    for index in (0, 1, 2, 0, 1, 2):
        store(index)
    total = sum(spend.tokens for spend, _ in shares)
    full = relay.LimitConfig(tokens_per_day=max(total, 1))
    for limits in relays if total else ():
        try:
            strict = relay.Caller("alice", limits=full, zone=UTC)
            limits.admit("x", strict, relay.Spend(), 100.0, BEGAN)
        except relay.BudgetSpent:
            continue
        raise AssertionError("a relay does not know what the others spent")


@given(config=limits, schedule=steps, at=st.integers(0, 40))
def test_a_key_that_goes_and_comes_back_is_no_richer(
    config: relay.LimitConfig, schedule: list[Step], at: int
) -> None:
    """Two reloads, one without the key, change nothing that its budgets and permits go by."""
    life = lived(config, schedule[:at])
    once, twice = life.limits, copy.deepcopy(life.limits)
    twice.keep([""])
    twice.keep(["", "alice"])
    caller = relay.Caller("alice", limits=replace(config, rpm=None, tpm=None), zone=UTC)
    said = list[str]()
    for each in (once, twice):
        try:
            said.append(str(each.admit("x", caller, relay.Spend(), life.now, BEGAN + life.now).id))
        except (relay.LimitExceeded, relay.BudgetSpent) as error:
            said.append(error.message)
    assert said[0] == said[1]


def test_a_clock_that_is_set_back_past_midnight_is_no_reason_to_spend_again() -> None:
    """And a key that lives for long costs no memory without end."""
    limits = relay.Limits()
    config = relay.LimitConfig(tokens_per_day=100, tokens_per_month=100_000)
    caller, noon = relay.Caller("alice", limits=config, zone=UTC), BEGAN
    for day in (0, 1, 2):
        permit = limits.admit(f"{day}", caller, relay.Spend(), 0.0, noon + day * relay.DAY)
        limits.settle(permit, relay.Spend(100), noon + day * relay.DAY)
    for day in (0, 1, 2):
        with pytest.raises(relay.BudgetSpent):
            limits.admit("again", caller, relay.Spend(), 0.0, noon + day * relay.DAY)
    for day in range(3, 400):
        permit = limits.admit(f"{day}", caller, relay.Spend(), 0.0, noon + day * relay.DAY)
        limits.settle(permit, relay.Spend(100), noon + day * relay.DAY)
    assert len(permit.account.spent) == 6
    assert limits.used(caller, 0.0, noon + 399 * relay.DAY)["tokens_per_day"] == 100
