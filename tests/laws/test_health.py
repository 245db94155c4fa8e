"""Cooldowns end, one request probes, plans open one by one, success clears."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from unit.configs import plan_of

import relay

CONFIG = """
providers:
  one:
    endpoints:
      coding: {openai: "http://one/v1", anthropic: "http://one"}
      regular: {openai: "http://one-pay/v1"}
    billing_plans: [coding, regular]
    api_key: {coding: [c1, c2], regular: r1}
  two: {api_format: openai, endpoint: "http://two/v1", api_key: [k1, k2, k3]}
default: one/m
"""


PLAN = plan_of(CONFIG)
TARGETS = [relay.Target(PLAN.providers[name], "m") for name in ("one", "two")]
FAILURES = sorted(relay.FAILURES)
OPENERS = frozenset(("plan_exhausted", "plan_expired"))
seconds = st.floats(0, 40 * 86400)
failures = st.tuples(st.sampled_from(FAILURES), st.none() | seconds)
identities = st.sampled_from(("", "alice", "bob"))


def lanes(health: relay.Health, now: float, identity: str = "") -> list[tuple[relay.Lane, object]]:
    route = relay.Route("m", "", tuple((target,) for target in TARGETS))
    return list(relay.Balance(health).lanes(route, "openai", identity, lambda: now))


def every_lane() -> Iterator[relay.Lane]:
    for target in TARGETS:
        for plan in target.provider.plans:
            for credential in plan.credentials:
                yield relay.Lane(target, plan, credential, plan.endpoint("openai"))


LANES = list(every_lane())
# What happened: who failed how, or (no failure) succeeded, and how long after the one before.
histories = st.lists(
    st.tuples(st.sampled_from(LANES), st.none() | failures, st.floats(0, 4000)), max_size=12
)


class Play:
    """Requests that come, run beside one another and end as they may, against a clock.

    What each step draws is what is looked at: who may go where, who probes, who is marked.
    """

    def __init__(self) -> None:
        self.health = relay.Health()
        self.now = 1_700_000_000.0
        self.running: list[Running] = []
        self.most_probes = 0

    def comes(self, identity: str) -> None:
        """A request, to the first lane that is open to it."""
        open_to = (lane for lane, mark in lanes(self.health, self.now, identity) if not mark)
        if lane := next(open_to, None):
            due = {p for p, m in self.on(lane).items() if m.until <= self.now}
            running = self.health.attempting(lane, self.now)
            running.__enter__()
            self.running.append(Running(lane, self.now, identity, running, due))

    def ends(self, which: int, failure: tuple[str, float | None] | None, dies: bool) -> None:
        if not self.running:
            return
        one = self.running.pop(which % len(self.running))
        health, (lane, began, identity, attempt, _) = self.health, one
        if dies:
            attempt.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
            return
        if failure is None:
            health.succeeded(lane, identity, self.now, began)
            # a success always heals: nothing older than the attempt is left on its way
            assert all(mark.since >= began for mark in self.on(lane).values())
        else:
            error = relay.UpstreamError(failure[0], "no", retry_after=failure[1])
            health.failed(lane, error, self.now, began, identity)
        attempt.__exit__(None, None, None)

    def on(self, lane: relay.Lane) -> dict[relay.Place, relay.Mark]:
        names = [(scope, lane.key(scope)) for scope in relay.MARKED_SCOPES]
        places = [relay.Place(*name, of_plan) for name in names for of_plan in (False, True)]
        return {place: self.health.marks[place] for place in places if place in self.health.marks}

    def check(self) -> None:
        probed: dict[relay.Place, int] = {}
        for one in self.running:
            for place in one.due & self.health.marks.keys():
                mark = self.health.marks[place]
                probed[place] = probed.get(place, 0) + (mark.until <= one.began)
        assert all(count <= 1 for count in probed.values()), "two probes of one mark"
        for place, mark in self.health.marks.items():
            assert mark.probing is (probed.get(place, 0) == 1)
            assert mark.until <= self.now + (35 * 86400 if place.of_plan else 3600 * 24 * 35)


class Running(NamedTuple):
    lane: relay.Lane
    began: float
    identity: str
    attempt: AbstractContextManager[None]
    due: set[relay.Place]  # marks that this request is to probe


steps = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), identities),
        st.tuples(st.just("ends"), st.integers(0, 9), st.none() | failures, st.booleans()),
        st.tuples(st.just("waits"), st.sampled_from((0.1, 3.0, 11.0, 901.0, 4000.0, 90_000.0))),
    ),
    max_size=40,
)


@given(steps=steps)
def test_over_any_schedule_one_request_probes_and_probes_balance(steps: list[Any]) -> None:
    play = Play()
    for step, *how in steps:
        if step == "waits":
            play.now += how[0]
        else:
            getattr(play, step)(*how)
        play.check()
    while play.running:
        play.ends(0, None, dies=True)
    assert not any(mark.probing for mark in play.health.marks.values())
    # and however it went, in the end everything can be asked again
    play.now += 36 * 86400
    assert not any(mark for _, mark in lanes(play.health, play.now))


@given(steps=steps, identity=identities)
def test_over_any_schedule_a_later_plan_opens_only_behind_used_up_ones(
    steps: list[Any], identity: str
) -> None:
    play = Play()
    for step, *how in steps:
        if step == "waits":
            play.now += how[0]
        else:
            getattr(play, step)(*how)
        offered = [lane for lane, _ in lanes(play.health, play.now, identity)]
        opened = any(lane.plan.name == "regular" and lane.target is TARGETS[0] for lane in offered)
        spent = [
            any(place.of_plan and mark.is_active(play.now) for place, mark in play.on(lane).items())
            for lane in LANES
            if lane.plan.name == "coding"
        ]
        assert opened is all(spent)


def lived(
    history: list[tuple[relay.Lane, tuple[str, float | None] | None, float]],
) -> tuple[relay.Health, float]:
    health, now = relay.Health(), 1_700_000_000.0
    for lane, failure, later in history:
        now += later
        if failure is None:
            health.succeeded(lane)
        else:
            name, after = failure
            health.failed(lane, relay.UpstreamError(name, "no", retry_after=after), now)
    return health, now


@given(history=histories)
def test_every_cooldown_ends(history: list[tuple[relay.Lane, None, float]]) -> None:
    health, now = lived(history)
    assert all(mark.until <= now + 35 * 86400 for mark in health.marks.values())
    assert [mark for _, mark in lanes(health, now + 35 * 86400 + 1) if mark] == []


@given(history=histories)
def test_short_marks_end_within_half_an_hour(history: list[tuple[relay.Lane, None, float]]) -> None:
    health, now = lived(history)
    for mark in health.marks.values():
        if mark.failure not in (*OPENERS, "balance_empty"):
            assert mark.until <= now + 1800


@given(history=histories, identity=identities)
def test_a_later_plan_opens_only_when_every_credential_before_is_used_up(
    history: list[tuple[relay.Lane, None, float]], identity: str
) -> None:
    health, now = lived(history)
    offered = [lane for lane, _ in lanes(health, now, identity)]
    coding = [lane for lane in LANES if lane.plan.name == "coding"]
    opened = any(lane.plan.name == "regular" and lane.target is TARGETS[0] for lane in offered)
    assert opened is all(used_up(health, lane, now) for lane in coding)
    assert {lane.credential.name for lane in coding} <= {lane.credential.name for lane in offered}


def used_up(health: relay.Health, lane: relay.Lane, now: float) -> bool:
    return any(
        mark.failure in OPENERS and mark.until > now
        for scope in ("credential", "credential+model")
        if (mark := health.marks.get(relay.Place(scope, lane.key(scope), True)))
    )


@given(history=histories, lane=st.sampled_from(LANES))
def test_a_success_clears_its_own_way(
    history: list[tuple[relay.Lane, None, float]], lane: relay.Lane
) -> None:
    health, now = lived(history)
    health.succeeded(lane)
    assert health.cooling(lane, now) is None


@given(history=histories, failure=failures, lane=st.sampled_from(LANES))
def test_what_is_the_requests_own_fault_marks_nothing(
    history: list[tuple[relay.Lane, None, float]],
    failure: tuple[str, float | None],
    lane: relay.Lane,
) -> None:
    health, now = lived(history)
    before = dict(health.marks)
    name, after = failure
    health.failed(lane, relay.UpstreamError(name, "no", retry_after=after), now)
    if relay.FAILURES[name].scope == "request":
        assert health.marks == before
    else:
        assert health.cooling(lane, now) is not None


@given(history=histories, identity=identities)
def test_every_target_is_offered_in_order(
    history: list[tuple[relay.Lane, None, float]], identity: str
) -> None:
    health, now = lived(history)
    offered = [str(lane.target) for lane, _ in lanes(health, now, identity)]
    assert list(dict.fromkeys(offered)) == ["one/m", "two/m"]
    assert offered.count("two/m") == 3


@given(identity=st.text(max_size=20))
def test_a_conversation_keeps_its_credential(identity: str) -> None:
    health = relay.Health()
    orders = [[str(lane) for lane, _ in lanes(health, now, identity)] for now in (0.0, 9e9)]
    assert orders[0] == orders[1]


@given(history=histories)
def test_what_is_forgotten_was_over(history: list[tuple[relay.Lane, None, float]]) -> None:
    health, now = lived(history)
    cooling = [str(lane) for lane, mark in lanes(health, now) if mark]
    health.forget(now)
    assert [str(lane) for lane, mark in lanes(health, now) if mark] == cooling
    health.forget(now + 37 * 86400)
    assert health.marks == {}


@given(history=histories, back=st.floats(61, 10**8), failure=failures)
def test_a_clock_that_is_set_back_locks_nobody_out(
    history: list[tuple[relay.Lane, tuple[str, float | None] | None, float]],
    back: float,
    failure: tuple[str, float | None],
) -> None:
    """What was marked by the wrong time is due at once: one asks, and what it learns holds."""
    health, now = relay.Health(), 1_700_000_000.0
    for lane, how, later in history:
        if how and relay.FAILURES[how[0]].cool:
            health.failed(lane, relay.UpstreamError(how[0], "no", retry_after=how[1]), now)
        now += later
    now = 1_700_000_000.0 - back
    assert not any(health.cooling(lane, now) for lane in LANES)
    lane = LANES[0]
    with health.attempting(lane, now):
        marked = any(health._on(lane))
        assert (health.cooling(lane, now) is not None) == marked
    health.failed(lane, relay.UpstreamError(failure[0], "no", retry_after=failure[1]), now)
    row = relay.FAILURES[failure[0]]
    if row.cool and row.scope in relay.MARKED_SCOPES:
        assert health.cooling(lane, now)
    health.succeeded(lane, "", now + 1, now + 0.5)
    health.succeeded(lane, "", now + 1, now + 1)
    assert not any(mark.since <= now for mark in health._on(lane).values())
    assert not health.cooling(lane, now + 1)


SICK = relay.Health()
SICK.failed(LANES[0], relay.UpstreamError("overloaded", "no"), 1_700_000_000.0)
NOTED = SICK.exported()[0]
BOND = {"name": "alice", "credentials": {"one/coding": "one/coding/1"}, "until": 1.8e9}
odd = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
odder = odd | st.lists(odd, max_size=2) | st.dictionaries(st.text(max_size=3), odd, max_size=2)


@given(
    kind=st.sampled_from(("mark", "bond", "ratio", "else")),
    changes=st.dictionaries(st.sampled_from([*NOTED, *BOND, "gone"]), odder, max_size=3),
    line=st.none() | odder,
    name=st.sampled_from(("", "x", "[1, 2]", '["model", "x", false]')),
)
def test_what_a_relay_of_another_version_notes_breaks_nothing(
    kind: str, changes: dict[str, Any], line: Any, name: str
) -> None:
    """It shares the store with this one while they are renewed one after the other."""
    health, now = relay.Health(), 1_700_000_001.0
    notebook = relay.Notebook(health)
    said = {**(NOTED if kind == "mark" else BOND), **changes}
    notebook.apply([relay.Note(kind, name, said if line is None else line, now + 60)])
    for balance in ("weighted", "least_latency"):
        route = relay.Route("m", "", (tuple(TARGETS),), balance=balance)
        for lane, mark in relay.Balance(health).lanes(route, "openai", "alice", lambda: now):
            assert mark is None or mark.worth_a_try in (True, False)
            health.failed(lane, relay.UpstreamError("overloaded", "no"), now)
            health.succeeded(lane, "alice", now, now)
    assert relay.dumps(health.listed(now))
    assert relay.dumps([note.line for note in notebook.collect(now)])
    health.keep(PLAN)
