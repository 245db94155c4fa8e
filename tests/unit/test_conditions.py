"""What a rule may ask about a request."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from multidict import CIMultiDict
from unit.configs import plan_of

import relay

PNG = "iVBORw0KGgo="
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
TOOL = {"name": "t", "input_schema": {"type": "object"}}
TITLE = {"type": "object", "properties": {"title": {"type": "string"}}}
BILLING = "x-anthropic-billing-header: cc_version=2.1.329.719; cc_entrypoint=sdk-cli;"


def asked(dialect: str = "anthropic", /, **fields: Any) -> tuple[str, dict[str, Any]]:
    return dialect, {"model": "m", "max_tokens": 10} | ASK | fields


def said(dialect: str, *parts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return asked(dialect, messages=[{"role": "user", "content": list(parts)}])


def facts(
    request: tuple[str, dict[str, Any]] = asked(),
    headers: dict[str, str] | None = None,
    key: str = "",
    model: str = "m",
) -> relay.Facts:
    dialect, body = request
    parsed = relay.functools.partial(relay.DIALECTS[dialect].parse_request, body)
    return relay.Facts(
        model=model,
        key=key,
        headers=CIMultiDict(headers or {}),
        body=body,
        parse=parsed,
        count=lambda: relay.estimate(parsed()),
    )


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
PDF = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
}
LOOKED = {"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}
CHAT_IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
LONG = asked(messages=[{"role": "user", "content": "word " * 20_000}])  # 30,000 tokens, about

CODEX_IMAGE = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
CODEX = [{"type": "message", "role": "user", "content": [CODEX_IMAGE]}]
GEMINI_PARTS = [{"inlineData": {"mimeType": "image/png", "data": PNG}}]
GEMINI = [{"role": "user", "parts": GEMINI_PARTS}]
BUDGET = {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 8192}}

# A condition that holds when it is true, and a request of which it is.
FLAGS: dict[str, tuple[str, relay.Facts]] = {
    "an image": ("images", facts(said("anthropic", IMAGE))),
    "an image that a tool has read": ("images", facts(said("anthropic", LOOKED))),
    "an image in chat": ("images", facts(said("openai", CHAT_IMAGE))),
    "an image in Responses": ("images", facts(("responses", {"model": "m", "input": CODEX}))),
    "an image in Gemini": ("images", facts(("gemini", {"contents": GEMINI}))),
    "an effort in Responses": (
        "thinking",
        facts(("responses", {"model": "m", "input": "hi", "reasoning": {"effort": "high"}})),
    ),
    "a budget in Gemini": (
        "thinking",
        facts(("gemini", {"contents": GEMINI, "generationConfig": BUDGET})),
    ),
    "tools in Gemini": (
        "tools",
        facts(
            ("gemini", {"contents": GEMINI, "tools": [{"functionDeclarations": [{"name": "t"}]}]})
        ),
    ),
    "a document": ("documents", facts(said("anthropic", PDF))),
    "a budget": ("thinking", facts(asked(thinking={"type": "enabled", "budget_tokens": 31999}))),
    "adaptive": ("thinking", facts(asked(thinking={"type": "adaptive", "display": "omitted"}))),
    "an effort": ("thinking", facts(asked("openai", reasoning_effort="low"))),
    "tools": ("tools", facts(asked(tools=[TOOL]))),
    "tools in chat": (
        "tools",
        facts(asked("openai", tools=[{"type": "function", "function": {"name": "t"}}])),
    ),
    "functions": ("tools", facts(asked("openai", functions=[{"name": "t"}]))),
    "the small fast model": ("background", facts(model="claude-haiku-4-5-20251001")),
    "opencode's": ("background", facts(model="gpt-5.4-nano")),
    "Gemini CLI's": ("background", facts(model="gemini-3.5-flash-lite")),
    "a title": (
        "background",
        facts(asked(output_config={"format": {"type": "json_schema", "schema": TITLE}})),
    ),
    "as the client says": (
        "background",
        facts(asked(tools=[TOOL]), {"X-Claude-Code-Request-Class": "auxiliary"}),
    ),
    "an agent's id": ("subagent", facts(headers={"X-Claude-Code-Agent-Id": "a1"})),
    "a parent's id": ("subagent", facts(headers={"x-claude-code-parent-agent-id": "a1"})),
    "the billing line": (
        "subagent",
        facts(asked(system=[{"type": "text", "text": f"{BILLING} cc_is_subagent=true;"}])),
    ),
}
# Requests of which a condition is false though something is near it.
NOT: dict[str, tuple[str, relay.Facts]] = {
    "nothing": ("images", facts()),
    "a document is no image": ("images", facts(said("anthropic", PDF))),
    "an image is no document": ("documents", facts(said("anthropic", IMAGE))),
    "thinking is off": ("thinking", facts(asked(thinking={"type": "disabled"}))),
    "effort none": ("thinking", facts(asked("openai", reasoning_effort="none"))),
    "no thinking": ("thinking", facts()),
    "an empty list of tools": ("tools", facts(asked(tools=[]))),
    "a large model": ("background", facts(model="claude-opus-5-5")),
    "a title with tools is a tool's": (
        "background",
        facts(
            asked(tools=[TOOL], output_config={"format": {"type": "json_schema", "schema": TITLE}})
        ),
    ),
    "the main call of a small model": (
        "background",
        facts(headers={"x-claude-code-request-class": "main"}, model="claude-haiku-4-5"),
    ),
    "the billing line of the main agent": (
        "subagent",
        facts(asked(system=[{"type": "text", "text": BILLING}])),
    ),
    "a prompt that quotes the line": (
        "subagent",
        facts(asked(system=f"{BILLING}\nsay cc_is_subagent=true")),
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_what_is_so_holds_and_its_opposite_does_not(name: str) -> None:
    word, request = FLAGS[name]
    assert relay.unmet(relay.WhenConfig(**{word: True}), request) == ""
    assert relay.unmet(relay.WhenConfig(**{word: False}), request) == (
        f"{word}: false; the request: true"
    )


@pytest.mark.parametrize("name", NOT)
def test_what_is_not_so_does_not_hold_and_its_opposite_does(name: str) -> None:
    word, request = NOT[name]
    assert relay.unmet(relay.WhenConfig(**{word: True}), request).startswith(f"{word}: true;")
    assert relay.unmet(relay.WhenConfig(**{word: False}), request) == ""


CASES: list[tuple[dict[str, Any], relay.Facts, bool]] = [
    ({}, facts(), True),
    ({"tokens_over": 20_000}, facts(LONG), True),
    ({"tokens_over": 50_000}, facts(LONG), False),
    ({"tokens_under": 50_000}, facts(LONG), True),
    ({"tokens_under": 20_000}, facts(LONG), False),
    ({"tokens_over": 20_000, "tokens_under": 50_000}, facts(LONG), True),
    ({"key": ("alice",)}, facts(key="alice"), True),
    ({"key": ("bob", "team-*")}, facts(key="team-blue"), True),
    ({"key": ("bob",)}, facts(key="alice"), False),
    ({"key": ("bob",)}, facts(), False),
    ({"header": {"x-team": "blue"}}, facts(headers={"X-Team": "Blue"}), True),
    ({"header": {"X-Team": "blue"}}, facts(headers={"x-team": "red"}), False),
    ({"header": {"x-team": "*"}}, facts(headers={"x-team": ""}), True),
    ({"header": {"x-team": "*"}}, facts(), False),
    (
        {"header": {"user-agent": "claude-cli/*"}},
        facts(headers={"User-Agent": "claude-cli/2"}),
        True,
    ),
    ({"header": {"a": "1", "b": "2"}}, facts(headers={"a": "1"}), False),
    ({"tools": True, "thinking": True}, facts(asked(tools=[TOOL])), False),
    (
        {"tools": True, "thinking": True},
        facts(asked(tools=[TOOL], thinking={"type": "adaptive"})),
        True,
    ),
]


@pytest.mark.parametrize(("when", "request_", "holds"), CASES)
def test_all_that_is_said_must_hold(
    when: dict[str, Any], request_: relay.Facts, holds: bool
) -> None:
    assert (relay.unmet(relay.WhenConfig(**when), request_) == "") is holds


def test_every_word_of_the_configuration_has_its_condition() -> None:
    words = {spec.name for spec in dataclasses.fields(relay.WhenConfig)}
    assert words == set(relay.CONDITIONS)


def test_only_what_is_asked_is_found_out() -> None:
    """Neither parsing nor counting is done for a rule that can be told without."""

    def never() -> Any:
        raise AssertionError("asked for")

    lazy = dataclasses.replace(facts(asked(tools=[TOOL]), key="bob"), parse=never, count=never)
    cheap = {"key": ("bob",), "tools": True, "background": False, "subagent": False}
    assert relay.unmet(relay.WhenConfig(**cheap), lazy) == ""
    dear = {"images": True, "thinking": True, "tokens_over": 5}
    assert relay.unmet(relay.WhenConfig(key=("alice",), **dear), lazy)


def test_of_a_body_that_cannot_be_parsed_nothing_holds() -> None:
    """It may still pass through to a provider of its dialect, which then says what is wrong."""
    torn = facts(asked(messages=3))
    for when in ({"images": True}, {"images": False}, {"tokens_under": 5}):
        assert "the request cannot be read" in relay.unmet(relay.WhenConfig(**when), torn)


# Where that leads

PLAN = plan_of(
    """
providers:
  glm: {preset: zai, api_key: sk-secret}
  kimi: {preset: moonshot, api_key: sk-secret}
  local: {api_format: openai, endpoint: "http://local/v1"}
keys: {alice: {key: sk-secret-alice}, bob: {key: sk-secret-bob}}
routing_rules:
  claude-opus-*: {when: {key: bob}, to: local/opus}
  claude-*:
    - {when: {tokens_over: 20000}, to: kimi/kimi-k3}
    - {when: {images: true, key: alice}, to: local/vl}
    - {when: {thinking: true}, to: [glm/glm-5, kimi/k2], balance: round_robin}
  claude-h*: {when: {background: true}, to: local/small}
  claude-opus-5: {when: {subagent: true}, to: local/sub}
default: glm/glm-4.6
"""
)


@pytest.mark.parametrize(
    ("name", "request_", "why", "targets"),
    [
        ("claude-x", facts(LONG), "rule claude-*, entry 1", "kimi/kimi-k3"),
        (
            "claude-x",
            facts(said("anthropic", IMAGE), key="alice"),
            "rule claude-*, entry 2",
            "local/vl",
        ),
        ("claude-x", facts(said("anthropic", IMAGE), key="bob"), "default", "glm/glm-4.6"),
        (
            "claude-x",
            facts(asked(thinking={"type": "adaptive"})),
            "rule claude-*, entry 3",
            "glm/glm-5 kimi/k2",
        ),
        # None of an earlier rule's entries holds: the search goes on
        ("claude-haiku", facts(model="claude-haiku"), "rule claude-h*", "local/small"),
        ("claude-opus-5", facts(), "default", "glm/glm-4.6"),
        ("claude-opus-5", facts(key="bob"), "rule claude-opus-*", "local/opus"),
        # The exact name comes first wherever it stands
        (
            "Claude-Opus-5",
            facts(key="bob", headers={"x-claude-code-agent-id": "1"}),
            "rule claude-opus-5",
            "local/sub",
        ),
    ],
)
def test_the_first_entry_that_holds_decides(
    name: str, request_: relay.Facts, why: str, targets: str
) -> None:
    route = PLAN.route(name, request_)
    assert route is not None
    assert route.why == why
    assert " ".join(map(str, route.targets())) == targets


def test_the_targets_of_a_balanced_rule_are_equals() -> None:
    route = PLAN.route("claude-x", facts(asked(thinking={"type": "adaptive"})))
    assert route is not None
    assert route.balance == "round_robin"
    assert [len(group) for group in route.groups] == [2]


def test_entries_that_may_decide_end_with_the_first_that_asks_for_nothing() -> None:
    plan = plan_of(
        "providers: {a: {api_format: demo}}\nrouting_rules:\n"
        "  x: {when: {tools: true}, to: a/1}\n"
        "  '*': [{when: {images: true}, to: a/2}, {to: a/3}]\n"
        "  x*: a/4\n"
    )
    assert [why for why, _ in plan.entries("x")] == ["rule x", "rule *, entry 1", "rule *, entry 2"]


# Entries that can never be used

ALICE: dict[str, Any] = {"key": ("alice",)}


@pytest.mark.parametrize(
    ("earlier", "later", "covered"),
    [
        ({}, {"images": True}, True),
        ({"images": True}, {}, False),
        ({"images": True}, {"images": True}, True),
        ({"images": True}, {"images": False}, False),
        ({"images": True}, {"images": True, "tools": True}, True),
        ({"images": True, "tools": True}, {"images": True}, False),
        ({"tokens_over": 100}, {"tokens_over": 200}, True),
        ({"tokens_over": 200}, {"tokens_over": 100}, False),
        ({"tokens_under": 200}, {"tokens_under": 100}, True),
        ({"tokens_under": 100}, {"tokens_under": 200}, False),
        (ALICE, ALICE | {"tokens_over": 5}, True),
    ],
)
def test_an_entry_is_dead_when_an_earlier_one_takes_all_of_it(
    earlier: dict[str, Any], later: dict[str, Any], covered: bool
) -> None:
    assert relay.covers(relay.WhenConfig(**earlier), relay.WhenConfig(**later)) is covered


# ---- What is spent

SPENT = """
providers:
  glm:
    preset: zai
    api_key: k-12345678
    models: [m]
  cheap: {api_format: openai, endpoint: "http://cheap/v1", models: [c]}
  cheaper: {api_format: openai, endpoint: "http://cheaper/v1", models: [c]}
routing_rules:
  m:
    - {when: {plan_over: 95%}, to: cheaper/c}
    - {when: {plan_over: 80%}, to: cheap/c}
  x: [{when: {budget_over: 50%}, to: cheap/c}, {to: glm/m}]
"""


@pytest.mark.parametrize(
    ("used", "target"),
    [(None, "glm/m"), (0.0, "glm/m"), (0.8, "glm/m"), (0.81, "cheap/c"), (0.96, "cheaper/c")],
)
def test_plan_over_is_of_the_plan_to_which_it_would_go_otherwise(
    used: float | None, target: str
) -> None:
    plan, seen = plan_of(SPENT), list[str]()

    def plan_used(billing: relay.BillingPlan) -> float | None:
        seen.append(billing.credentials[0].name.rpartition("/")[0])
        return used

    route = plan.route("m", relay.replace(facts(), plan_used=plan_used))
    assert route
    assert str(route.targets()[0]) == target
    assert {*seen} == {"glm/coding"}


@pytest.mark.parametrize(
    ("used", "target"), [(None, "glm/m"), (0.5, "glm/m"), (0.51, "cheap/c"), (1.5, "cheap/c")]
)
def test_budget_over_is_of_the_callers_fullest_budget(used: float | None, target: str) -> None:
    route = plan_of(SPENT).route("x", relay.replace(facts(), budget_used=lambda: used))
    assert route
    assert str(route.targets()[0]) == target


def test_what_is_spent_is_explained() -> None:
    when = relay.WhenConfig(budget_over=0.8, plan_over=0.9)
    known = relay.replace(facts(), budget_used=lambda: 0.423, own_plan_used=lambda: 0.95)
    assert relay.unmet(when, known) == "budget_over: 80%; its budget: 42%"
    assert relay.unmet(relay.WhenConfig(plan_over=0.9), facts()) == (
        "plan_over: 90%; its plan: not known"
    )
    assert relay.unmet(relay.WhenConfig(plan_over=0.9), known) == ""


def test_the_budget_of_a_key_is_the_fullest_of_its_day_and_month() -> None:
    limits, now = relay.Limits(), 1_700_000_000.0
    config = relay.LimitConfig(tokens_per_day=1000, tokens_per_month=10_000, rpm=1)
    caller = relay.Caller("alice", limits=config, zone=relay.datetime.UTC)
    assert limits.budget_used(relay.Caller("bob", limits=relay.LimitConfig(rpm=1)), now) is None
    assert limits.budget_used(relay.Caller(), now) is None
    assert limits.budget_used(caller, now) == 0.0
    permit = limits.admit("1", caller, relay.Spend(), now, now)
    limits.settle(permit, relay.Spend(tokens=400), now)
    assert limits.budget_used(caller, now) == 0.4
    assert limits.budget_used(caller, now + 86400) == 0.04
