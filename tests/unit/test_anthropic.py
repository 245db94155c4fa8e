"""Anthropic Messages: requests read and written, answers read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from laws.strategies import ACCOUNT, ASKED, PDF, PNG, carried
from unit.wires import A, C, anthropic, assistant, dropped, result, text, to_anthropic, use, user

import relay
from relay import Media, Message, Reasoning, Seal, Text, Thinking, Tool, ToolCall, ToolResult

NATIVE = relay.PRESETS["anthropic"].quirks["anthropic"]
IMAGE = {"type": "base64", "media_type": "image/png", "data": PNG}


def parsed(**body: Any) -> relay.Request:
    return A.parse_request(anthropic(**body))


def parts(*blocks: relay.JSON, role: str = "user") -> tuple[relay.Part, ...]:
    return parsed(messages=[{"role": role, "content": list(blocks)}]).messages[0].parts


def rendered(*messages: Message, quirks: relay.Quirks | None = None, **fields: Any) -> relay.JSON:
    request = relay.Request(**{"model": "m", "messages": messages, "max_tokens": 9000} | fields)
    return A.render_request(request, quirks or relay.AnthropicQuirks(), ACCOUNT).body


HI = Message("user", (Text("Hi"),))

# A request, read

BLOCKS: list[tuple[relay.JSON, list[relay.Part]]] = [
    (text("a"), [Text("a")]),
    (text(""), []),
    ({"type": "image", "source": IMAGE}, [Media("image", "image/png", PNG)]),
    (
        {"type": "image", "source": {"type": "url", "url": "https://a/b"}},
        [Media("image", url="https://a/b")],
    ),
    (
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        [Text("[image: left out, for this model does not take it]")],
    ),
    (
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "text/csv", "data": "YSxi"},
        },
        [Media("text", "text/plain", "a,b")],
    ),
    (
        {
            "type": "document",
            "title": "t",
            "source": {"type": "content", "content": [text("one"), text("two")]},
        },
        [Text("[document t]"), Text("one"), Text("two")],
    ),
    ({"type": "compaction", "content": "So far.", "encrypted_content": "x"}, [Text("So far.")]),
    ({"type": "compaction", "content": None}, []),
    (
        {
            "type": "document",
            "title": "t",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
        },
        [Media("document", "application/pdf", PDF, name="t")],
    ),
    (
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
        [Media("text", "text/plain", "d")],
    ),
    (
        {"type": "document", "source": {"type": "content", "content": "d"}},
        [Media("text", "text/plain", "d")],
    ),
    (
        {
            "type": "document",
            "source": {
                "type": "content",
                "content": [text("d"), {"type": "image", "source": IMAGE}],
            },
        },
        [Text("d"), Media("image", "image/png", PNG)],
    ),
    (
        {
            "type": "document",
            "context": "From the archive.",
            "source": {"type": "text", "media_type": "text/plain", "data": "d"},
        },
        [Text("From the archive."), Media("text", "text/plain", "d")],
    ),
    (
        {"type": "search_result", "source": "https://a", "title": "T", "content": [text("x")]},
        [Text("T\nhttps://a\nx")],
    ),
    (result("a", "ok"), [ToolResult("a", (Text("ok"),))]),
    (
        result("a", [text("ok"), {"type": "image", "source": IMAGE}]),
        [ToolResult("a", (Text("ok"), Media("image", "image/png", PNG)))],
    ),
    (result("a", None), [ToolResult("a")]),
    (result("a", "no", is_error=True), [ToolResult("a", (Text("no"),), True)]),
    (
        result("a", [{"type": "tool_reference", "tool_name": "grep"}]),
        [ToolResult("a", (Text("The tool grep is now available."),))],
    ),
    (use("a", "n", x=1), [ToolCall("a", "n", '{"x":1}')]),
    (
        {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"},
        [Reasoning("Hm.", Seal("as", "EqAB"))],
    ),
    ({"type": "thinking", "thinking": "Hm.", "signature": ""}, [Reasoning("Hm.")]),
    ({"type": "thinking", "thinking": "Hm."}, [Reasoning("Hm.")]),
    ({"type": "redacted_thinking", "data": "EmwK"}, [Reasoning("", Seal("ad", "EmwK"))]),
    ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, []),
    ({"type": "hologram"}, []),
]


@pytest.mark.parametrize(
    ("block", "read"), BLOCKS, ids=lambda v: v["type"] if isinstance(v, dict) else ""
)
def test_every_block_is_read(block: relay.JSON, read: list[relay.Part]) -> None:
    assert list(parts(block)) == read


def test_a_wish_for_citations_is_named_as_lost() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "d"}
    for wish, lost in ((True, ("messages[].content[].citations",)), (False, ())):
        document = {"type": "document", "source": source, "citations": {"enabled": wish}}
        assert A.parse_request(anthropic(user(document))).dropped == lost


def test_an_envelope_is_opened() -> None:
    seal = Seal("cr", "", "0a1b2c3d")
    block = {"type": "thinking", "thinking": "Hm.", "signature": relay.enveloped(seal)}
    assert parts(block, role="assistant") == (Reasoning("Hm.", seal),)


SYSTEMS: list[tuple[Any, list[Message]]] = [
    (None, []),
    ("", []),
    ([], []),
    ("S", [Message("system", (Text("S"),))]),
    (
        [text("S"), text("T") | {"cache_control": {"type": "ephemeral"}}],
        [Message("system", (Text("S"), Text("T")))],
    ),
    ("x-anthropic-billing-header: cch=1;", []),
]


@pytest.mark.parametrize(("system", "read"), SYSTEMS)
def test_the_system_prompt_is_read_in_every_form(system: Any, read: list[Message]) -> None:
    assert list(parsed(system=system).messages[:-1]) == read


def test_a_system_message_stays_in_its_place() -> None:
    request = parsed(messages=[user("a"), {"role": "system", "content": [text("s")]}, user("b")])
    assert [message.role for message in request.messages] == ["user", "system", "user"]


FIELDS: list[tuple[relay.JSON, relay.JSON]] = [
    ({"max_tokens": 77}, {"max_tokens": 77}),
    ({"stop_sequences": ["a", "b"]}, {"stop": ("a", "b")}),
    ({"temperature": 1, "top_p": 0.5, "top_k": 7}, {"sampling": relay.Sampling(1, 0.5, 7)}),
    ({"stream": True}, {"stream": True}),
    ({"metadata": {"user_id": "u"}}, {"user": "u", "session": "u"}),
    (
        {"metadata": {"user_id": '{"account":"a","session_id":"s1"}'}},
        {"user": '{"account":"a","session_id":"s1"}', "session": "s1"},
    ),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 5000}},
        {"thinking": Thinking(True, "", 5000)},
    ),
    ({"thinking": {"type": "adaptive", "display": "summarized"}}, {"thinking": Thinking(True)}),
    ({"thinking": {"type": "between_tools"}}, {"thinking": Thinking(True)}),
    ({"thinking": {"type": "disabled"}}, {"thinking": Thinking(False)}),
    ({"output_config": {"effort": "high"}}, {"thinking": Thinking(True, "high")}),
    (
        {
            "thinking": {"type": "enabled", "budget_tokens": 5000},
            "output_config": {"effort": "max"},
        },
        {"thinking": Thinking(True, "max", 5000)},
    ),
    (
        {"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}},
        {"thinking": Thinking(False)},
    ),
    ({"tool_choice": {"type": "auto"}}, {"tool_choice": relay.ToolChoice("auto")}),
    ({"tool_choice": {"type": "any"}}, {"tool_choice": relay.ToolChoice("required")}),
    ({"tool_choice": {"type": "none"}}, {"tool_choice": relay.ToolChoice("none")}),
    (
        {"tool_choice": {"type": "tool", "name": "n"}},
        {"tool_choice": relay.ToolChoice("named", ("n",))},
    ),
    (
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"parallel_tools": False},
    ),
    (
        {"output_format": {"type": "json_schema", "schema": {"a": 1}}},
        {"format": relay.Format({"a": 1})},
    ),
    ({"betas": ["x"], "speed": "fast"}, {"dropped": ("betas", "speed")}),
]


@pytest.mark.parametrize(("body", "fields"), FIELDS, ids=lambda v: json.dumps(v, default=str)[:50])
def test_every_field_is_read(body: relay.JSON, fields: relay.JSON) -> None:
    request = parsed(**body)
    for name, value in fields.items():
        got = getattr(request, name)
        assert (sorted(got) if name == "dropped" else got) == (
            sorted(value) if name == "dropped" else value
        )


TOOLS: list[tuple[relay.JSON, Tool | None]] = [
    ({"name": "n", "input_schema": {"type": "object"}}, Tool("n", "", {"type": "object"})),
    (
        {"type": "custom", "name": "n", "description": "d", "input_schema": {}, "strict": True},
        Tool("n", "d", {}, True),
    ),
    ({"type": "web_search_20250305", "name": "web_search"}, None),
    ({"type": "computer_20250124", "name": "computer", "display_width_px": 1}, None),
    ({"type": "mcp_toolset", "name": "x"}, None),
    ({"name": "DeferredToolPlaceholder", "input_schema": {}}, None),
]


@pytest.mark.parametrize(("wire", "tool"), TOOLS)
def test_tools_are_read(wire: relay.JSON, tool: Tool | None) -> None:
    assert parsed(tools=[wire]).tools == ((tool,) if tool else ())


@pytest.mark.parametrize(
    ("kind", "name", "takes"),
    [
        ("bash_20250124", "bash", {"command", "restart"}),
        ("text_editor_20250728", "str_replace_based_edit_tool", {"command", "path", "old_str"}),
        ("memory_20250818", "memory", {"command", "path"}),
    ],
)
def test_tools_the_client_runs_are_offered_to_models_that_do_not_know_them(
    kind: str, name: str, takes: set[str]
) -> None:
    (tool,) = parsed(tools=[{"type": kind, "name": name}]).tools
    assert tool.name == name
    assert takes <= tool.schema["properties"].keys()


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "mcp_toolset", "mcp_server_name": "files"},
        {"type": "computer_toolset_20260801"},
    ],
)
def test_a_dropped_server_tool_is_said(tool: relay.JSON) -> None:
    """Not all of Anthropic's own tools have a name."""
    assert any(tool["type"] in said for said in dropped(A, C, tools=[tool]))


def test_no_tokens_at_all_are_one_elsewhere() -> None:
    """With `max_tokens: 0` Anthropic only fills its cache; others refuse it."""
    body = anthropic() | {"max_tokens": 0}
    assert carried(body, A, C).body["max_tokens"] == 1
    assert carried(body, A, relay.GEMINI).body["generationConfig"]["maxOutputTokens"] == 1


MISTAKES: list[tuple[relay.JSON, str]] = [
    ({"messages": 3}, "messages: expected a list, got 3"),
    ({"messages": [3]}, "messages[0]: expected an object, got 3"),
    ({"messages": [{"content": "x"}]}, "messages[0].role: required"),
    (
        {"messages": [{"role": "tool", "content": "x"}]},
        "messages[0].role: expected user, assistant or system",
    ),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content: expected"),
    (
        {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
        "messages[0].content[0].type: required",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
        "messages[0].content[0].text: expected a string, got 3",
    ),
    (
        {"messages": [user(result("a", [{"type": "image", "source": {}}]))]},
        "messages[0].content[0].content[0].source.type: required",
    ),
    (
        {"messages": [assistant({"type": "tool_use", "name": "n", "input": {}})]},
        "messages[0].content[0].id: required",
    ),
    (
        {"messages": [assistant({"type": "tool_use", "id": "a", "name": "n", "input": []})]},
        "messages[0].content[0].input: expected an object",
    ),
    ({"system": [{"type": "text", "text": 1}]}, "system[0].text: expected a string, got 1"),
    ({"max_tokens": "9"}, "max_tokens: expected an integer"),
    ({"temperature": "hot"}, "temperature: expected a number"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name: required"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name: required"),
    ({"stop_sequences": [1]}, "stop_sequences: expected strings, got 1"),
    ({"metadata": "u"}, "metadata: expected an object"),
    ({"stream": "yes"}, "stream: expected true or false"),
    ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread: kept by Anthropic"),
    ({"compaction": {"type": "summarize"}}, "compaction: the provider that serves this model"),
]


@pytest.mark.parametrize(("body", "complaint"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_mistake_is_told_with_its_place(body: relay.JSON, complaint: str) -> None:
    with pytest.raises(relay.BadRequest) as caught:
        parsed(**body)
    assert caught.value.message.startswith(complaint)


# A request, written


def test_the_first_turn_is_always_the_users() -> None:
    body = rendered(Message("assistant", (Text("Hello"),)), HI)
    assert body["messages"][0] == {"role": "user", "content": [text(".")]}
    assert [m["role"] for m in rendered()["messages"]] == ["user"]


def test_leading_system_messages_are_the_system_prompt() -> None:
    body = rendered(Message("system", (Text("S"),)), Message("system", (Text("T"),)), HI)
    assert body["system"] == [text("S"), text("T")]
    assert list(body)[:4] == ["model", "max_tokens", "system", "messages"]


def test_only_anthropic_itself_is_asked_to_cache() -> None:
    assert rendered(HI, quirks=NATIVE)["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in rendered(HI)


@pytest.mark.parametrize(
    ("media", "named"),
    [
        (Media("audio", "audio/wav", "UklG"), "audio audio/wav"),
        (Media("document", "application/msword", "0M8R", name="a.doc"), "document a.doc"),
    ],
)
def test_what_claudes_cannot_read_is_said_to_be_left_out(media: Media, named: str) -> None:
    request = relay.Request(model="m", messages=(Message("user", (media,)),))
    out = A.render_request(request, A.quirks(), ACCOUNT)
    (block,) = out.body["messages"][0]["content"]
    assert block["text"].startswith(f"[{named}")
    assert out.dropped == (media.kind,)


def test_claudes_other_platforms_are_told_what_to_cache() -> None:
    """Azure and OpenRouter cache nothing that is not marked; Codex marks nothing."""
    mark = {"cache_control": {"type": "ephemeral"}}
    turns = [Message("system", (Text("s"), Text("t"))), HI]
    for id in ("a", "b"):
        turns.append(Message("assistant", (ToolCall(id, "n", "{}"),)))
        turns.append(Message("user", (relay.ToolResult(id, (Text("r"),)),)))
    body = rendered(*turns, quirks=SIGNED)
    assert body["system"] == [text("s"), text("t") | mark]
    users = [turn["content"] for turn in body["messages"] if turn["role"] == "user"]
    marked = [[block.get("cache_control") for block in content] for content in users]
    assert marked == [[None], [mark["cache_control"]], [mark["cache_control"]]]
    assert "cache_control" not in body
    assert "cache_control" not in json.dumps(rendered(*turns))


def test_results_are_blocks_of_the_users_turn() -> None:
    body = rendered(
        HI,
        Message("assistant", (ToolCall("a", "n", ""),)),
        Message(
            "user",
            (ToolResult("a", (Text("x"), Media("image", "image/png", PNG)), True), Text("y")),
        ),
    )
    assert body["messages"][1]["content"] == [use("a", "n")]
    assert body["messages"][2]["content"] == [
        result("a", [text("x"), {"type": "image", "source": IMAGE}], is_error=True),
        text("y"),
    ]


ARGUMENTS = [
    ("", {}),
    ("{}", {}),
    ('{"a":1}', {"a": 1}),
    ("  ", {}),
    ("null", {}),
    ("{nope", {"_raw": "{nope"}),
    ("[1]", {"_raw": "[1]"}),
]


@pytest.mark.parametrize(("said", "there"), ARGUMENTS)
def test_arguments_are_an_object(said: str, there: relay.JSON) -> None:
    body = rendered(HI, Message("assistant", (ToolCall("a", "n", said),)))
    assert body["messages"][1]["content"][0]["input"] == there
    answer = relay.Response("i", "m", (ToolCall("a", "n", said),), "tool_calls")
    assert A.render_response(answer, ASKED)["content"][0]["input"] == there


def test_large_numbers_in_arguments_keep_their_digits() -> None:
    body = rendered(
        HI, Message("assistant", (ToolCall("a", "n", '{"id":12345678901234567890123}'),))
    )
    assert b"12345678901234567890123" in relay.dumps(body)


def test_two_objects_in_one_arguments_string_are_two_calls() -> None:
    """PROTOCOLS.md 2.3.2 and 3.2 no. 25: the first call has the id, the result too."""
    history = [
        {"role": "user", "content": "Go"},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "read", "arguments": '{"p":1}{"p":2}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "ok"},
    ]
    body = to_anthropic(messages=history)
    calls = [block for block in body["messages"][1]["content"] if block["type"] == "tool_use"]
    assert [call["input"] for call in calls] == [{"p": 1}, {"p": 2}]
    answered = [block["tool_use_id"] for block in body["messages"][2]["content"]]
    assert answered == [call["id"] for call in calls]
    assert len(set(answered)) == 2


SCHEMAS: list[tuple[relay.JSON, relay.JSON]] = [
    ({}, {"type": "object", "properties": {}}),
    ({"type": "object", "properties": None}, {"type": "object", "properties": {}}),
    ({"type": "string"}, {"type": "object", "properties": {}}),
    (
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/definitions/x"}},
            "definitions": {"x": {"type": "string"}},
        },
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/x"}},
            "$defs": {"x": {"type": "string"}},
        },
    ),
    (
        {
            "oneOf": [
                {"properties": {"a": {}}, "required": ["a", "b"]},
                {"properties": {"b": {}}, "required": ["b"]},
            ]
        },
        {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]},
    ),
    (
        {
            "allOf": [
                {"properties": {"a": {}}, "required": ["a"]},
                {"properties": {"b": {}}, "required": ["b"]},
            ]
        },
        {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]},
    ),
    (
        {
            "type": "object",
            "properties": {"c": {}},
            "required": ["c"],
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        {"type": "object", "properties": {"c": {}}, "required": ["c"]},
    ),
    (
        {"type": "object", "properties": {"a": {"anyOf": [{}, {}]}}},
        {"type": "object", "properties": {"a": {"anyOf": [{}, {}]}}},
    ),
]


@pytest.mark.parametrize(("schema", "there"), SCHEMAS)
def test_a_schema_is_what_anthropic_takes(schema: relay.JSON, there: relay.JSON) -> None:
    """PROTOCOLS.md 3.4 no. 34: an object at the root, no alternatives there, $defs."""
    before = json.dumps(schema)
    body = rendered(HI, tools=(Tool("t", "d", schema),))
    assert body["tools"] == [{"name": "t", "description": "d", "input_schema": there}]
    assert json.dumps(schema) == before


def test_a_schema_for_the_answer_is_closed_and_says_its_bounds_in_words() -> None:
    """PROTOCOLS.md 1.1.5: no bounds, closed objects."""
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1, "description": "A number."}},
    }
    body = rendered(HI, format=relay.Format(schema))
    there = body["output_config"]["format"]["schema"]
    assert there["additionalProperties"] is False
    assert "minimum" not in there["properties"]["n"]
    assert there["properties"]["n"]["description"].startswith("A number.")
    assert "1" in there["properties"]["n"]["description"]


def test_a_strict_tool_is_closed_and_says_its_bounds_in_words() -> None:
    """What OpenAI takes of a strict tool is more than what Anthropic does."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    tools = (Tool("t", "", schema, True), Tool("u", "", schema))
    strict, loose = rendered(HI, tools=tools)["tools"]
    assert strict["input_schema"]["additionalProperties"] is False
    assert "minimum" not in strict["input_schema"]["properties"]["n"]
    assert (strict["strict"], loose["input_schema"]) == (True, schema)


@pytest.mark.parametrize("upstream", relay.DIALECTS.values(), ids=lambda d: d.name)
def test_a_root_that_is_a_reference_is_what_it_refers_to(upstream: relay.Dialect) -> None:
    """As libraries write a schema with a name."""
    schema = {"$ref": "#/definitions/Path", "definitions": {"Path": PATH}, "$schema": "x"}
    request = relay.Request(model="m", messages=(HI,), tools=(Tool("read", "", schema),))
    body = upstream.render_request(request, upstream.quirks(), ACCOUNT).body
    assert repr(PATH["properties"]) in repr(body["tools"])
    assert "$ref" not in repr(body["tools"])


PATH: relay.JSON = {"type": "object", "properties": {"path": {"type": "string"}}}


@pytest.mark.parametrize("upstream", [A, relay.GEMINI], ids=lambda d: d.name)
def test_a_tuple_of_draft_7_is_one_of_2020_12(upstream: relay.Dialect) -> None:
    """Anthropic refuses a schema that is no valid one of the later draft."""
    pair = {"type": "array", "items": [{"type": "string"}, {"type": "number"}]}
    schema = {"type": "object", "properties": {"pair": pair, "items": {"type": "string"}}}
    request = relay.Request(model="m", messages=(HI,), tools=(Tool("read", "", schema),))
    said = repr(upstream.render_request(request, upstream.quirks(), ACCOUNT).body["tools"])
    assert "'prefixItems': [{'type': 'string'}, {'type': 'number'}]" in said
    assert "'items': {'type': 'string'}" in said


def test_references_are_found_where_anthropic_looks_for_them() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/definitions/a"}}}
    schema |= {"definitions": {"a": {"type": "string"}}}
    there = rendered(HI, format=relay.Format(schema))["output_config"]["format"]["schema"]
    assert there["properties"] == {"a": {"$ref": "#/$defs/a"}}
    assert there["$defs"] == {"a": {"type": "string"}}


SIGNED = relay.AnthropicQuirks(signed=True)


def test_calls_in_a_history_without_tools_have_stand_ins() -> None:
    """Codex compacts so; Claude's platforms refuse it, and others need no such thing."""
    said = (HI, Message("assistant", (ToolCall("a", "read", "{}"),)))
    history = relay.repaired(said)
    body = rendered(*history, quirks=SIGNED)
    empty = {"type": "object", "properties": {}}
    assert body["tools"] == [{"name": "read", "input_schema": empty}]
    assert body["tool_choice"] == {"type": "none"}
    assert "tools" not in rendered(*history)
    assert "tools" not in rendered(HI, quirks=SIGNED)


SEALS: list[tuple[Reasoning, relay.Quirks, relay.JSON | None]] = [
    (
        Reasoning("Hm.", Seal("as", "EqAB", ACCOUNT)),
        SIGNED,
        {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"},
    ),
    (
        Reasoning("", Seal("as", "EqAB", ACCOUNT)),
        SIGNED,
        {"type": "thinking", "thinking": "", "signature": "EqAB"},
    ),
    (
        Reasoning("", Seal("ad", "EmwK", ACCOUNT)),
        SIGNED,
        {"type": "redacted_thinking", "data": "EmwK"},
    ),
    (
        Reasoning("Hm.", Seal("as", "EqAB", "")),
        SIGNED,
        {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"},
    ),
    (Reasoning("Hm.", Seal("as", "EqAB", "99999999")), SIGNED, None),
    (Reasoning("Hm.", Seal("cr", "", ACCOUNT)), SIGNED, None),
    (Reasoning("Hm."), SIGNED, None),
    (
        Reasoning("Hm."),
        relay.AnthropicQuirks(unsigned=True),
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
    ),
    (
        Reasoning("Hm.", Seal("as", "EqAB", "99999999")),
        relay.AnthropicQuirks(unsigned=True),
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
    ),
    (Reasoning("", Seal("ad", "EmwK", "99999999")), relay.AnthropicQuirks(unsigned=True), None),
]


@pytest.mark.parametrize(("thought", "quirks", "block"), SEALS)
def test_thinking_goes_to_its_maker_with_its_signature(
    thought: Reasoning, quirks: relay.Quirks, block: relay.JSON | None
) -> None:
    body = rendered(HI, Message("assistant", (thought, Text("ok"))), HI, quirks=quirks)
    assert body["messages"][1]["content"] == [*([block] if block else []), text("ok")]


# PROTOCOLS.md 2.2.3 and 3.5 no. 44, 50, 51
THINKING: list[tuple[str, relay.JSON, relay.JSON]] = [
    (
        "claude-sonnet-4-5",
        {"thinking": Thinking(True, "", 5000)},
        {"thinking": {"type": "enabled", "budget_tokens": 5000}},
    ),
    (
        "claude-sonnet-4-5",
        {"thinking": Thinking(True)},
        {"thinking": {"type": "enabled", "budget_tokens": 8192}},
    ),
    ("claude-sonnet-4-5", {"thinking": Thinking(False)}, {"thinking": {"type": "disabled"}}),
    ("claude-sonnet-4-5", {"thinking": Thinking(True, "none")}, {"thinking": {"type": "disabled"}}),
    (
        "claude-opus-4-6",
        {"thinking": Thinking(True, "high")},
        {
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "high"},
        },
    ),
    (
        "claude-opus-4-8",
        {"thinking": Thinking(True, "minimal")},
        {
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": "low"},
        },
    ),
    (
        "claude-opus-4-8",
        {"thinking": Thinking(True, "", 10000)},
        {
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": "medium"},
        },
    ),
    (
        "claude-haiku-5-1",
        {"thinking": Thinking(True)},
        {"thinking": {"type": "adaptive", "display": "summarized"}},
    ),
]


@pytest.mark.parametrize(("model", "fields", "there"), THINKING)
def test_thinking_is_asked_for_as_each_generation_wants_it(
    model: str, fields: relay.JSON, there: relay.JSON
) -> None:
    body = rendered(HI, model=model, **fields)
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == there


def test_thinking_allows_no_forced_tool() -> None:
    tools = (Tool("t"),)
    for choice in (relay.ToolChoice("required"), relay.ToolChoice("named", ("t",))):
        body = rendered(HI, tools=tools, tool_choice=choice, thinking=Thinking(True, "low"))
        assert body["tool_choice"] == {"type": "auto"}
        free = rendered(HI, tools=tools, tool_choice=choice)
        assert free["tool_choice"]["type"] in ("any", "tool")


def test_thinking_is_switched_off_where_the_turn_in_progress_has_none() -> None:
    """Expected thinking or redacted_thinking, but found tool_use."""
    turn = Message("assistant", (ToolCall("a", "n", "{}"),))
    answer = Message("user", (ToolResult("a", (Text("x"),)),))
    body = rendered(
        HI, turn, answer, model="claude-sonnet-4-5", thinking=Thinking(True), quirks=NATIVE
    )
    assert body["thinking"] == {"type": "disabled"}
    thought = Reasoning("", Seal("as", "EqAB", ACCOUNT))
    turn = Message("assistant", (thought, ToolCall("a", "n", "{}")))
    body = rendered(
        HI, turn, answer, model="claude-sonnet-4-5", thinking=Thinking(True), quirks=NATIVE
    )
    assert body["thinking"]["type"] == "enabled"


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("claude-sonnet-4-5", ["temperature"]),
        ("claude-opus-4-1-20250805", ["temperature"]),
        ("claude-opus-4-6", ["temperature"]),
        ("claude-sonnet-4-20250514", ["temperature", "top_p"]),
        ("claude-3-5-haiku-latest", ["temperature", "top_p"]),
        ("claude-opus-5", []),
    ],
)
def test_newer_claudes_take_one_word_on_sampling(model: str, kept: list[str]) -> None:
    """400 "`temperature` and `top_p` cannot both be specified"; Gemini CLI and Copilot do it."""
    request = relay.Request(
        model=model, messages=(HI,), sampling=relay.Sampling(temperature=0.5, top_p=0.9)
    )
    out = A.render_request(request, A.quirks(), ACCOUNT)
    assert [name for name in ("temperature", "top_p") if name in out.body] == kept
    assert {"temperature", "top_p"} - set(kept) == set(out.dropped)
    alone = relay.replace(request, sampling=relay.Sampling(top_p=0.9))
    assert ("top_p" in A.render_request(alone, A.quirks(), ACCOUNT).body) is bool(kept)


@pytest.mark.parametrize(
    ("model", "thinking", "goes"),
    [
        ("claude-sonnet-4-5", None, True),
        ("claude-sonnet-4-5", Thinking(True), False),
        ("claude-sonnet-4-5", Thinking(False), True),
        ("claude-opus-4-6", None, False),
        ("claude-opus-5", None, False),
    ],
)
def test_the_beginning_of_an_answer_goes_where_it_is_taken(
    model: str, thinking: Thinking | None, goes: bool
) -> None:
    """Newer models end with the user, and so do older ones that think; PROTOCOLS.md 2.2.3."""
    begun = Message("assistant", (Text("I be"),))
    request = relay.Request(model=model, messages=(HI, begun), thinking=thinking)
    out = A.render_request(request, SIGNED, ACCOUNT)
    assert (out.body["messages"][-1]["role"] == "assistant") is goes
    assert ("prefill" in out.dropped) is not goes


def test_stop_sequences_of_white_space_are_refused_there() -> None:
    request = relay.Request(model="m", messages=(HI,), stop=("a", "\n", " "))
    out = A.render_request(request, relay.AnthropicQuirks(), ACCOUNT)
    assert out.body["stop_sequences"] == ["a"]
    assert (out.stops, out.dropped) == (("\n", " "), ())
    only = A.render_request(relay.replace(request, stop=("\n",)), relay.AnthropicQuirks(), ACCOUNT)
    assert "stop_sequences" not in only.body


def test_what_is_not_said_is_not_written() -> None:
    assert rendered(HI) == {
        "model": "m",
        "max_tokens": 9000,
        "messages": [{"role": "user", "content": [text("Hi")]}],
    }


# An answer, read and written

STOPS = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop_sequence"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "context_length"),
    ("refusal", "content_filter"),
    ("pause_turn", "pause"),
]


@pytest.mark.parametrize(("stop", "finish"), STOPS)
def test_stop_reasons_have_their_counterparts(stop: str, finish: Any) -> None:
    wire = {"id": "msg_1", "type": "message", "content": [text("x")], "stop_reason": stop}
    assert relay.fold(A.decoder().whole(wire)).finish == finish
    answer = relay.Response("msg_1", "m", (Text("x"),), finish)
    assert A.render_response(answer, ASKED)["stop_reason"] == stop


def test_an_answer_has_every_field_that_clients_read() -> None:
    answer = relay.Response("x1", "m", (Text("Hi"),), "stop", relay.Usage(9, 5, 3, 1, 2))
    assert A.render_response(answer, ASKED) == {
        "id": "msg_x1",
        "type": "message",
        "role": "assistant",
        "model": ASKED.model,
        "content": [text("Hi")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": 3,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 2},
        },
    }


def test_a_refusal_and_a_stop_sequence_say_which() -> None:
    refused = relay.Response("x", "m", (), "content_filter", detail="No.")
    there = A.render_response(refused, ASKED)
    assert there["stop_details"] == {"type": "refusal", "category": None, "explanation": "No."}
    stopped = relay.Response("x", "m", (), "stop_sequence", detail="END")
    assert A.render_response(stopped, ASKED)["stop_sequence"] == "END"


@pytest.mark.parametrize(
    ("id", "there"),
    [("msg_1", "msg_1"), ("chatcmpl-1", "msg_1"), ("x", "msg_x"), ("", "msg_req_1")],
)
def test_an_answers_id_looks_like_one(id: str, there: str) -> None:
    answer = relay.Response(id, "m", (), "stop")
    assert A.render_response(answer, ASKED)["id"] == there


USAGES: list[tuple[Any, relay.Usage | None]] = [
    ({"input_tokens": 21, "output_tokens": 5}, relay.Usage(21, 5)),
    (
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 10,
            "cache_read_input_tokens": 1024,
            "output_tokens": 5,
        },
        relay.Usage(1055, 5, 1024, 10),
    ),
    ({"input_tokens": None, "output_tokens": 5.0}, relay.Usage(0, 5)),
    (
        {"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 3}},
        relay.Usage(0, 5, reasoning=3),
    ),
    ({"output_tokens": -1, "input_tokens": "x"}, relay.Usage()),
    (None, None),
    ([], None),
]


@pytest.mark.parametrize(("usage", "read"), USAGES)
def test_counts_are_read_with_the_cached_ones(usage: Any, read: relay.Usage | None) -> None:
    assert A.parse_usage({"usage": usage}) == read
    assert A.parse_usage({"type": "message_start", "message": {"usage": usage}}) == read


TOO_LONG = [
    ("prompt is too long: 9 tokens > 8 maximum", "prompt is too long: 9 tokens > 8 maximum"),
    ("context_length_exceeded", "prompt is too long: context_length_exceeded"),
    (
        "This model's maximum context length is 131072 tokens. However, your messages resulted in"
        " 140000 tokens.",
        "prompt is too long: 140000 tokens > 131072 maximum",
    ),
    (
        "request (140000 tokens) exceeds the available context size (131072 tokens)",
        "prompt is too long: 140000 tokens > 131072 maximum",
    ),
]


@pytest.mark.parametrize(("message", "said"), TOO_LONG)
def test_claude_code_is_told_to_compact_in_its_own_words(message: str, said: str) -> None:
    error = relay.UpstreamError("too_long", message)
    wire = A.render_error(error, "r")
    assert wire["error"]["type"] == "invalid_request_error"
    assert wire["error"]["message"].startswith(said)
    assert message in wire["error"]["message"]
    assert error.status == 400


def test_the_wire_claims_its_own() -> None:
    for wire in (
        {"type": "message"},
        {"type": "message_start"},
        {"type": "content_block_delta"},
        {"type": "ping"},
    ):
        assert A.claims(wire)
    for wire in ({"choices": []}, {"type": "response.created"}, {"type": 3}, {}, {"error": {}}):
        assert not A.claims(wire)


# What a generation of models accepts

GENERATIONS = {
    "claude-3-5-sonnet-20241022": "budget",
    "claude-3-haiku-20240307": "budget",
    "claude-sonnet-4-20250514": "budget",
    "claude-opus-4-1-20250805": "budget",
    "claude-sonnet-4-5-20250929": "budget",
    "anthropic/claude-haiku-4.5": "budget",
    "anthropic/claude-4.5-sonnet-20250929": "budget",
    "claude-4-opus": "budget",
    "Claude-Sonnet-4-5": "budget",
    "anthropic.claude-v2:1": "budget",
    "claude-4.6-opus": "adaptive",
    "claude-opus-4-6": "adaptive",
    "claude-opus-4-7": "adaptive",
    "claude-opus-4-10": "adaptive",
    "claude-sonnet-5-5": "adaptive",
    "claude-mythos-5": "adaptive",
    "us.anthropic.claude-mythos-5-2-v1:0": "adaptive",
    "claude-fable-5-1": "adaptive",
    "claude-fable-5-2": "adaptive",
    "claude-sonnet-11": "adaptive",
    "claude-story-7": "adaptive",
    "glm-5.3": "budget",
}


@pytest.mark.parametrize(("model", "thinks"), GENERATIONS.items())
def test_unknown_names_of_claude_are_of_the_newest_generation(model: str, thinks: str) -> None:
    request = relay.Request(
        model=model,
        messages=(relay.Message("user", (relay.Text("x"),)),),
        thinking=relay.Thinking(True, "high"),
    )
    quirks = relay.AnthropicQuirks(signed=True)
    body = relay.ANTHROPIC.render_request(request, quirks, "account").body
    kind = "adaptive" if body["thinking"]["type"] == "adaptive" else "budget"
    assert kind == thinks


# Streams of clones, which lack what Anthropic's have


def decoded(*wires: relay.JSON) -> relay.Response | relay.Failure:
    head = {"type": "message_start", "message": {"id": "msg_1"}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    wires = (head, *wires, end, {"type": "message_stop"})
    return relay.fold(A.decoder().feed(b"".join(map(relay.sse, wires))))


def delta(kind: str, text: str, index: int | None = 0) -> relay.JSON:
    wire = {"type": "content_block_delta", "delta": {"type": f"{kind}_delta", kind: text}}
    return wire if index is None else wire | {"index": index}


def test_a_block_without_its_start_is_read() -> None:
    answer = decoded(delta("thinking", "Hm."), delta("text", "So", 1), delta("text", ".", 1))
    assert isinstance(answer, relay.Response)
    assert answer.parts == (Reasoning("Hm."), Text("So."))


def test_blocks_without_an_index_come_one_after_the_other() -> None:
    start = {"type": "content_block_start", "content_block": text("")}
    stop = {"type": "content_block_stop"}
    answer = decoded(start, delta("text", "a", None), stop, start, delta("text", "b", None), stop)
    assert isinstance(answer, relay.Response)
    assert answer.parts == (Text("a"), Text("b"))


def test_what_comes_after_a_blocks_stop_is_nobodys() -> None:
    start = {"type": "content_block_start", "index": 0, "content_block": text("")}
    stop = {"type": "content_block_stop", "index": 0}
    answer = decoded(start, delta("text", "a"), stop, delta("text", "b"))
    assert isinstance(answer, relay.Response)
    assert answer.parts == (Text("a"),)


def test_an_input_as_text_is_the_arguments() -> None:
    block = use("t") | {"input": '{"a": 1}'}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    answer = decoded(start, {"type": "content_block_stop", "index": 0})
    assert isinstance(answer, relay.Response)
    assert answer.parts == (ToolCall("t", "read", '{"a": 1}'),)
