"""Cooldowns end, plans open one by one, success clears."""

from collections.abc import Iterator

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
        for key in (lane.key("credential"), lane.key("credential+model"))
        if (mark := health.marks.get(key))
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
    health.forget(now + 36 * 86400)
    assert health.marks == {}
