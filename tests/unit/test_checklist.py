"""The checklist of PROTOCOLS.md 4, as far as it concerns Anthropic and Chat; by its numbers.

The halves of a case that concern Responses stand in test_checklist_responses.py and
test_responses.py, Gemini's in test_gemini.py, named by the same numbers.  63 and 64 are laws
(tests/laws); 51, 52 and 60 need sockets (tests/integration).
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import ACCOUNT, ASKED, PDF, PNG, carried, cuttings, passage, piped, retargeted
from multidict import CIMultiDict, CIMultiDictProxy
from unit.configs import plan_of
from unit.wires import (
    A,
    C,
    G,
    R,
    anthropic,
    anthropic_stream,
    assistant,
    blocks_of,
    called,
    calls,
    chat,
    chat_stream,
    dropped,
    events,
    fragment,
    message_of,
    responses,
    result,
    roles,
    stop_of,
    text,
    through,
    to_anthropic,
    to_chat,
    tool,
    use,
    user,
)

import relay

ID = re.compile(r"[a-zA-Z0-9_-]+")
IMAGE = {"type": "base64", "media_type": "image/png", "data": PNG}
PNG_URL = f"data:image/png;base64,{PNG}"
NATIVE = relay.PRESETS["anthropic"].quirks["anthropic"]
DEEPSEEK = relay.PRESETS["deepseek"].quirks["openai"]
KIMI = relay.PRESETS["moonshot"].quirks["openai"]


def passed(body: relay.JSON, quirks: relay.Quirks = NATIVE) -> relay.JSON:
    """An Anthropic client's body on its way to an Anthropic provider."""
    return A.cleaned(body, quirks, ACCOUNT, False)


# Requests


def test_checklist_01_tool_results_come_in_the_calls_order() -> None:
    body = to_chat(
        messages=[
            user("Go"),
            assistant(use("a"), use("b")),
            user("and now", result("b", "B"), result("a", "A")),
        ]
    )
    assert roles(body) == ["user", "assistant", "tool", "tool", "user"]
    said = [(m.get("tool_call_id"), m["content"]) for m in body["messages"][2:]]
    assert said == [("a", "A"), ("b", "B"), (None, "and now")]


def test_checklist_02_a_picture_in_a_tool_result_follows_as_a_user_message() -> None:
    picture = {"type": "image", "source": IMAGE}
    content = [text("see"), picture]
    body = to_chat(messages=[user("Go"), assistant(use("a")), user(result("a", content))])
    *_, answer, following = body["messages"]
    assert (answer["role"], answer["content"]) == ("tool", "see")
    assert following["role"] == "user"
    marker, shown = following["content"]
    assert marker["type"] == "text"
    assert "a" in marker["text"]
    assert shown == {"type": "image_url", "image_url": {"url": PNG_URL}}
    texts = [json.dumps(m["content"]) for m in body["messages"] if isinstance(m["content"], str)]
    assert not any(PNG[:20] in said for said in [*texts, marker["text"]])


def test_checklist_02_several_results_come_before_their_pictures() -> None:
    picture = {"type": "image", "source": IMAGE}
    body = to_chat(
        messages=[
            user("Go"),
            assistant(use("a"), use("b")),
            user(result("a", [picture]), result("b", [text("B"), picture]), "next"),
        ]
    )
    assert roles(body) == ["user", "assistant", "tool", "tool", "user"]
    kinds = [part["type"] for part in body["messages"][-1]["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]


def test_checklist_02_a_picture_in_a_tool_message_is_one_in_the_tool_result() -> None:
    content = [text("see"), {"type": "image_url", "image_url": {"url": PNG_URL}}]
    body = to_anthropic(
        messages=[{"role": "user", "content": "Go"}, called("a"), tool("a", content)]
    )
    (answer,) = body["messages"][-1]["content"]
    assert answer["content"] == [text("see"), {"type": "image", "source": IMAGE}]


def test_checklist_03_a_result_without_its_call_is_kept_as_text() -> None:
    body = to_chat(messages=[user(result("gone", "precious"), "hello")])
    assert roles(body) == ["user"]
    assert "precious" in body["messages"][0]["content"]
    assert "hello" in body["messages"][0]["content"]
    body = to_anthropic(messages=[{"role": "user", "content": "hello"}, tool("gone", "precious")])
    said = json.dumps(body["messages"])
    assert "precious" in said
    assert "tool_result" not in said


def test_checklist_04_a_call_without_a_result_gets_one_that_is_an_error() -> None:
    body = to_chat(messages=[user("Go"), assistant(use("a")), user("well?")])
    assert roles(body) == ["user", "assistant", "tool", "user"]
    assert body["messages"][2]["tool_call_id"] == "a"
    assert body["messages"][2]["content"].startswith("Error: ")
    body = to_anthropic(
        messages=[
            {"role": "user", "content": "Go"},
            called("a"),
            {"role": "user", "content": "well?"},
        ]
    )
    answer, said = body["messages"][-1]["content"]
    assert (answer["type"], answer["tool_use_id"], answer["is_error"]) == ("tool_result", "a", True)
    assert said == text("well?")


def test_checklist_05_ids_fit_and_stay_apart_and_stay_the_same() -> None:
    ids = ["functions.write:0", "functions.write;0", "call_1"]
    history = [{"role": "user", "content": "Go"}, called(*ids), *map(tool, ids)]
    bodies = [to_anthropic(messages=history), to_anthropic(messages=[*history, called("x")])]
    for body in bodies:
        there = [block["id"] for block in body["messages"][1]["content"]]
        back = [block["tool_use_id"] for block in body["messages"][2]["content"][:3]]
        assert there == back
        assert len(set(there)) == 3
        assert there[2] == "call_1"
        assert all(map(ID.fullmatch, there))
    assert bodies[0]["messages"][1] == bodies[1]["messages"][1]


@pytest.mark.parametrize("name", ["n" * 100, "mcp.server/read file", "1st"])
def test_checklist_06_odd_tool_names_are_changed_there_and_back(name: str) -> None:
    body = anthropic(
        user("Go"),
        assistant(use("a", name)),
        user(result("a")),
        tools=[{"name": name, "input_schema": {"type": "object"}}],
        tool_choice={"type": "tool", "name": name},
    )
    request = A.parse_request(body)
    rendered = C.render_request(request, relay.ChatQuirks(tool_name=KIMI.tool_name), ACCOUNT)
    there, back = rendered.body, rendered.names
    wanted = there["tools"][0]["function"]["name"]
    assert re.fullmatch(KIMI.tool_name, wanted)
    assert there["tool_choice"]["function"]["name"] == wanted
    assert there["messages"][1]["tool_calls"][0]["function"]["name"] == wanted
    stream = chat_stream(calls(fragment(0, "{}", "x", wanted)), finish="tool_calls")
    out = piped(relay.Streamed(passage(C, A, names=back)), [stream])
    assert [block["name"] for block in blocks_of(out)] == [name]


def test_checklist_07_the_billing_block_is_not_passed_on() -> None:
    def system(session: str) -> list[relay.JSON]:
        line = f"x-anthropic-billing-header: cc_version=2.1; cch={session};"
        return [text(line), text("You are Claude Code.")]

    first, second = (to_chat(system=system(cch)) for cch in ("00a1b", "ffe22"))
    assert relay.dumps(first) == relay.dumps(second)
    assert first["messages"][0] == {"role": "system", "content": "You are Claude Code."}
    same = [passed(anthropic(system=system(cch)), relay.AnthropicQuirks()) for cch in ("1", "2")]
    assert same[0] == same[1] == anthropic(system=[text("You are Claude Code.")])


def test_checklist_08_a_system_message_in_the_middle_stays_where_it_is() -> None:
    history = [user("One"), assistant("1"), user("Two"), {"role": "system", "content": "Be brief."}]
    following = [*history, assistant("2"), user("Three")]
    for quirks, role, said in (
        (relay.ChatQuirks(system_in_place=True), "system", "Be brief."),
        (relay.ChatQuirks(), "user", "<system-reminder>\nBe brief.\n</system-reminder>"),
    ):
        first, second = (to_chat(quirks, messages=said) for said in (history, following))
        assert second["messages"][: len(first["messages"])] == first["messages"]
        last = first["messages"][-1]
        assert last["role"] == role
        assert last["content"].endswith(said)


def test_checklist_08_a_system_message_never_parts_calls_from_their_results() -> None:
    history = [
        user("Go"),
        assistant(use("a")),
        {"role": "system", "content": "Be brief."},
        user(result("a")),
    ]
    body = to_chat(relay.ChatQuirks(system_in_place=True), messages=history)
    assert roles(body) == ["user", "assistant", "tool", "system"]


def test_checklist_08_system_messages_of_a_chat_client_stay_in_place_too() -> None:
    history = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "One"},
        {"role": "developer", "content": "Be brief."},
    ]
    native = to_anthropic(NATIVE, messages=history)
    assert native["system"] == [text("S")]
    assert native["messages"][-1] == {"role": "system", "content": [text("Be brief.")]}
    clone = to_anthropic(messages=history)
    assert roles(clone) == ["user"]
    assert "<system-reminder>\nBe brief." in clone["messages"][0]["content"][-1]["text"]


@pytest.mark.parametrize("strict", [None, True, False])
def test_checklist_09_strict_is_passed_on_as_it_was_said(strict: bool | None) -> None:
    said = {} if strict is None else {"strict": strict}
    offered = {"name": "t", "input_schema": {"type": "object"}} | said
    function = to_chat(tools=[offered])["tools"][0]["function"]
    assert function.get("strict") is strict
    assert "strict" not in function["parameters"]


ODD_SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"const": 1},
        "b": {"exclusiveMinimum": 0, "type": ["string", "null"]},
        "c": {"$ref": "#/$defs/node"},
    },
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    "additionalProperties": False,
}


def test_checklist_10_a_schema_is_not_changed_without_need() -> None:
    """But for what says something about the schema itself (PROTOCOLS.md 2.2.5)."""
    noted = ODD_SCHEMA | {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x"}
    there = to_chat(tools=[{"name": "t", "input_schema": noted}])
    assert there["tools"][0]["function"]["parameters"] == ODD_SCHEMA
    back = to_anthropic(tools=[function("t", noted)])
    assert back["tools"][0]["input_schema"] == ODD_SCHEMA


def function(name: str, parameters: Any) -> relay.JSON:
    said = {"name": name} | ({} if parameters is None else {"parameters": parameters})
    return {"type": "function", "function": said}


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}, {"properties": {}}])
def test_checklist_11_a_schema_always_has_a_type_and_properties(schema: Any) -> None:
    whole = {"type": "object", "properties": {}}
    assert to_anthropic(tools=[function("t", schema)])["tools"][0]["input_schema"] == whole
    offered = {"name": "t", "input_schema": {} if schema is None else schema}
    assert to_chat(tools=[offered])["tools"][0]["function"]["parameters"] == whole


@pytest.mark.parametrize("content", ["", [], [text("")], [text(""), text("x")]])
def test_checklist_12_no_empty_text_block_goes_out(content: Any) -> None:
    body = to_anthropic(messages=[{"role": "user", "content": content}])
    blocks = [block for message in body["messages"] for block in message["content"]]
    assert blocks
    assert all(block["text"] for block in blocks)
    assert roles(body)[0] == "user"


THOUGHTS = [
    {"type": "thinking", "thinking": "", "signature": "EuYB"},
    {"type": "redacted_thinking", "data": "EmwK"},
    {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"},
]


def test_checklist_13_thinking_of_the_same_provider_passes_as_it_came() -> None:
    raw = relay.dumps(anthropic(user("Go"), assistant(*THOUGHTS, use("a")), user(result("a"))))
    body = relay.Body(raw)
    assert passed(body.wire) is body.wire
    assert body.outgoing("m") == (raw, True)


def test_checklist_13_thinking_sealed_here_is_unsealed_for_its_maker() -> None:
    seals = [relay.Seal("as", "EqAB", ACCOUNT), relay.Seal("ad", "EmwK", ACCOUNT)]
    signed, redacted = map(relay.enveloped, seals)
    body = anthropic(
        user("Go"),
        assistant(
            {"type": "thinking", "thinking": "Hm.", "signature": signed},
            {"type": "redacted_thinking", "data": redacted},
            text("ok"),
        ),
    )
    kept = passed(body)["messages"][1]["content"]
    assert kept[0] == {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"}
    assert kept[1] == {"type": "redacted_thinking", "data": "EmwK"}


FOREIGN = [
    relay.Seal("as", "EqAB", "99999999"),
    relay.Seal("cr", "", "99999999"),
    relay.Seal("cd", "[]", ACCOUNT),
    relay.Seal("gt", "c2ln", "99999999"),
]


@pytest.mark.parametrize("seal", FOREIGN, ids=lambda seal: seal.field + seal.account[:1])
def test_checklist_14_thinking_sealed_elsewhere_never_reaches_anthropic(seal: relay.Seal) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": relay.enveloped(seal)}
    history = [user("Go"), assistant(thought, "ok", use("a")), user(result("a"))]
    kept = passed(anthropic(*history))
    assert kept == anthropic(user("Go"), assistant("ok", use("a")), user(result("a")))
    request = A.parse_request(anthropic(*history))
    made = A.render_request(request, NATIVE, ACCOUNT).body["messages"][1]["content"]
    assert [block["type"] for block in made] == ["text", "tool_use"]


def test_checklist_14_nothing_is_left_of_a_turn_but_a_word() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": relay.enveloped(FOREIGN[0])}
    kept = passed(anthropic(user("Go"), assistant(thought)))
    (block,) = kept["messages"][1]["content"]
    assert block["type"] == "text"
    assert block["text"]


@pytest.mark.parametrize("quirks", [DEEPSEEK, KIMI], ids=["deepseek", "kimi"])
def test_checklist_15_reasoning_content_comes_back_on_tool_turns(quirks: relay.Quirks) -> None:
    stream = chat_stream(
        {"reasoning_content": "Let me "},
        {"reasoning_content": "see."},
        calls(fragment(0, "{}", "a", "read")),
        finish="tool_calls",
    )
    thinking, use_block = blocks_of(through(C, A, stream))
    assert thinking["thinking"] == "Let me see."
    use_block = use_block | {"input": {}}
    history = [user("Go"), assistant(thinking, use_block), user(result("a"))]
    assert to_chat(quirks, messages=history)["messages"][1]["reasoning_content"] == "Let me see."
    without = [user("Go"), assistant(use("a")), user(result("a"))]
    placeholder = to_chat(quirks, messages=without)["messages"][1]["reasoning_content"]
    assert placeholder
    assert quirks.placeholder == placeholder


def test_checklist_16_where_it_is_refused_reasoning_does_not_come_back() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    history = [user("Go"), assistant(thought, use("a")), user(result("a"))]
    body = to_chat(relay.ChatQuirks(replay="never"), messages=history)
    assert "reasoning" not in json.dumps(body)


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh", "max"])
@pytest.mark.parametrize("most", [1025, 2000, 8000, 64000])
def test_checklist_20_an_effort_is_a_budget_for_older_claudes(effort: str, most: int) -> None:
    body = to_anthropic(model="claude-sonnet-4-5", reasoning_effort=effort, max_tokens=most)
    assert body["thinking"]["type"] == "enabled"
    assert 1024 <= body["thinking"]["budget_tokens"] < body["max_tokens"]


@pytest.mark.parametrize(
    ("word", "claudes", "gpts"),
    [
        ("ultra", "max", "max"),
        ("light", "low", "low"),
        ("HIGH", "high", "high"),
        ("minimum", "low", "minimal"),
        ("frugal", None, None),
    ],
)
def test_checklist_20_no_provider_gets_a_word_for_an_effort_that_is_not_its_own(
    word: str, claudes: str | None, gpts: str | None
) -> None:
    wanted = {"output_config": {"effort": word}}
    asked = {
        A: anthropic(model="claude-opus-4-8", thinking={"type": "adaptive"}, **wanted),
        C: chat(model="claude-opus-4-8", reasoning_effort=word),
        R: responses(model="claude-opus-4-8", reasoning={"effort": word}),
    }
    for client, body in asked.items():
        rendered = carried(body, client, A)
        assert rendered.body.get("output_config", {}).get("effort") == claudes
        assert any(name.endswith("effort") for name in rendered.dropped) is (claudes is None)
        chat_body = carried(body, client, C, relay.PRESETS["openai"].quirks["openai"]).body
        assert chat_body.get("reasoning_effort") == gpts


def test_checklist_20_an_effort_stays_one_for_newer_claudes() -> None:
    body = to_anthropic(model="claude-opus-4-8", reasoning_effort="high")
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "high"}
    off = to_anthropic(model="claude-sonnet-4-5", reasoning_effort="none")
    assert off["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    ("model", "body", "temperature"),
    [
        ("claude-opus-4-7", {"temperature": 0.2}, None),
        ("claude-opus-4-8", {"temperature": 1}, None),
        ("claude-sonnet-5-1", {"temperature": 0.2, "top_p": 0.5}, None),
        ("claude-sonnet-4-5", {"temperature": 0.2, "reasoning_effort": "low"}, None),
        ("claude-sonnet-4-5", {"temperature": 0.2}, 0.2),
        ("claude-sonnet-4-5", {"temperature": 1.7}, 1.0),
        ("glm-4.6", {"temperature": 0.2}, 0.2),
    ],
)
def test_checklist_21_temperature_goes_only_where_it_is_taken(
    model: str, body: relay.JSON, temperature: float | None
) -> None:
    rendered = carried(chat(**body) | {"model": model}, C, A)
    assert rendered.body.get("temperature") == temperature
    assert ("temperature" in rendered.dropped) is (temperature is None)
    assert "top_p" not in rendered.body


def test_checklist_22_max_tokens_is_made_up_where_it_is_required() -> None:
    assert to_anthropic(model="claude-sonnet-4-5")["max_tokens"] >= 8192
    assert to_anthropic(model="claude-3-haiku-20240307")["max_tokens"] == 4096
    assert to_anthropic(max_completion_tokens=77)["max_tokens"] == 77
    assert to_anthropic(max_tokens=78)["max_tokens"] == 78


SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


def test_checklist_23_a_schema_for_the_answer_is_said_in_either_way() -> None:
    spec = {"name": "answer", "schema": SCHEMA, "strict": True}
    there = to_anthropic(response_format={"type": "json_schema", "json_schema": spec})
    assert there["output_config"]["format"] == {"type": "json_schema", "schema": SCHEMA}
    for said in (
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
    ):
        back = to_chat(**said)["response_format"]
        assert back["type"] == "json_schema"
        assert back["json_schema"]["schema"] == SCHEMA
        assert back["json_schema"]["name"]


def test_checklist_23_anthropic_wants_every_object_closed() -> None:
    loose = {"type": "object", "properties": {"x": {"type": "object", "properties": {}}}}
    spec = {"name": "answer", "schema": loose}
    there = to_anthropic(response_format={"type": "json_schema", "json_schema": spec})
    closed = there["output_config"]["format"]["schema"]
    assert closed["additionalProperties"] is False
    assert closed["properties"]["x"]["additionalProperties"] is False


LIST: relay.JSON = {"type": "ARRAY", "items": {"type": "STRING"}}


@pytest.mark.parametrize("upstream", [A, C, R])
def test_checklist_23_a_list_is_asked_for_in_words(upstream: relay.Dialect) -> None:
    """The usual schema of Google's SDK; OpenAI refuses one without an object at its root."""
    config = {"responseMimeType": "application/json", "responseSchema": LIST}
    system = {"parts": [{"text": "Be brief."}]}
    body = gemini(config) | {"systemInstruction": system}
    there = carried(body, G, upstream).body
    assert there.keys().isdisjoint(("response_format", "output_config", "text"))
    assert "Be brief." in repr(there)
    assert '{"type":"array","items":{"type":"string"}}' in repr(there)
    assert [turn["role"] for turn in there.get("messages", ())].count("system") <= 1


@pytest.mark.parametrize("upstream", [C, R])
def test_checklist_23_any_object_is_asked_for_with_the_word(upstream: relay.Dialect) -> None:
    """Else OpenAI refuses it; who says it already is not told again."""
    there = carried(gemini({"responseMimeType": "application/json"}), G, upstream).body
    assert "json_object" in repr(there)
    assert repr(there).count("Answer with JSON") == 1
    body = chat(user("Answer in JSON."), response_format={"type": "json_object"})
    assert "and nothing else" not in repr(carried(body, C, R).body)


def gemini(config: relay.JSON) -> relay.JSON:
    return {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "generationConfig": config}


def test_checklist_23_where_there_is_only_json_object_the_prompt_says_the_schema() -> None:
    body = to_chat(DEEPSEEK, output_format={"type": "json_schema", "schema": SCHEMA}, system="S")
    assert body["response_format"] == {"type": "json_object"}
    said = " ".join(m["content"] for m in body["messages"] if m["role"] == "system")
    assert "JSON" in said
    assert relay.dumps(SCHEMA).decode() in said
    back = to_anthropic(response_format={"type": "json_object"})
    assert "JSON" in json.dumps(back["system"])


CHOICES: list[tuple[Any, Any]] = [
    ({"type": "auto"}, "auto"),
    ({"type": "any"}, "required"),
    ({"type": "none"}, "none"),
    ({"type": "tool", "name": "t"}, {"type": "function", "function": {"name": "t"}}),
]
TOOLS_A = [{"name": n, "input_schema": {"type": "object", "properties": {}}} for n in ("t", "u")]
TOOLS_C = [function(n, {"type": "object", "properties": {}}) for n in ("t", "u")]


@pytest.mark.parametrize(("anthropics", "chats"), CHOICES)
def test_checklist_24_every_tool_choice_has_its_counterpart(anthropics: Any, chats: Any) -> None:
    assert to_chat(tools=TOOLS_A, tool_choice=anthropics)["tool_choice"] == chats
    assert to_anthropic(tools=TOOLS_C, tool_choice=chats)["tool_choice"] == anthropics


def test_checklist_24_parallel_calls_can_be_switched_off() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert to_chat(tools=TOOLS_A, tool_choice=choice)["parallel_tool_calls"] is False
    there = to_anthropic(tools=TOOLS_C, parallel_tool_calls=False)
    assert there["tool_choice"] == choice
    forced = to_anthropic(tools=TOOLS_C, tool_choice="required", parallel_tool_calls=False)
    assert forced["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


@pytest.mark.parametrize(("mode", "there"), [("auto", "auto"), ("required", "any")])
def test_checklist_24_an_allowed_subset_is_what_is_offered(mode: str, there: str) -> None:
    allowed = [{"type": "function", "function": {"name": "u"}}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
    body = to_anthropic(tools=TOOLS_C, tool_choice=choice)
    assert [offered["name"] for offered in body["tools"]] == ["u"]
    assert body["tool_choice"] == {"type": there}


def test_checklist_24_chat_providers_but_openai_are_offered_the_subset_alone() -> None:
    allowed = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "u"}],
    }
    body = responses(tools=[TOOLS_C[0]["function"] | {"type": "function"}], tool_choice=allowed)
    body["tools"].append(TOOLS_C[1]["function"] | {"type": "function"})
    cut = carried(body, R, C).body
    assert [offered["function"]["name"] for offered in cut["tools"]] == ["u"]
    assert cut["tool_choice"] == "auto"
    there = carried(body, R, C, relay.PRESETS["openai"].quirks["openai"]).body
    assert len(there["tools"]) == 2
    assert there["tool_choice"]["allowed_tools"]["tools"] == [
        {"type": "function", "function": {"name": "u"}}
    ]


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_checklist_26_what_openai_sells_goes_to_openai_alone(tier: str) -> None:
    """By either of its two formats; others are not asked for what they do not know."""
    openai = relay.PRESETS["openai"].quirks
    said = {"verbosity": "low", "service_tier": tier}
    flat = {"text": {"verbosity": "low"}, "service_tier": tier}
    there = carried(chat(**said), C, R, openai["responses"]).body
    assert {name: there[name] for name in flat} == flat
    back = carried(responses(**flat), R, C, openai["openai"]).body
    assert {name: back[name] for name in said} == said
    for upstream in (A, C, relay.GEMINI):
        rendered = carried(responses(**flat), R, upstream)
        assert said.keys() <= set(rendered.dropped)
        assert said.keys().isdisjoint(rendered.body)
    gemini = carried(chat(**said), C, relay.GEMINI, relay.PRESETS["gemini"].quirks["gemini"])
    assert gemini.body["serviceTier"] == tier


def test_checklist_24_what_a_provider_does_not_know_is_dropped_and_said() -> None:
    quirks = relay.ChatQuirks(tool_choice=("auto",))
    body = anthropic(tools=TOOLS_A, tool_choice={"type": "any"})
    rendered = carried(body, A, C, quirks)
    assert "tool_choice" not in rendered.body
    assert "tool_choice" in rendered.dropped
    none = carried(anthropic(tools=TOOLS_A, tool_choice={"type": "none"}), A, C, quirks)
    assert "tools" not in none.body


JPEG = "/9j/4AAQSkZJRgABAQAAAQABAAD"
MEDIA: list[tuple[relay.JSON, relay.JSON]] = [
    (
        {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}},
        {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
    ),
    (
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": JPEG}},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{JPEG}"}},
    ),
    (
        {
            "type": "document",
            "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
        },
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
        },
    ),
]


@pytest.mark.parametrize(("anthropics", "chats"), MEDIA, ids=["url", "jpeg", "pdf"])
def test_checklist_25_media_have_their_counterparts(
    anthropics: relay.JSON, chats: relay.JSON
) -> None:
    there = to_chat(messages=[user("see", anthropics)])["messages"][0]["content"]
    assert there == [text("see"), chats]
    back = to_anthropic(messages=[user("see", chats)])["messages"][0]["content"]
    assert back == [text("see"), anthropics]


@pytest.mark.parametrize("declared", ["image/png", "image/jpg", "image/JPG", "IMAGE/JPEG"])
def test_checklist_25_a_picture_is_what_its_bytes_are(declared: str) -> None:
    source = {"type": "base64", "media_type": declared, "data": JPEG}
    there = to_chat(messages=[user({"type": "image", "source": source})])
    url = there["messages"][0]["content"][0]["image_url"]["url"]
    assert url == f"data:image/jpeg;base64,{JPEG}"
    part = {"type": "image_url", "image_url": {"url": f"data:{declared};base64,{JPEG}"}}
    back = to_anthropic(messages=[user(part)])["messages"][0]["content"][0]
    assert back["source"] == source | {"media_type": "image/jpeg"}


def test_checklist_25_unknown_bytes_keep_their_declared_type_normalised() -> None:
    source = {"type": "base64", "media_type": "image/jpg", "data": "AAAA"}
    there = to_chat(messages=[user({"type": "image", "source": source})])
    assert "data:image/jpeg;base64,AAAA" in json.dumps(there)


RIFF = b"RIFF\x24\x00\x00\x00"


@pytest.mark.parametrize(
    ("data", "declared", "mime"),
    [
        (RIFF + b"WAVEfmt ", "audio/x-wav", "audio/wav"),
        (RIFF + b"WEBPVP8 ", "image/png", "image/webp"),
        (RIFF + b"AVI LIST", "video/avi", "video/avi"),
        (b"%PDF-1.4", "application/octet-stream", "application/pdf"),
    ],
)
def test_checklist_25_bytes_of_one_family_are_told_apart(
    data: bytes, declared: str, mime: str
) -> None:
    assert relay.media_of(base64.b64encode(data).decode(), declared).mime == mime


@pytest.mark.parametrize(
    "mime", ["text/csv", "application/json", "application/ld+json", "application/x-yaml"]
)
def test_checklist_25_text_is_text_by_any_name(mime: str) -> None:
    url = f"data:{mime};base64,e30="
    file = {"type": "file", "file": {"filename": "a", "file_data": url}}
    (block,) = to_anthropic(messages=[user(file)])["messages"][0]["content"]
    source = {"type": "text", "media_type": "text/plain", "data": "{}"}
    assert block == {"type": "document", "source": source, "title": "a"}


def test_checklist_25_a_text_document_is_text_with_its_title() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "Once upon"}
    block = {"type": "document", "title": "tale.txt", "source": source}
    (said,) = to_chat(messages=[user(block)])["messages"][0]["content"]
    assert said["type"] == "text"
    assert "tale.txt" in said["text"]
    assert said["text"].endswith("Once upon")


def test_checklist_25_a_document_without_a_title_gets_a_name() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    there = to_chat(messages=[user({"type": "document", "source": source})])
    assert there["messages"][0]["content"][0]["file"]["filename"] == "document.pdf"


@pytest.mark.parametrize(
    "url",
    [
        PNG_URL,
        f"data:image/png;charset=utf-8;base64,{PNG}",
        f"data:image/png;name=a,b.png;base64,{PNG}".replace(",b", "b"),
        "data:image/png," + "".join(f"%{byte:02X}" for byte in base64.b64decode(PNG)),
    ],
    ids=["plain", "charset", "name", "percent"],
)
def test_checklist_25_data_urls_are_read_by_rfc_2397(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    assert to_anthropic(messages=[user(part)])["messages"][0]["content"][0]["source"] == IMAGE


BETA = {
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "output_config": {"effort": "high"},
    "thinking": {"type": "adaptive", "display": "summarized"},
    "metadata": {"user_id": "u" * 150},
    "cache_control": {"type": "ephemeral"},
    "service_tier": "auto",
    "mcp_servers": [],
    "container": "c_1",
}


def test_checklist_26_nothing_of_anthropics_own_leaks_to_a_chat_provider() -> None:
    offered = TOOLS_A[0] | {"defer_loading": True, "type": "custom", "cache_control": {}}
    body = to_chat(tools=[offered | {"input_examples": [{}]}], **BETA)
    assert body.keys() <= {"model", "messages", "max_tokens", "tools", "reasoning_effort"}
    assert body["tools"] == [TOOLS_C[0]]
    assert body["reasoning_effort"] == "high"


def test_checklist_26_what_was_dropped_is_said_once() -> None:
    said = dropped(A, C, **BETA)
    assert {"context_management", "service_tier", "container", "mcp_servers"} <= set(said)
    assert len(said) == len(set(said))


def test_checklist_26_betas_go_to_anthropics_dialect_only() -> None:
    headers = {"anthropic-beta": "a,b,c,d,e", "anthropic-version": "2026-10-21", "x-app": "cli"}
    client, lane = CIMultiDictProxy(CIMultiDict(headers)), lane_of(plan_of(LANE_CONFIG))
    assert not {n for n in relay.request_headers(client, lane, True, False) if "anthropic" in n}
    kept = relay.request_headers(client, lane, True, True)
    assert {name: kept[name] for name in headers} == headers


def test_checklist_27_an_unknown_block_is_dropped_with_a_word() -> None:
    body = anthropic(user("Hi", {"type": "hologram", "x": 1}), assistant({"type": "mcp_tool_use"}))
    rendered = carried(body, A, C)
    assert rendered.body["messages"][0]["content"] == "Hi"
    assert "hologram" in " ".join(rendered.dropped)
    assert "mcp_tool_use" in " ".join(rendered.dropped)
    raw = relay.dumps(body)
    assert retargeted(relay.Body(raw), "m2") == raw.replace(b'"m"', b'"m2"', 1)


# Answers and streams

INTERLEAVED = chat_stream(
    "Reading.",
    calls(fragment(0, '{"p', "call_a", "read")),
    calls(fragment(1, '{"p":', "call_b", "read")),
    calls(fragment(0, '":1')),
    calls(fragment(1, "2")),
    calls(fragment(0, "}")),
    calls(fragment(1, "}")),
    finish="tool_calls",
)


def test_checklist_35_interleaved_calls_become_one_block_after_the_other() -> None:
    said, first, second = blocks_of(through(C, A, INTERLEAVED))
    assert said["text"] == "Reading."
    assert (first["id"], json.loads(first["input"])) == ("call_a", {"p": 1})
    assert (second["id"], json.loads(second["input"])) == ("call_b", {"p": 2})


def test_checklist_36_two_calls_in_one_chunk_are_two_calls() -> None:
    both = calls(fragment(0, '{"p":1}', "a", "read"), fragment(1, '{"p":2}', "b", "read"))
    stream = chat_stream(both, finish="tool_calls")
    assert [b["id"] for b in blocks_of(through(C, A, stream))] == ["a", "b"]
    back = through(A, C, anthropic_stream(use("a", p=1), use("b", p=2), stop="tool_use"))
    expected = [("a", "read", '{"p":1}'), ("b", "read", '{"p":2}')]
    assert message_of(back)["calls"] == expected


def test_checklist_37_a_call_and_the_end_in_one_chunk_are_a_whole_call() -> None:
    delta = calls(fragment(0, '{"p":1}', "a", "read"))
    chunk = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": "tool_calls"}]}
    out = through(C, A, relay.sse(chunk) + b"data: [DONE]\n\n")
    (block,) = blocks_of(out)
    assert (block["name"], block["input"]) == ("read", '{"p":1}')
    assert stop_of(out) == "tool_use"


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_checklist_38_the_content_decides_whether_it_was_a_call(finish: str) -> None:
    with_call = chat_stream(calls(fragment(0, "{}", "a", "read")), finish=finish)
    without = chat_stream("Hi", finish=finish)
    assert stop_of(through(C, A, with_call)) == "tool_use"
    assert stop_of(through(C, A, without)) == "end_turn"
    reason = {"stop": "end_turn", "tool_calls": "tool_use"}[finish]
    assert stop_of(through(A, C, anthropic_stream(use("a"), stop=reason))) == "tool_calls"
    assert stop_of(through(A, C, anthropic_stream(text("Hi"), stop=reason))) == "stop"


def test_checklist_39_a_call_that_was_cut_off_is_not_reported_as_one() -> None:
    stream = chat_stream(calls(fragment(0, '{"path":"a","te', "a", "write")), finish="length")
    assert stop_of(through(C, A, stream)) == "max_tokens"
    whole = {"finish_reason": "length", "message": called("a")}
    out = piped(relay.Gathered(passage(C, A)), [relay.dumps({"id": "c", "choices": [whole]})])
    assert json.loads(out)["stop_reason"] == "max_tokens"


COUNTS = {
    "prompt_tokens": 1045,
    "completion_tokens": 57,
    "prompt_tokens_details": {"cached_tokens": 1024},
    "completion_tokens_details": {"reasoning_tokens": 30},
}


def test_checklist_40_counts_in_a_chunk_of_their_own_reach_the_message_delta() -> None:
    out = events(through(C, A, chat_stream("Hi", usage=COUNTS)))
    (last,) = [event for event in out if event["type"] == "message_delta"]
    assert last["usage"]["input_tokens"] == 21
    assert last["usage"]["cache_read_input_tokens"] == 1024
    assert last["usage"]["output_tokens"] == 57
    assert out[-1]["type"] == "message_stop"


def test_checklist_41_cached_tokens_are_counted_once() -> None:
    whole = C.parse_usage({"usage": COUNTS})
    assert whole == relay.Usage(input=1045, output=57, cache_read=1024, reasoning=30)
    answer = relay.Response("x", "m", (relay.Text("Hi"),), "stop", whole)
    there = A.render_response(answer, ASKED)["usage"]
    assert (there["input_tokens"], there["cache_read_input_tokens"]) == (21, 1024)
    back = C.render_response(relay.replace(answer, usage=A.parse_usage({"usage": there})), ASKED)
    assert back["usage"]["prompt_tokens"] == 1045
    assert back["usage"]["prompt_tokens_details"]["cached_tokens"] == 1024
    assert back["usage"]["total_tokens"] == 1045 + 57


@pytest.mark.parametrize("cached", ["cached_tokens", "cache_read_input_tokens"])
def test_checklist_41_more_cached_than_counted_means_counted_without(cached: str) -> None:
    usage = C.parse_usage({"usage": {"prompt_tokens": 21, "completion_tokens": 1, cached: 1024}})
    assert usage
    assert (usage.input, usage.cache_read) == (1045, 1024)


def test_checklist_42_message_start_estimates_the_input() -> None:
    out = events(through(C, A, chat_stream("Hi", usage=COUNTS), tokens=1100))
    assert out[0]["message"]["usage"]["input_tokens"] == 1100
    without = events(through(C, A, chat_stream("Hi"), tokens=1100))
    assert [e for e in without if "usage" in e][-1]["usage"]["input_tokens"] == 1100


def test_checklist_43_reasoning_text_and_calls_are_blocks_in_order() -> None:
    stream = chat_stream(
        {"reasoning_content": "Hm."},
        "Reading.",
        calls(fragment(0, "{}", "a", "read")),
        finish="tool_calls",
    )
    kinds = [block["type"] for block in blocks_of(through(C, A, stream))]
    assert kinds == ["thinking", "text", "tool_use"]


@pytest.mark.parametrize("upstream", [A, C], ids=["anthropic", "openai"])
@pytest.mark.parametrize("client", [A, C], ids=["anthropic", "openai"])
def test_checklist_48_an_error_in_mid_stream_is_told_in_the_clients_words(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Too busy"}}
    said = anthropic_stream(text("Hel")) if upstream is A else chat_stream("Hel")
    before = said[: said.index(b"Hel") + said[said.index(b"Hel") :].index(b"\n\n") + 2]
    out = through(upstream, client, before + relay.sse(error, "error" if upstream is A else ""))
    last = relay.SSEDecoder().feed(out)[-1]
    wire = json.loads(last.data)
    assert "Too busy" in wire["error"]["message"]
    assert last.event == ("error" if client is A else "")
    assert not any(mark in out for mark in (b"message_stop", b"[DONE]", b'"finish_reason":"'))


@pytest.mark.parametrize("upstream", [A, C], ids=["anthropic", "openai"])
@pytest.mark.parametrize("client", [A, C], ids=["anthropic", "openai"])
def test_checklist_49_what_an_answer_is_shows_in_its_first_bytes(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    answer = relay.Response("x", "m", (relay.Text("Hi"),), "stop", relay.Usage(1, 1))
    whole = relay.dumps(upstream.render_response(answer, ASKED))
    stream = anthropic_stream(text("Hi")) if upstream is A else chat_stream("Hi")
    for data in (whole, b"\n " + whole, stream, b": hello\n\n" + stream):
        streamed = piped(relay.Streamed(passage(upstream, client)), [data])
        assert b'"Hi"' in streamed
        assert streamed.startswith((b"event:", b"data:", b":"))
        gathered = json.loads(piped(relay.Gathered(passage(upstream, client)), [data]))
        assert relay.fold(client.decoder().whole(gathered)).parts == (relay.Text("Hi"),)


ODD = "\U0001f9d1\u200d\U0001f680 \u6f22\u5b57 a\u2028b\u0085c\r\n\u000b d"


@given(data=st.data())
def test_checklist_50_odd_text_arrives_the_same_however_it_is_framed(data: st.DataObject) -> None:
    stream = chat_stream(ODD[:7], ODD[7:])
    frame = data.draw(st.sampled_from(("plain", "crlf", "no space", "two lines")))
    if frame == "crlf":
        stream = stream.replace(b"\n", b"\r\n")
    elif frame == "no space":
        stream = stream.replace(b"data: ", b"data:")
    elif frame == "two lines":
        stream = stream.replace(b',"choices":', b',\ndata: "choices":')
    pipe = relay.Streamed(passage(C, A))
    (block,) = blocks_of(piped(pipe, data.draw(cuttings(stream))))
    assert block["text"] == ODD


LANE_CONFIG = """
providers:
  up: {api_format: openai, endpoint: "http://up/v1", api_key: sk-very-secret-key}
default: up/m
"""


def lane_of(plan: relay.Plan) -> relay.Lane:
    provider = plan.providers["up"]
    billing = provider.plans[0]
    target = relay.Target(provider, "m")
    return relay.Lane(target, billing, billing.credentials[0], billing.endpoint("openai"))


def told(status: int, body: relay.JSON, headers: dict[str, str]) -> tuple[relay.RelayError, str]:
    """What a client is told of one provider's error, and the whole text of it."""
    plan = plan_of(LANE_CONFIG)
    said = relay.error_in(relay.dumps(body))
    verdict = relay.classify_error(relay.COMMON_ERRORS, status, said, headers, 1_700_000_000.0)
    failure = relay.UpstreamError(
        verdict.failure,
        plan.redacted(verdict.message),
        upstream_status=status,
        retry_after=verdict.until,
        scope=verdict.scope,
    )
    error = relay.final_error([(lane_of(plan), failure)], [], 1_700_000_000.0)
    wires = [dialect.render_error(error, "req_1") for dialect in relay.DIALECTS.values()]
    return error, json.dumps([wires, relay.error_headers(error)])


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"error": {"message": "Slow down", "type": "rate_limit_error"}}, {"retry-after": "17"}),
        ({"error": {"message": "Slow down"}}, {"retry-after-ms": "16500"}),
        (
            {
                "error": {
                    "code": 429,
                    "message": "Quota",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [
                        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}
                    ],
                }
            },
            {},
        ),
    ],
    ids=["header", "milliseconds", "RetryInfo"],
)
def test_checklist_53_a_providers_429_is_the_clients_with_its_delay(
    body: relay.JSON, headers: dict[str, str]
) -> None:
    error, text = told(429, body, headers)
    assert error.status == 429
    assert relay.error_headers(error)["retry-after"] == "17"
    assert A.render_error(error, "r")["error"]["type"] == "rate_limit_error"
    assert C.render_error(error, "r")["error"]["code"] == "rate_limit_exceeded"
    assert body["error"]["message"] in text


@pytest.mark.parametrize("status", [401, 403])
def test_checklist_54_a_providers_401_is_never_the_clients(status: int) -> None:
    error, text = told(
        status, {"error": {"message": "Incorrect API key provided: sk-very-secret-key"}}, {}
    )
    assert error.status == 502
    assert relay.error_headers(error)["x-should-retry"] == "false"
    assert "sk-very-secret-key" not in text
    assert "Incorrect API key" in text


def test_checklist_55_a_refusal_is_told_as_one() -> None:
    said = anthropic_stream(
        text("I can"),
        stop="refusal",
        stop_details={"type": "refusal", "category": None, "explanation": "Too dangerous."},
    )
    out = through(A, C, said)
    assert stop_of(out) == "content_filter"
    assert message_of(out)["refusal"] == "Too dangerous."
    stream = chat_stream({"content": None, "refusal": "I can't"}, {"refusal": " do that."})
    back = through(C, A, stream)
    (block,) = blocks_of(back)
    assert block["text"] == "I can't do that."
    assert stop_of(back) == "refusal"


def test_checklist_58_what_a_server_tool_found_is_not_read_out() -> None:
    found = {"type": "web_search_result", "title": "X", "encrypted_content": "Eo8xSECRET"}
    whole = {
        "id": "msg_1",
        "type": "message",
        "model": "m",
        "stop_reason": "end_turn",
        "content": [
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]},
            text("Found."),
        ],
    }
    out = piped(relay.Gathered(passage(A, C)), [relay.dumps(whole)])
    assert json.loads(out)["choices"][0]["message"]["content"] == "Found."
    assert b"Eo8xSECRET" not in out
    history = anthropic(user("Go"), assistant(*whole["content"]), user("More"))
    assert b"Eo8xSECRET" not in relay.dumps(carried(history, A, C).body)


def test_checklist_59_a_pause_is_an_end_and_no_error() -> None:
    out = through(A, C, anthropic_stream(text("Working."), stop="pause_turn"))
    assert stop_of(out) == "stop"
    assert message_of(out)["content"] == "Working."


def test_checklist_61_counting_counts_everything() -> None:
    image = {"type": "image", "source": IMAGE}
    parts: dict[str, Any] = {
        "system": "You are a careful assistant. " * 20,
        "tools": [{"name": "t", "description": "Reads. " * 50, "input_schema": ODD_SCHEMA}],
        "messages": [
            user("Look at this picture, please.", image),
            assistant(
                {"type": "thinking", "thinking": "Hm. " * 50, "signature": ""}, use("a", p=1)
            ),
            user(result("a", [text("seen " * 80), image])),
        ],
    }
    whole = count(parts)
    for name in ("system", "tools"):
        assert count({k: v for k, v in parts.items() if k != name}) < whole
    for index in range(1, 3):
        assert count(parts | {"messages": parts["messages"][:index]}) < whole
    bare = [user("Look at this picture, please."), *parts["messages"][1:]]
    assert count(parts | {"messages": bare}) < whole


def count(body: relay.JSON) -> int:
    return relay.estimate(A.parse_request(anthropic(**body)))


def test_checklist_61_counting_is_about_right_and_rather_too_much() -> None:
    """Ten tokens by every maker's tokenizer: nine words and a stop."""
    counted = count({"messages": [user("The quick brown fox jumps over the lazy dog. " * 40)]})
    assert 400 * 0.95 <= counted <= 400 * 1.6
    chinese = count({"messages": [user("\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002" * 100)]})
    assert 700 * 0.6 <= chinese <= 700 * 1.3  # most characters are a token of their own


def test_checklist_62_the_model_list_has_the_shape_of_each_dialect() -> None:
    listed = [relay.ModelInfo("glm-4.6", 200_000, 128_000), relay.ModelInfo("local")]
    there = A.render_models(listed)
    assert there["has_more"] is False
    assert (there["first_id"], there["last_id"]) == ("glm-4.6", "local")
    assert [(m["id"], m["type"]) for m in there["data"]] == [
        ("glm-4.6", "model"),
        ("local", "model"),
    ]
    assert there["data"][0]["max_input_tokens"] == 200_000
    assert A.render_models([])["first_id"] is None
    chats = C.render_models(listed)
    assert chats["object"] == "list"
    assert [(m["id"], m["object"]) for m in chats["data"]] == [
        ("glm-4.6", "model"),
        ("local", "model"),
    ]


def test_the_checklist_is_whole() -> None:
    """What concerns these two dialects and needs no socket; 63 is tests/laws/test_round_trip.py."""
    wanted = {*range(1, 17), *range(20, 28), *range(35, 44), 48, 49, 50, 53, 54, 55, 58, 59, 61, 62}
    named = re.findall(r"^def test_checklist_(\d\d)_", Path(__file__).read_text(), re.MULTILINE)
    assert set(map(int, named)) == wanted


def test_every_case_of_the_checklist_has_its_test() -> None:
    """By the name of a test, or at the beginning of what it says of itself."""
    named = r"def test_checklist_(\d\d)_|\"\"\"Checklist (\d+)"
    files = Path(__file__).parents[1].rglob("test_*.py")
    found = [match for file in files for match in re.findall(named, file.read_text())]
    assert {int(one or other) for one, other in found} == {*range(1, 65)}
