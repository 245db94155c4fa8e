"""Who is cooling down, why, and until when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from unit.configs import plan_of

import relay

T = 1_700_000_000.0
PLAN = plan_of(
    """
providers:
  glm:
    preset: bigmodel
    billing_plans: [coding, regular]
    api_key: {coding: [c1, c2], regular: r1}
  other: {api_format: openai, endpoint: "http://other/v1", api_key: [k1, k2]}
default: glm/m
"""
)
GLM, OTHER = (relay.Target(PLAN.providers[name], "m") for name in ("glm", "other"))


def lanes_of(target: relay.Target) -> list[relay.Lane]:
    return [
        relay.Lane(target, plan, credential, plan.endpoint("openai"))
        for plan in target.provider.plans
        for credential in plan.credentials
    ]


C1, C2, R1 = lanes_of(GLM)
K1, K2 = lanes_of(OTHER)


def failed(
    health: relay.Health,
    lane: relay.Lane,
    name: str,
    at: float = 0.0,
    after: float | None = None,
    **more: float,
) -> None:
    health.failed(lane, relay.UpstreamError(name, "no", retry_after=after), T + at, **more)


def until(health: relay.Health, lane: relay.Lane, at: float = 0.0) -> float | None:
    """For how long after T a lane is cooling, as seen at some moment."""
    mark = health.cooling(lane, T + at)
    return mark.until - T if mark else None


def lanes(
    health: relay.Health, groups: list[list[relay.Target]], identity: str = "", at: float = 0.0
) -> Iterator[tuple[relay.Lane, relay.Mark | None]]:
    route = relay.Route("m", "", tuple(map(tuple, groups)))
    return relay.Balance(health).lanes(route, "openai", identity, lambda: T + at)


def offered(health: relay.Health, at: float = 0.0) -> list[str]:
    """The lanes in order, those that cool down in brackets."""
    seen = lanes(health, [[GLM], [OTHER]], "", at)
    names = [(str(lane), mark) for lane, mark in seen]
    return [f"({name})" if mark else name for name, mark in names]


# How long

TIMES: list[tuple[str, float | None, float | None]] = [
    ("rate_limited", None, 10),
    ("rate_limited", 17, 17),
    ("rate_limited", 0, 1),
    ("rate_limited", 90_000, 1800),
    ("overloaded", None, 10),
    ("transient", None, 5),
    ("timeout", None, 10),
    ("auth", None, 900),
    ("model_missing", None, 300),
    ("balance_empty", None, 1800),
    ("plan_exhausted", None, 1200),
    ("plan_exhausted", 7200, 7200),
    ("plan_exhausted", 30 * 86400, 30 * 86400),
    ("plan_exhausted", 90 * 86400, 35 * 86400),
    ("plan_expired", None, 21600),
    ("moderation", 60, None),
    ("too_long", 60, None),
    ("bad_request", 60, None),
    ("client_rejected", 60, None),
]


@pytest.mark.parametrize(("name", "after", "seconds"), TIMES)
def test_a_first_failure_cools_as_its_class_says(
    name: str, after: float | None, seconds: float | None
) -> None:
    health = relay.Health()
    failed(health, C1, name, after=after)
    assert until(health, C1) == seconds
    if seconds:
        assert until(health, C1, at=seconds) is None


def test_short_guesses_grow_with_each_incident_up_to_half_an_hour() -> None:
    health, at, spans = relay.Health(), 0.0, []
    for _ in range(12):
        failed(health, K1, "rate_limited", at)
        end = until(health, K1, at)
        assert end is not None
        spans.append(end - at)
        at = end + 0.5
    assert spans[:4] == [10, 20, 40, 80]
    assert spans[-1] == 1800
    assert sorted(spans) == spans


def test_failures_of_one_moment_are_one_incident() -> None:
    """Attempts that were under way together fail together."""
    health = relay.Health()
    for late in (0.0, 0.1, 0.2):
        failed(health, K1, "rate_limited", late, began=T - 5)
    assert until(health, K1) == pytest.approx(10.2)
    failed(health, K1, "rate_limited", 11.0, began=T + 10.5)
    assert until(health, K1, 11.0) == pytest.approx(31.0)


def test_long_ago_is_another_incident() -> None:
    health = relay.Health()
    failed(health, K1, "rate_limited", 0)
    failed(health, K1, "rate_limited", 100_000)
    assert until(health, K1, 100_000) == 100_010


def test_what_was_announced_stands_against_a_shorter_guess() -> None:
    health = relay.Health()
    failed(health, K1, "rate_limited", after=600)
    failed(health, K1, "rate_limited", 1)
    assert until(health, K1) == 600


def test_a_throttle_does_not_make_a_spent_plan_less_spent() -> None:
    health = relay.Health()
    failed(health, C1, "plan_exhausted", after=7200)
    failed(health, C1, "rate_limited", 1, after=3)
    failed(health, C1, "auth", 2)
    assert until(health, C1) == 7200
    assert health.exhausted(C1, T + 10)


# What is marked

SCOPES: list[tuple[str, str, dict[str, bool]]] = [
    ("rate_limited", "", {"C1": True, "C2": False, "R1": False, "other model": True}),
    ("auth", "", {"C1": True, "C2": False, "R1": False, "other model": True}),
    ("model_missing", "", {"C1": True, "C2": False, "R1": False, "other model": False}),
    (
        "plan_exhausted",
        "credential+model",
        {"C1": True, "C2": False, "R1": False, "other model": False},
    ),
    ("overloaded", "", {"C1": True, "C2": True, "R1": True, "other model": False}),
    ("transient", "", {"C1": True, "C2": True, "R1": True, "other model": False}),
    ("transient", "endpoint", {"C1": True, "C2": True, "R1": True, "other model": True}),
]


@pytest.mark.parametrize(("name", "scope", "cooling"), SCOPES)
def test_a_failure_marks_its_scope_and_no_more(
    name: str, scope: str, cooling: dict[str, bool]
) -> None:
    health = relay.Health()
    health.failed(C1, relay.UpstreamError(name, "no", scope=scope), T)
    other = relay.replace(C1, target=relay.replace(GLM, model="n"))
    lanes = {"C1": C1, "C2": C2, "R1": R1, "other model": other}
    assert {key: health.cooling(lane, T) is not None for key, lane in lanes.items()} == cooling
    assert health.cooling(K1, T) is None


def test_a_rule_may_say_that_nobody_is_to_blame() -> None:
    """Groq's failed generations: the model wrote a bad call, and may write a good one."""
    health = relay.Health()
    health.failed(K1, relay.UpstreamError("transient", "no", scope="request"), T)
    assert health.marks == {}


def test_the_longest_mark_counts() -> None:
    health = relay.Health()
    failed(health, K1, "rate_limited", after=600)
    failed(health, K1, "transient")
    assert until(health, K1) == 600


# Success


def test_a_success_clears_what_was_marked_on_its_way() -> None:
    health = relay.Health()
    for name in ("rate_limited", "transient", "overloaded", "model_missing"):
        failed(health, K1, name)
    failed(health, K2, "auth")
    health.succeeded(K1)
    assert health.cooling(K1, T) is None
    assert health.cooling(K2, T) is not None


def test_a_success_that_began_before_the_plan_ran_out_clears_no_plan() -> None:
    health = relay.Health()
    failed(health, C1, "plan_exhausted", after=7200)
    health.succeeded(C1, "", T + 5, began=T - 5)
    assert until(health, C1) == 7200
    health.succeeded(C1, "", T + 20, began=T + 10)
    assert until(health, C1) is None


# Plans, one by one: DESIGN.md 3

ALL = ["glm/m (coding)#1", "glm/m (coding)#2"]


def test_the_next_plan_is_closed_while_one_credential_is_not_used_up() -> None:
    health = relay.Health()
    both = offered(health)
    assert sorted(both[:2]) == ALL
    assert both[2:] in (["other/m#1", "other/m#2"], ["other/m#2", "other/m#1"])
    failed(health, C1, "plan_exhausted", after=7200)
    assert not [name for name in offered(health) if "regular" in name]


@pytest.mark.parametrize("name", sorted(set(relay.FAILURES) - {"plan_exhausted", "plan_expired"}))
def test_nothing_else_opens_the_next_plan(name: str) -> None:
    health = relay.Health()
    for lane in (C1, C2):
        failed(health, lane, name)
    assert not [lane for lane in offered(health) if "regular" in lane]


@pytest.mark.parametrize("second", ["plan_exhausted", "plan_expired"])
def test_the_next_plan_opens_when_every_credential_is_used_up_and_closes_at_the_reset(
    second: str,
) -> None:
    health = relay.Health()
    failed(health, C1, "plan_exhausted", after=7200)
    failed(health, C2, second, after=9000)
    assert offered(health)[2] == "glm/m (regular)"
    assert [name for name in offered(health) if name.startswith("(")].__len__() == 2
    assert not [lane for lane in offered(health, at=7201) if "regular" in lane]


def test_a_plan_that_runs_out_in_the_middle_of_a_request_opens_the_next_at_once() -> None:
    health = relay.Health()
    seen = []
    for lane, _ in lanes(health, [[GLM]]):
        seen.append(lane.plan.name)
        if lane.plan.name == "coding":
            failed(health, lane, "plan_exhausted", after=7200)
    assert seen == ["coding", "coding", "regular"]


def test_a_model_that_is_not_in_the_plan_opens_the_next_for_that_model_alone() -> None:
    """GLM 1311."""
    health = relay.Health()
    for lane in (C1, C2):
        error = relay.UpstreamError("plan_exhausted", "no", scope="credential+model")
        health.failed(lane, error, T)
    assert "glm/m (regular)" in offered(health)
    other = [str(lane) for lane, _ in lanes(health, [[relay.replace(GLM, model="n")]])]
    assert sorted(other) == ["glm/n (coding)#1", "glm/n (coding)#2"]


# Conversations stay with what served them


def first(health: relay.Health, identity: str) -> str:
    lane, _ = next(iter(lanes(health, [[OTHER]], identity)))
    return str(lane)


def test_a_conversation_stays_with_the_credential_that_served_it_last() -> None:
    health = relay.Health()
    for n in range(20):
        name = f"conversation {n}"
        other = {"other/m#1": K2, "other/m#2": K1}[first(health, name)]
        health.succeeded(other, name, T)
        assert first(health, name) == str(other)
    assert len({first(health, f"new {n}") for n in range(20)}) == 2


def test_stickiness_never_outranks_an_earlier_target_or_plan() -> None:
    health = relay.Health()
    health.succeeded(R1, "a", T)
    health.succeeded(K1, "b", T)
    for name in "ab":
        order = [str(lane) for lane, _ in lanes(health, [[GLM], [OTHER]], name)]
        assert sorted(order[:2]) == ALL
        assert not [lane for lane in order if "regular" in lane]


def test_among_equals_the_target_that_served_it_comes_first() -> None:
    health = relay.Health()
    for served in (K1, C1):
        health.succeeded(served, "a", T)
        lane, _ = next(iter(lanes(health, [[GLM, OTHER]], "a")))
        assert lane.target.provider is served.target.provider


def test_a_conversation_that_comes_back_finds_its_credential_again() -> None:
    """Another provider helped out for a while; the cache at the first one is still there."""
    health = relay.Health()
    health.succeeded(K2, "a", T)
    health.succeeded(C1, "a", T + 60)
    assert first(health, "a") == str(K2)
    assert health.sticky.bound("a", T + 60) == [C1.credential.name, K2.credential.name]


def test_the_word_for_each_success() -> None:
    health = relay.Health()
    steps = [(K1, "miss"), (K1, "hit"), (K2, "repin"), (K2, "hit"), (C1, "repin"), (K2, "hit")]
    assert [health.succeeded(lane, "a", T) for lane, _ in steps] == [word for _, word in steps]
    assert health.sticky.counts == {"hit": 3, "miss": 1, "repin": 2}
    assert health.succeeded(K1, "", T) is None


@pytest.mark.parametrize(
    ("name", "stays"),
    [("auth", False), ("rate_limited", False), ("model_missing", False), ("overloaded", True)],
)
def test_a_conversation_leaves_the_credential_that_failed_it(name: str, stays: bool) -> None:
    """But not the one whose model or host had a bad moment: its siblings fared no better."""
    health = relay.Health()
    health.succeeded(K2, "a", T)
    health.failed(K2, relay.UpstreamError(name, "no"), T + 1, T, identity="a")
    assert health.sticky.bound("a", T + 1) == ([K2.credential.name] if stays else [])


def test_another_credentials_failure_unbinds_nobody() -> None:
    health = relay.Health()
    health.succeeded(K2, "a", T)
    health.failed(K1, relay.UpstreamError("auth", "no"), T + 1, T, identity="a")
    assert health.sticky.bound("a", T + 1) == [K2.credential.name]


def test_a_bond_ends_a_day_after_the_last_success() -> None:
    health = relay.Health()
    health.succeeded(K2, "a", T)
    health.succeeded(K2, "a", T + 80_000)
    assert health.sticky.bound("a", T + 166_000) == [K2.credential.name]
    assert health.sticky.bound("a", T + 166_401) == []
    assert health.succeeded(K2, "a", T + 170_000) == "miss"


# The end of a mark: one request finds out


def test_at_its_end_exactly_one_request_probes() -> None:
    health = relay.Health()
    failed(health, K1, "rate_limited", after=30)
    with health.attempting(K1, T + 31):
        for _ in range(3):
            assert health.cooling(K1, T + 31) is not None
        assert health.cooling(K2, T + 31) is None
    assert health.cooling(K1, T + 31) is None


def test_a_probe_that_dies_gives_its_place_to_the_next() -> None:
    health = relay.Health()
    failed(health, K1, "rate_limited", after=30)
    with pytest.raises(KeyboardInterrupt), health.attempting(K1, T + 31):
        raise KeyboardInterrupt
    with health.attempting(K1, T + 32):
        assert health.cooling(K1, T + 32) is not None


def test_a_probe_that_fails_makes_the_guess_longer() -> None:
    health = relay.Health()
    failed(health, K1, "rate_limited")
    with health.attempting(K1, T + 11):
        failed(health, K1, "rate_limited", 12, began=T + 11)
    assert until(health, K1, 12) == 32


def test_a_probe_that_fails_otherwise_leaves_the_mark_to_the_next_probe() -> None:
    health = relay.Health()
    failed(health, K1, "auth")
    with health.attempting(K1, T + 901):
        failed(health, K1, "bad_request", 902, began=T + 901)
    assert next(iter(health.marks.values())).failure == "auth"
    with health.attempting(K1, T + 903):
        assert health.cooling(K1, T + 903) is not None
        health.succeeded(K1, "", T + 904, began=T + 903)
    assert health.marks == {}


def test_a_refused_key_is_probed_every_quarter_of_an_hour() -> None:
    health, at = relay.Health(), 0.0
    for _ in range(5):
        failed(health, K1, "auth", at)
        assert until(health, K1, at) == at + 900
        at += 901


def test_while_one_request_asks_a_plan_again_the_others_stay_with_the_next() -> None:
    health = relay.Health()
    for lane in (C1, C2):
        failed(health, lane, "plan_exhausted", after=7200)
    with health.attempting(C1, T + 7300), health.attempting(C2, T + 7300):
        seen = offered(health, at=7300)
        assert [name for name in seen if name.startswith("(")].__len__() == 2
        assert seen[2] == "glm/m (regular)"
    assert "glm/m (regular)" not in offered(health, at=7300)


def test_a_guess_at_a_plans_window_grows_to_six_hours() -> None:
    """20 minutes for a window of five hours; by and by it is seen to be a week's."""
    health, at, spans = relay.Health(), 0.0, []
    for _ in range(7):
        failed(health, C1, "plan_exhausted", at)
        end = until(health, C1, at)
        assert end is not None
        spans.append(end - at)
        at = end + 1
    assert spans == [1200, 2400, 4800, 9600, 19200, 21600, 21600]


def test_a_plans_window_and_a_throttle_are_kept_apart() -> None:
    health = relay.Health()
    failed(health, C1, "rate_limited", after=30)
    failed(health, C1, "plan_exhausted", after=7200)
    assert len(health.marks) == 2
    health.succeeded(C1, "", T + 5, began=T - 1)  # it was under way and knows of neither
    assert len(health.marks) == 2
    failed(health, C1, "transient", 6)
    health.succeeded(C1, "", T + 7, began=T - 1)  # but that was only a guess
    assert sorted(mark.failure for mark in health.marks.values()) == [
        "plan_exhausted",
        "rate_limited",
    ]


def test_what_was_announced_and_is_over_does_not_lock_the_last_way() -> None:
    health = relay.Health()
    failed(health, K1, "rate_limited", after=30)
    mark = health.cooling(K1, T)
    assert mark
    assert not mark.worth_a_try
    with health.attempting(K1, T + 31):
        mark = health.cooling(K1, T + 31)
        assert mark
        assert mark.worth_a_try


def test_one_firm_mark_is_enough_to_keep_a_lane_from_being_tried_anyway() -> None:
    health = relay.Health()
    failed(health, K1, "rate_limited", after=30)
    for _ in range(9):
        failed(health, K1, "overloaded", began=T + 1)
    mark = health.cooling(K1, T)
    assert mark
    assert (mark.failure, mark.worth_a_try) == ("rate_limited", False)


# Looking after it


def test_the_list_says_what_why_and_until_when() -> None:
    health = relay.Health()
    health.succeeded(C1, "a", T)
    error = relay.UpstreamError("plan_exhausted", "used up " * 100, retry_after=7200)
    health.failed(C1, error, T)
    failed(health, K1, "overloaded", 1)
    plan, short = health.listed(T + 2)
    assert plan["said"].startswith("used up")
    assert len(plan["said"]) <= 200
    assert {k: plan[k] for k in ("scope", "name", "cause", "times", "bound", "guessed")} == {
        "scope": "credential",
        "name": C1.credential.name,
        "cause": "plan_exhausted",
        "times": 1,
        "bound": 1,
        "guessed": False,
    }
    assert (plan["since"], plan["until"], plan["next_probe"]) == (T, T + 7200, T + 7200)
    assert (short["scope"], short["name"]) == ("provider+model", "other m")
    with health.attempting(K1, T + 20):
        assert health.listed(T + 21)[1]["next_probe"] is None


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("", []),
        ("other", ["glm m", C1.credential.name]),
        ("other m", ["glm m", C1.credential.name, f"{K1.credential.name} m", K2.credential.name]),
        (K1.credential.name, ["glm m", C1.credential.name, K2.credential.name, "other m"]),
        ("oth", ["glm m", C1.credential.name, f"{K1.credential.name} m", K2.credential.name,
                 "other m"]),
    ],
)  # fmt: skip
def test_marks_are_cleared_by_name(name: str, left: list[str]) -> None:
    health = relay.Health()
    for lane, failure in (
        (C1, "auth"), (C1, "overloaded"), (K1, "model_missing"), (K2, "auth"), (K1, "overloaded"),
    ):  # fmt: skip
        failed(health, lane, failure)
    cleared = health.clear(name)
    assert sorted(place.name for place in health.marks) == sorted(left)
    assert len(cleared) == 5 - len(left)


def test_a_reload_keeps_what_stays_and_forgets_what_is_gone() -> None:
    health = relay.Health()
    for lane in (K1, K2):
        failed(health, lane, "auth")
        health.sticky.bind(lane.credential.name, lane.credential.name, T)
    failed(health, C1, "overloaded")
    health.failed(K1, relay.UpstreamError("transient", "no", scope="endpoint"), T)
    assert health.keep(PLAN) == []
    assert len(health.marks) == 4
    after = plan_of("""
providers:
  other: {api_format: openai, endpoint: "http://elsewhere/v1", api_key: [k2, new]}
default: other/m
""")
    gone = health.keep(after)
    assert sorted(gone) == sorted([K1.credential.name, "glm m", "other other"])
    assert [place.name for place in health.marks] == [K2.credential.name]
    assert health.sticky.bound(K1.credential.name, T) == []
    assert health.sticky.bound(K2.credential.name, T) == [K2.credential.name]


def test_what_is_exported_can_be_adopted() -> None:
    health, other = relay.Health(), relay.Health()
    for lane, name in ((C1, "plan_exhausted"), (K1, "rate_limited"), (K2, "auth")):
        failed(health, lane, name, after=7200)
        health.succeeded(R1, name, T)
    marks = relay.loads(relay.dumps(health.exported()))
    bound = relay.loads(relay.dumps(health.sticky.collect()))
    failed(other, K1, "auth", 5)
    for mark in marks:
        other.adopt(mark)
    for bond in bound:
        other.sticky.adopt(bond)
    assert until(other, C1) == 7200
    assert until(other, K1) == 905  # the later of two stands
    assert other.sticky.bound("rate_limited", T) == [R1.credential.name]
    assert other.exported() != marks
    for mark in other.exported():
        health.adopt(mark)
    assert {m["name"]: m["until"] for m in health.exported()} == {
        m["name"]: m["until"] for m in other.exported()
    }


def test_relays_with_different_plans_leave_each_others_marks_alone() -> None:
    """They may share a store for their budgets: what one does not know, it neither takes over nor
    tells others that it is gone, not even after a reload."""
    ours, theirs = relay.Health(), relay.Health()
    notebook, other = relay.Notebook(ours), relay.Notebook(theirs)
    failed(ours, C1, "plan_exhausted", after=7200)
    failed(ours, K1, "overloaded")
    notes = notebook.collect(T)
    assert len(notes) == 2
    other.apply(notes)
    theirs.keep(
        plan_of("""
providers:
  other: {api_format: openai, endpoint: "http://other/v1", api_key: [k1, k2]}
default: other/m
""")
    )
    assert [mark.failure for mark in theirs.marks.values()] == ["overloaded"]
    assert other.collect(T + 1) == []
    other.apply(notes)
    assert len(theirs.marks) == 1
    theirs.clear()
    (gone,) = other.collect(T + 2)
    notebook.apply([gone])
    assert until(ours, C1) == 7200


# Memory is bounded


def test_marks_and_conversations_are_bounded() -> None:
    health = relay.Health()
    for n in range(3000):
        lane = relay.replace(K1, target=relay.replace(OTHER, model=f"made-up-{n}"))
        failed(health, lane, "model_missing")
    assert len(health.marks) <= 1000
    for n in range(12_000):
        health.succeeded(K1, f"conversation {n}", T)
    assert len(health.sticky.collect()) == 10_000
    assert health.sticky.bound("conversation 0", T) == []
    assert health.sticky.bound("conversation 11999", T)
    failed(health, K1, "rate_limited")
    assert until(health, K1) is not None


def test_marks_of_other_relays_are_bounded_too() -> None:
    """A store keeps those of all relays, of those that died as well."""
    health = relay.Health()
    notebook = relay.Notebook(health)
    lane = relay.replace(K1, target=relay.replace(OTHER, model="made-up"))
    failed(health, lane, "model_missing")
    (mark,) = health.exported()
    failed(health, K1, "auth")
    for n in range(3000):
        health.adopt(mark | {"name": f"other made-up-{n}", "since": T - 1})
    notebook.collect(T)
    assert len(health.marks) == 1000
    assert until(health, K1) is not None


@pytest.mark.parametrize(
    ("after", "share", "age", "clear"),
    [
        (None, 0.5, 1.0, True),
        (None, 0.99, 1.0, False),  # makers round
        (None, 0.5, -1.0, False),  # known before it failed
        (3600.0, 0.5, 1.0, False),  # the provider said until when
    ],
)
def test_a_look_up_that_shows_room_ends_a_guess(
    after: float | None, share: float, age: float, clear: bool
) -> None:
    health = relay.Health()
    failed(health, C1, "plan_exhausted", after=after)
    failed(health, C2, "plan_exhausted")
    windows = (relay.QuotaWindow("5h", share), relay.QuotaWindow("7d", share / 2))
    health.looked_up(C1.credential.name, relay.Quota(windows, at=T + age))
    assert (until(health, C1, 2.0) is None) is clear
    assert until(health, C2, 2.0) is not None
    health.looked_up(C2.credential.name, relay.Quota(balance=5.0, at=T + 1.0))
    assert until(health, C2, 2.0) is not None  # a balance says nothing of a plan
