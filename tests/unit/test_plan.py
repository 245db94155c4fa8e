"""Where a name goes, by which way, at which address: DESIGN.md 3."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections import Counter
from urllib.parse import quote, quote_plus

import pytest
from unit.configs import plan_of

import relay

A, C = relay.ANTHROPIC, relay.CHAT

PLAN = plan_of(
    """
providers:
  GLM:
    preset: bigmodel
    api_key: k
    models: [glm-4.6, GLM-4.5]
  deepseek: {preset: deepseek, api_key: k}
  local:
    api_format: openai
    endpoint: http://local/v1
    prefix: qwen
    models:
      claude-sonnet-4-5: qwen3-235b
      "claude-haiku-*": qwen3-8b
      "gpt-?": {context: 1000, output: 77}
      big: {name: Qwen/Big, output: 99}
      plain: plain
  second: {api_format: openai, endpoint: http://second/v1, models: [glm-4.6], priority: 5}
  third: {api_format: openai, endpoint: http://third/v1, models: [GLM-4.6, big], priority: 9}
  any: {api_format: openai, endpoint: http://any/v1}
  mapped: {preset: deepseek, api_key: k, models: {}, priority: 1}
  off: {api_format: openai, endpoint: http://off/v1, models: [off-model], active: false}
routing_rules:
  fixed: local/big
  chain: [GLM/glm-4.6, deepseek/deepseek-chat, local]
  claude-opus-*: local/claude-sonnet-4-5
  claude-*: GLM/GLM-4.5
  claude-opus-4: deepseek/deepseek-reasoner
  dead-*: off/x
  same: LOCAL
"""
)


def where(plan: relay.Plan, name: str) -> list[list[str]]:
    """The targets of a name, equals together."""
    route = plan.route(name)
    return [[str(target) for target in group] for group in route.groups] if route else []


ROUTES: list[tuple[str, list[list[str]]]] = [
    # 1. rules: the exact name, then globs in the order of the file
    ("fixed", [["local/Qwen/Big"]]),
    ("FIXED", [["local/Qwen/Big"]]),
    ("chain", [["GLM/glm-4.6"], ["deepseek/deepseek-chat"], ["local/chain"]]),
    ("claude-opus-4", [["deepseek/deepseek-reasoner"]]),
    ("claude-opus-4-1", [["local/qwen3-235b"]]),
    ("claude-sonnet-4-5", [["GLM/GLM-4.5"]]),
    ("Claude-Opus-9", [["local/qwen3-235b"]]),
    ("same", [["local/same"]]),
    # 2. addressed directly
    ("local/claude-sonnet-4-5", [["local/qwen3-235b"]]),
    ("local,claude-sonnet-4-5", [["local/qwen3-235b"]]),
    ("LOCAL/Claude-Haiku-3", [["local/qwen3-8b"]]),
    ("local/whatever", [["local/whatever"]]),
    ("glm/glm-4.6", [["GLM/glm-4.6"]]),
    ("deepseek/a/b", [["deepseek/a/b"]]),
    ("off/x", [["mapped/off/x"], ["any/off/x"]]),
    # 3. listed: exact, then but for its case, then a glob; within these by priority
    ("glm-4.6", [["second/glm-4.6"], ["GLM/glm-4.6"], ["third/GLM-4.6"]]),
    ("glm-4.5", [["GLM/GLM-4.5"]]),
    ("big", [["third/big"], ["local/Qwen/Big"]]),
    ("gpt-5", [["local/gpt-5"]]),
    ("gpt-55", [["mapped/gpt-55"], ["any/gpt-55"]]),
    ("deepseek-chat", [["deepseek/deepseek-chat"]]),
    ("DeepSeek-Chat", [["deepseek/DeepSeek-Chat"]]),
    ("qwen/plain", [["local/plain"]]),
    ("QWEN/big", [["local/Qwen/Big"]]),
    ("qwen/gpt-4", [["local/gpt-4"]]),
    # 5. whoever takes every name
    ("unheard-of", [["mapped/unheard-of"], ["any/unheard-of"]]),
    ("off-model", [["mapped/off-model"], ["any/off-model"]]),
    ("dead-end", [["mapped/dead-end"], ["any/dead-end"]]),
    # A suffix of Claude Code's
    ("fixed[1m]", [["local/Qwen/Big"]]),
    ("glm-4.5[1m]", [["GLM/GLM-4.5"]]),
    ("local/plain[1m]", [["local/plain"]]),
    ("unheard-of[1m]", [["mapped/unheard-of"], ["any/unheard-of"]]),
]


@pytest.mark.parametrize(("name", "groups"), ROUTES, ids=[name for name, _ in ROUTES])
def test_where_a_name_goes(name: str, groups: list[list[str]]) -> None:
    assert where(PLAN, name) == groups


SMALL = "providers:\n  a: {api_format: openai, endpoint: http://a, models: [x, 'y[1m]']}\n"


def test_default_comes_before_whoever_takes_every_name() -> None:
    plan = plan_of(
        "providers:\n  a: {api_format: openai, endpoint: http://a, models: {x: X}}\n"
        "  b: {api_format: openai, endpoint: http://b}\ndefault: a/x\n"
    )
    assert where(plan, "other") == [["a/X"]]
    bare = plan_of(
        "providers:\n  a: {api_format: openai, endpoint: http://a, models: {x: X}}\ndefault: a\n"
    )
    assert where(bare, "other") == [["a/other"]]


def test_a_name_that_goes_nowhere() -> None:
    plan = plan_of(SMALL)
    assert plan.route("z") is None
    assert plan.nearest("xx") in ([], ["x"])
    assert plan_of(SMALL.replace("x, ", "glm-4.6, ")).nearest("glm-46") == ["glm-4.6"]


def test_a_suffix_that_is_listed_stays() -> None:
    assert where(plan_of(SMALL), "y[1m]") == [["a/y[1m]"]]
    assert where(plan_of(SMALL), "x[1m]") == [["a/x"]]


def test_only_stars_and_question_marks_are_wild() -> None:
    for glob, name, matches in (
        ("a*", "A1", True),
        ("a?", "ab", True),
        ("a?", "abc", False),
        ("*", "x/y", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a+", "aa", False),
        ("*-m", "x\n-m", True),
    ):
        assert relay.glob_matches(glob, name) is matches, (glob, name)


def test_limits_of_a_model_go_with_its_target() -> None:
    route = PLAN.route("local/big")
    assert route
    assert route.targets()[0].output == 99


def test_the_list_has_every_name_that_can_be_said() -> None:
    listed = PLAN.listed
    assert {
        "fixed",
        "chain",
        "claude-opus-4",
        "glm-4.6",
        "GLM-4.5",
        "big",
        "qwen/big",
        "plain",
    } <= set(listed)
    assert not [name for name in listed if "*" in name or "?" in name]
    assert "off-model" not in listed
    assert listed["qwen/big"].output == 99


MILLION = """
providers:
  a: {endpoint: "http://x/v1", api_format: openai, prefix: a, models: {
        long: {context: 1048576, output: 65536}, claude-short: {context: 200000}}}
routing_rules: {alias: a/long, claude-long: [a/long]}
"""


def test_names_of_rules_have_the_limits_of_what_they_lead_to() -> None:
    listed = plan_of(MILLION).listed
    for name in ("alias", "claude-long", "a/long", "long"):
        assert (listed[name].context, listed[name].output) == (1048576, 65536), name


def test_claude_codes_picker_gets_names_it_shows_that_lead_where_they_say() -> None:
    plan = plan_of(MILLION)
    names = {model.name: model.title for model in plan.picked.values()}
    assert all(name.startswith(relay.PICKED) for name in names)
    assert names["claude--alias"] == "alias"
    assert names["claude-long"] == ""
    assert {"claude-long[1m]", "claude--long[1m]", "claude--a/long"} <= names.keys()
    assert "claude-short[1m]" not in names
    for name in names:
        assert where(plan, name) in ([["a/long"]], [["a/claude-short"]]), name


def test_an_alias_passes_no_allowlist_that_its_name_does_not() -> None:
    plan = plan_of(MILLION)
    caller = relay.Caller("eve", ("claude-*",))
    for name in ("claude--long", "claude--long[1m]", "claude--a/long"):
        with pytest.raises(relay.Forbidden):
            relay.permitted(name, caller, plan)
    assert relay.permitted("claude-long[1m]", caller, plan)


# Equals: shares by weight, and a conversation stays where it is


def test_a_conversation_always_comes_out_the_same() -> None:
    items = ["a", "b", "c"]
    for identity in map(str, range(50)):
        order = relay.ranked(items, identity, str, lambda item: 1.0)
        assert order == relay.ranked(items[::-1], identity, str, lambda item: 1.0)
        assert sorted(order) == items


def test_shares_are_by_weight() -> None:
    weights = {"a": 1.0, "b": 3.0, "c": 0.0}
    first = Counter(
        relay.ranked(list(weights), f"conversation {n}", str, weights.__getitem__)[0]
        for n in range(4000)
    )
    assert first["c"] == 0
    assert 0.7 < first["b"] / 4000 < 0.8


def test_when_one_goes_only_its_own_conversations_move() -> None:
    names = [f"conversation {n}" for n in range(500)]
    before = {name: relay.ranked("abcd", name, str, lambda item: 1.0) for name in names}
    after = {name: relay.ranked("abc", name, str, lambda item: 1.0) for name in names}
    for name in names:
        assert after[name] == [item for item in before[name] if item != "d"]


# Addresses: PROVIDERS.md 0.3

OPENAI = [
    ("https://h", "https://h/v1/chat/completions"),
    ("https://h/", "https://h/v1/chat/completions"),
    ("http://h:8000", "http://h:8000/v1/chat/completions"),
    ("https://h/v1", "https://h/v1/chat/completions"),
    ("https://h/v1/", "https://h/v1/chat/completions"),
    ("https://h/v1//", "https://h/v1/chat/completions"),
    ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
    ("https://h/v1/chat/completions/", "https://h/v1/chat/completions"),
    ("https://h/chat/completions", "https://h/chat/completions"),
    ("https://h/api/paas/v4", "https://h/api/paas/v4/chat/completions"),
    ("https://h/api/coding/paas/v4/", "https://h/api/coding/paas/v4/chat/completions"),
    ("https://h/v1beta/openai", "https://h/v1beta/openai/chat/completions"),
    ("https://h/openai", "https://h/openai/chat/completions"),
    ("https://h/v1?key=x", "https://h/v1/chat/completions?key=x"),
    ("https://h/v1/chat/completions?api-version=1", "https://h/v1/chat/completions?api-version=1"),
]
ANTHROPIC = [
    ("https://h", "https://h/v1/messages"),
    ("https://h/", "https://h/v1/messages"),
    ("http://h:8000", "http://h:8000/v1/messages"),
    ("https://h/v1", "https://h/v1/messages"),
    ("https://h/v1/", "https://h/v1/messages"),
    ("https://h/v1/messages", "https://h/v1/messages"),
    ("https://h/v1/messages/", "https://h/v1/messages"),
    ("https://h/anthropic", "https://h/anthropic/v1/messages"),
    ("https://h/anthropic/", "https://h/anthropic/v1/messages"),
    ("https://h/anthropic/v1", "https://h/anthropic/v1/messages"),
    ("https://h/anthropic/v1/messages", "https://h/anthropic/v1/messages"),
    ("https://h/api/anthropic", "https://h/api/anthropic/v1/messages"),
    ("https://h/messages", "https://h/messages"),
    ("https://h/v1?beta=true", "https://h/v1/messages?beta=true"),
]


@pytest.mark.parametrize(("base", "url"), OPENAI)
def test_a_chat_base_in_any_shape_is_joined_right(base: str, url: str) -> None:
    assert address(f"api_format: openai, endpoint: '{base}'", "openai") == url
    assert "/v1/v1" not in url


@pytest.mark.parametrize(("base", "url"), ANTHROPIC)
def test_an_anthropic_base_in_any_shape_is_joined_right(base: str, url: str) -> None:
    assert address(f"api_format: anthropic, endpoint: '{base}'", "anthropic") == url
    assert "/v1/v1" not in url


def provider(fields: str) -> relay.Provider:
    return plan_of(f"providers:\n  p: {{{fields}}}\n").providers["p"]


def address(fields: str, dialect: str, model: str = "m") -> str:
    endpoint = provider(fields).plans[0].endpoint(dialect)
    return endpoint.dialect.address(endpoint.url, model, stream=False)


PRESETS = [
    (
        "preset: bigmodel, api_key: k",
        "openai",
        "https://open.bigmodel.cn/api/coding/paas/v4/chat/completions",
    ),
    (
        "preset: bigmodel, api_key: k",
        "anthropic",
        "https://open.bigmodel.cn/api/anthropic/v1/messages",
    ),
    ("preset: glm, api_key: k", "openai", "https://open.bigmodel.cn/api/paas/v4/chat/completions"),
    ("preset: deepseek, api_key: k", "anthropic", "https://api.deepseek.com/anthropic/v1/messages"),
    ("preset: moonshot, api_key: k", "openai", "https://api.moonshot.cn/v1/chat/completions"),
    ("preset: kimi-coding, api_key: k", "anthropic", "https://api.kimi.com/coding/v1/messages"),
    (
        "preset: ark-coding, api_key: k",
        "openai",
        "https://ark.cn-beijing.volces.com/api/coding/v3/chat/completions",
    ),
    (
        "preset: gemini, api_key: k",
        "openai",
        "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
    ),
    ("preset: anthropic, api_key: k", "anthropic", "https://api.anthropic.com/v1/messages"),
    ("preset: openai, api_key: k", "openai", "https://api.openai.com/v1/chat/completions"),
    ("preset: openrouter, api_key: k", "anthropic", "https://openrouter.ai/api/v1/messages"),
    ("preset: vllm", "openai", "http://127.0.0.1:8000/v1/chat/completions"),
    ("preset: vllm", "anthropic", "http://127.0.0.1:8000/v1/messages"),
    (
        "preset: azure, api_key: k, endpoint: 'https://r.services.ai.azure.com'",
        "openai",
        "https://r.services.ai.azure.com/openai/v1/chat/completions",
    ),
    (
        "preset: bedrock, api_key: k, endpoint: 'https://b.api.aws/openai/v1'",
        "openai",
        "https://b.api.aws/openai/v1/chat/completions",
    ),
    (
        "preset: bedrock, api_key: k, endpoint: 'https://b.api.aws/'",
        "anthropic",
        "https://b.api.aws/anthropic/v1/messages",
    ),
    (
        "preset: vertex-anthropic, api_key: k, endpoint: 'https://h/v1/projects/p/locations/l/'",
        "anthropic",
        "https://h/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict",
    ),
    (
        "preset: vertex, api_key: k, endpoint: 'https://h/v1/projects/p/locations/l/publishers/google'",
        "gemini",
        "https://h/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
    ),
]


@pytest.mark.parametrize(("fields", "dialect", "url"), PRESETS)
def test_a_presets_own_bases_are_exact(fields: str, dialect: str, url: str) -> None:
    assert address(fields, dialect) == url


def test_claude_on_vertex_has_an_address_for_each_way_of_asking() -> None:
    vertex = provider("preset: vertex-anthropic, api_key: k, endpoint: 'https://h/v1/p'")
    ((lane,), *_) = relay.Target(vertex, "claude-x@2").lanes("anthropic")
    base = "https://h/v1/p/publishers/anthropic/models"
    assert lane.address(stream=False) == f"{base}/claude-x@2:rawPredict"
    assert lane.address(stream=True) == f"{base}/claude-x@2:streamRawPredict"
    counting = lane.endpoint.dialect.counting(lane.endpoint.url)
    assert counting == f"{base}/count-tokens:rawPredict"


PATHS = [
    ("endpoint: 'https://h/v1', paths: {openai: /v2/chat}", "https://h/v2/chat"),
    ("endpoint: 'https://h/v1', paths: {openai: v2/chat}", "https://h/v2/chat"),
    (
        "endpoint: 'https://r.azure.com', paths: {openai:"
        " '/openai/deployments/{model}/chat/completions?api-version=1'}",
        "https://r.azure.com/openai/deployments/m%2Fx%20y/chat/completions?api-version=1",
    ),
]


@pytest.mark.parametrize(("fields", "url"), PATHS)
def test_paths_replace_all_behind_the_host(fields: str, url: str) -> None:
    assert address("api_format: openai, " + fields, "openai", "m/x y") == url


FORMATS = [
    ("endpoint: 'https://h/v1/messages'", ["anthropic"]),
    ("endpoint: 'https://h/v1/chat/completions'", ["openai"]),
    ("endpoint: 'https://h/api/anthropic'", ["anthropic"]),
    ("api_format: [openai, anthropic], endpoint: 'https://h'", ["openai", "anthropic"]),
    ("api_format: anthropic, endpoint: 'https://h'", ["anthropic"]),
    ("endpoint: {anthropic: 'https://h/a', openai: 'https://h/v1'}", ["anthropic", "openai"]),
    ("preset: deepseek, api_key: k, endpoint: 'https://proxy/v1'", ["openai"]),
    ("preset: anthropic, api_key: k, endpoint: 'https://proxy'", ["anthropic"]),
    ("preset: deepseek, api_key: k", ["openai", "anthropic", "responses"]),
]


@pytest.mark.parametrize(("fields", "dialects"), FORMATS)
def test_what_an_address_speaks(fields: str, dialects: list[str]) -> None:
    assert list(provider(fields).plans[0].endpoints) == dialects


def test_a_client_gets_its_own_dialect_where_there_is_one() -> None:
    plan = provider("preset: deepseek, api_key: k").plans[0]
    assert plan.endpoint("anthropic").dialect is A
    assert plan.endpoint("openai").dialect is C
    assert (
        provider("api_format: openai, endpoint: http://h").plans[0].endpoint("anthropic").dialect
        is C
    )


def test_an_endpoint_of_ones_own_takes_no_url_from_the_preset() -> None:
    plans = provider("preset: bigmodel, api_key: k, endpoint: 'https://proxy/v4'").plans
    assert [e.url for plan in plans for e in plan.endpoints.values()] == [
        "https://proxy/v4/chat/completions"
    ]
    quirks = plans[0].endpoint("openai").quirks
    assert quirks == relay.PRESETS["bigmodel"].quirks["openai"]


BEARER = {"Authorization": "Bearer k"}
AUTHS = [
    ("preset: anthropic", "anthropic", {"x-api-key": "k"}),
    ("preset: deepseek", "openai", BEARER),
    ("preset: deepseek", "anthropic", {"x-api-key": "k"}),
    ("preset: bigmodel", "anthropic", BEARER),
    ("preset: azure, endpoint: 'https://r'", "openai", {"api-key": "k"}),
    ("preset: vertex-express", "gemini", {}),
    ("api_format: openai, endpoint: http://h", "openai", BEARER),
    # a server of another maker may want either; the maker itself gets its own
    ("api_format: anthropic, endpoint: http://h", "anthropic", BEARER | {"x-api-key": "k"}),
    ("api_format: gemini, endpoint: http://h", "gemini", BEARER | {"x-goog-api-key": "k"}),
    ("api_format: anthropic, endpoint: https://api.anthropic.com", "anthropic", {"x-api-key": "k"}),
    (
        "api_format: gemini, endpoint: https://generativelanguage.googleapis.com",
        "gemini",
        {"x-goog-api-key": "k"},
    ),
    # `auth` decides before all of these
    ("preset: anthropic, auth: bearer", "anthropic", BEARER),
    ("preset: bigmodel, auth: x-api-key", "anthropic", {"x-api-key": "k"}),
    ("preset: bigmodel, auth: both", "anthropic", BEARER | {"x-api-key": "k"}),
    ("api_format: openai, endpoint: http://h, auth: api-key", "openai", {"api-key": "k"}),
    ("api_format: openai, endpoint: http://h, auth: both", "openai", BEARER | {"x-api-key": "k"}),
    ("api_format: openai, endpoint: http://h, auth: query", "openai", {}),
]


@pytest.mark.parametrize(("fields", "dialect", "headers"), AUTHS)
def test_a_credential_is_carried_as_the_provider_wants_it(
    fields: str, dialect: str, headers: dict[str, str]
) -> None:
    target = relay.Target(provider(f"api_key: k, {fields}"), "m")
    ((lane,), *_) = target.lanes(dialect)
    assert lane.endpoint.dialect.name == dialect
    expected = "https://h/p" if headers else "https://h/p?key=k"
    assert lane.authorized("https://h/p", {}) == (expected, headers)


@pytest.mark.parametrize("secret", ["one", "two"])
def test_a_credential_in_a_file_keeps_its_name_when_the_file_changes(secret: str) -> None:
    text = "providers:\n  p: {preset: vertex, endpoint: 'https://h', api_key: 'file:/run/token'}\n"
    plan = plan_of(text, secrets={"/run/token": secret})
    (key,) = plan.providers["p"].plans[0].credentials
    assert key.secret == secret
    assert key.name == "p/regular/38445f12"
    assert plan.secret_files == {"/run/token"}


def test_a_rule_that_can_never_be_reached_is_a_warning() -> None:
    plan = plan_of(
        "providers:\n  a: {preset: ollama}\n"
        "routing_rules:\n"
        "  claude-opus-4: a/exact\n"  # exact names come before globs, wherever they stand
        "  gpt-*: {when: {tools: true}, to: a/x}\n"
        "  claude-?*: a/x\n"
        "  claude-opus*: a/y\n"
        "  CLAUDE-?: a/y\n"
        "  claude*: a/y\n"
        "  gpt-6*: a/y\n"
    )
    text = "never used: claude-?* above takes every name that it would; put it first"
    assert plan.warnings == (
        f"config.yaml:7:3: routing_rules.claude-opus*: {text}",
        f"config.yaml:8:3: routing_rules.CLAUDE-?: {text}",
    )


def test_only_the_demo_is_embedded() -> None:
    (plan,) = provider("api_format: demo").plans
    assert {name: endpoint.demo for name, endpoint in plan.endpoints.items()} == dict.fromkeys(
        relay.DIALECTS, True
    )
    assert not provider("api_format: openai, endpoint: http://h").plans[0].endpoint("openai").demo


# Plans and credentials

PLANS: list[tuple[str, list[tuple[str, list[str]]]]] = [
    ("preset: bigmodel, api_key: k", [("coding", ["k"])]),
    ("preset: zai, api_key: k", [("coding", ["k"])]),
    ("preset: glm, api_key: k", [("regular", ["k"])]),
    ("preset: deepseek, api_key: k", [("regular", ["k"])]),
    ("preset: bigmodel, api_key: k, billing_plans: regular", [("regular", ["k"])]),
    (
        "preset: bigmodel, api_key: k, billing_plans: [coding, regular]",
        [("coding", ["k"]), ("regular", ["k"])],
    ),
    (
        "preset: bigmodel, api_key: [k, l], billing_plans: [coding, regular]",
        [("coding", ["k", "l"]), ("regular", ["k", "l"])],
    ),
    (
        "preset: bigmodel, api_key: {coding: [k, l], regular: r}, billing_plans: [coding, regular]",
        [("coding", ["k", "l"]), ("regular", ["r"])],
    ),
    ("api_format: openai, endpoint: http://h, api_key: [k, k]", [("regular", ["k"])]),
    ("api_format: openai, endpoint: http://h", [("regular", [""])]),
    (
        "api_format: openai, endpoints: {b: http://b, a: http://a}, billing_plans: [a, b],"
        " api_key: k",
        [("a", ["k"]), ("b", ["k"])],
    ),
    ("endpoints: {openai: http://h, anthropic: http://h}, api_key: k", [("regular", ["k"])]),
]


@pytest.mark.parametrize(("fields", "plans"), PLANS)
def test_plans_come_in_the_order_that_was_said(
    fields: str, plans: list[tuple[str, list[str]]]
) -> None:
    compiled = provider(fields).plans
    assert [(plan.name, [c.secret for c in plan.credentials]) for plan in compiled] == plans


def test_a_credentials_name_is_stable_and_says_nothing() -> None:
    fields = "preset: bigmodel, api_key: [sk-secret-1, sk-secret-2]"
    first, second = provider(fields).plans[0].credentials
    again = provider(fields).plans[0].credentials
    assert [first, second] == list(again)
    assert first.name != second.name
    for credential in (first, second):
        assert "secret" not in credential.name + credential.account
        assert "sk-secret" not in repr(credential)
        assert len(bytes.fromhex(credential.account)) == 4
    changed = provider(fields.replace("secret-1", "secret-9")).plans[0].credentials
    assert changed[0].name != first.name
    assert changed[1].name == second.name


def lanes(fields: str) -> list[relay.Lane]:
    up = provider(fields)
    target = relay.Target(up, "m")
    return [
        relay.Lane(target, plan, credential, plan.endpoint("openai"))
        for plan in up.plans
        for credential in plan.credentials
    ]


def test_a_lane_says_only_what_tells_it_from_others() -> None:
    assert [str(lane) for lane in lanes("api_format: openai, endpoint: http://h")] == ["p/m"]
    both = lanes("preset: bigmodel, api_key: [a, b], billing_plans: [coding, regular]")
    assert [str(lane) for lane in both] == [
        "p/m (coding)#1",
        "p/m (coding)#2",
        "p/m (regular)#1",
        "p/m (regular)#2",
    ]


def test_what_a_failure_marks_is_named_by_its_scope() -> None:
    one, two, three, _ = lanes(
        "preset: bigmodel, api_key: [a, b], billing_plans: [coding, regular]"
    )
    assert one.key("credential") != two.key("credential")
    assert one.key("credential") != three.key("credential")
    assert one.key("provider+model") == two.key("provider+model")
    assert one.key("endpoint") == two.key("endpoint")
    other = relay.replace(one, target=relay.replace(one.target, model="n"))
    assert other.key("credential") == one.key("credential")
    assert other.key("credential+model") != one.key("credential+model")
    assert other.key("provider+model") != one.key("provider+model")


# What a provider's quirks and a user's wishes do to a body


def test_quirks_come_before_overrides() -> None:
    endpoint = (
        provider(
            "preset: bigmodel, api_key: k, override: {set: {temperature: 2, store: 1},"
            " default: {max_tokens: 9}, drop: [user]}"
        )
        .plans[0]
        .endpoint("openai")
    )
    body, taken = endpoint.edited({"model": "m", "temperature": 1, "store": True, "user": "u"})
    assert body == {"model": "m", "temperature": 2, "store": 1, "max_tokens": 9}
    assert set(taken) == {"store", "user"}


def test_timeouts_of_a_provider_outrank_the_general_ones() -> None:
    plan = plan_of(
        "timeouts: {idle: 50, total: 500, gate: 5}\nproviders:\n"
        "  p: {api_format: openai, endpoint: http://h, timeouts: {first_event: 300, total: 60}}\n"
    )
    up = plan.providers["p"]
    assert (up.timeouts.first_event, up.timeouts.idle, up.timeouts.connect) == (300, 50, 10)
    assert up.attempt_total == 60
    assert plan.config.timeouts.total == 500


# Who asks

KEYS = """
keys:
  alice: {key: secret-a, models: ["glm-*", "claude-*"]}
  bob: {key: "sha256:%s"}
"""


def test_callers_are_known_by_their_keys() -> None:
    plan = plan_of(SMALL + KEYS % hashlib.sha256(b"secret-b").hexdigest())
    for offered, name in (
        (["secret-a"], "alice"),
        (["secret-b"], "bob"),
        (["wrong", "secret-b"], "bob"),
        (["secret-a", "secret-b"], "alice"),
        (["wrong"], None),
        ([""], None),
        (["\udcff"], None),
        ([], None),
    ):
        caller = plan.caller(offered, 0.0)
        assert (caller and caller.name) == name


def test_an_allowlist_is_of_names_and_globs() -> None:
    caller = relay.Caller("alice", ("glm-*", "gpt-5"))
    assert [caller.may_use(name) for name in ("glm-4.6", "GLM-5", "gpt-5", "gpt-55", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert relay.Caller("bob").may_use("anything")
    assert not relay.Caller("eve", ()).may_use("anything")


def test_secrets_are_cut_out_of_every_text() -> None:
    plan = plan_of(
        SMALL.replace("models", "api_key: [sk-provider-1, sk-provider-12], models")
        + "admin_key: admin-secret\nkeys: {a: {key: caller-secret}}\n"
    )
    said = "sk-provider-12 sk-provider-1 admin-secret caller-secret end"
    assert plan.redacted(said) == "[secret] [secret] [secret] [secret] end"
    assert "sk-pro" not in plan.redacted("Incorrect key: sk-provid")
    assert plan.redacted("nothing to hide") == "nothing to hide"
    assert "caller-secret" not in repr(plan)


ODD = 'k"ey\\of/<some>&+one 100%'
FORMS = {
    "plain": ODD,
    "JSON": json.dumps(ODD)[1:-1],
    "JSON of PHP": json.dumps(ODD)[1:-1].replace("/", r"\/"),
    "JSON of Go": json.dumps(ODD)[1:-1]
    .replace("<", r"\u003c")
    .replace(">", r"\u003e")
    .replace("&", r"\u0026"),
    "a URL": quote(ODD, safe=""),
    "a URL in lower case": quote(ODD, safe="").lower(),
    "a form": quote_plus(ODD),
    "HTML": html.escape(ODD),
    "HTML in numbers": html.escape(ODD).replace("&quot;", "&#34;"),
    "JSON in JSON": json.dumps(json.dumps(ODD)[1:-1])[1:-1],
    "base64": base64.b64encode(ODD.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["", " end", "/v1/models"])
def test_a_secret_is_found_in_every_form_by_the_one_that_redacts(form: str, end: str) -> None:
    """In a text and in bytes, whole and cut off, wherever a block ends."""
    known, text = relay.Secrets([ODD, "sk-another"]), f"before {FORMS[form]}"
    assert known.text(text + end) == f"before [secret]{end}"
    for cut in range(1, len(text) + 1):
        blocks = known.blocks([(0.0, text[:cut].encode()), (1.0, (text[cut:] + end).encode())])
        assert b"".join(block for _, block in blocks) == f"before [secret]{end}".encode()
    for length in range(8, len(FORMS[form])):
        assert known.text(text[: 7 + length]) == "before [secret]"
        assert known.blocks([(0.0, text[: 7 + length].encode())]) == [(0.0, b"before [secret]")]


# What a reload prints


def test_changes_are_named_and_secrets_are_not() -> None:
    old = plan_of(SMALL + "keys: {a: {key: one}}\n").config
    text = (
        SMALL.replace("models: [x", "weight: 2, models: [xx")
        + "  b: {api_format: openai, endpoint: http://b}\n"
    )
    new = plan_of(
        text + "keys: {a: {key: two}}\nrouting_rules: {r: b}\nallow_anonymous: true\n"
    ).config
    assert relay.changes(old, old) == []
    lines = relay.changes(old, new)
    assert "provider a: changed (models, weight)" in lines
    assert "provider b: added" in lines
    assert "key a: changed (key)" in lines
    assert "rule r: added" in lines
    assert "allow_anonymous: changed" in lines
    assert not [line for line in lines if "one" in line or "two" in line]
    assert "provider b: removed" in relay.changes(new, old)


# Addresses to listen on


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8484", ("127.0.0.1", 8484)),
        ("[::1]:8484", ("::1", 8484)),
        (":8484", ("", 8484)),
        ("8484", ("", 8484)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert relay.host_and_port(text) == address


@pytest.mark.parametrize(
    "text", ["", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "h:70000", "h:-1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(relay.ConfigError, match="expected host:port"):
        relay.host_and_port(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.evil.com", False),
        ("127.0.0.1.nip.io", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert relay.is_loopback(host) is loopback


def test_azure_deployments_take_a_version_of_their_own() -> None:
    plan = plan_of(
        "providers:\n  az:\n    preset: azure-deployments\n    api_key: k\n"
        "    endpoint: https://x.openai.azure.com\n    models: {gpt-6: deployed}\n"
        "    paths: {openai: '/openai/deployments/{model}/chat/completions?api-version=v1'}\n"
    )
    route = plan.route("gpt-6")
    assert route
    ((lane,),) = route.targets()[0].lanes("openai")
    assert lane.address(stream=True) == (
        "https://x.openai.azure.com/openai/deployments/deployed/chat/completions?api-version=v1"
    )
    assert lane.authorized("u", {}) == ("u", {"api-key": "k"})


def test_mistral_keeps_the_key_of_the_prompt_cache() -> None:
    endpoint = provider("preset: mistral, api_key: k").plans[0].endpoint("openai")
    body, taken = endpoint.edited({"prompt_cache_key": "a", "store": True, "seed": 1})
    assert body == {"prompt_cache_key": "a", "random_seed": 1}
    assert taken == ("store",)


SERVERS = ["vllm", "llamacpp", "ollama", "lmstudio", "openrouter", "deepseek"]


@pytest.mark.parametrize("preset", SERVERS)
def test_servers_that_take_functions_only(preset: str) -> None:
    quirks = relay.PRESETS[preset].quirks["responses"]
    assert isinstance(quirks, relay.ResponsesQuirks)
    assert quirks.functions_only
    assert not relay.ResponsesQuirks().functions_only
