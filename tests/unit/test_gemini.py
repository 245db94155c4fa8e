"""Gemini generateContent: addresses, requests read and written, answers read and written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from laws.strategies import ACCOUNT, ASKED, PDF, PNG, carried, passage, piped
from unit.wires import (
    A,
    C,
    G,
    anthropic,
    anthropic_stream,
    assistant,
    blocks_of,
    called,
    candidate,
    chat,
    chat_stream,
    events,
    fragment,
    function_call,
    gemini_stream,
    result,
    text,
    through,
    tool,
    use,
    user,
)

import relay
from relay import Media, Message, Reasoning, Seal, Text, Thinking, Tool, ToolCall, ToolResult

HI = Message("user", (Text("Hi"),))
SKIP = "skip_thought_signature_validator"


def turn(*parts: relay.JSON | str, role: str = "user") -> relay.JSON:
    return {"role": role, "parts": [p if isinstance(p, dict) else {"text": p} for p in parts]}


def parsed(*contents: relay.JSON, **body: Any) -> relay.Request:
    return G.parse_request({"contents": list(contents) or [turn("Hi")]} | body)


def parts(*wires: relay.JSON, role: str = "user") -> tuple[relay.Part, ...]:
    return parsed(turn(*wires, role=role)).messages[0].parts


def rendered(
    *messages: Message, model: str = "gemini-3-pro", quirks: Any = None, **fields: Any
) -> relay.JSON:
    request = relay.Request(model=model, messages=messages or (HI,), **fields)
    return G.render_request(request, quirks or relay.GeminiQuirks(), ACCOUNT).body


def lost(model: str = "gemini-3-pro", **fields: Any) -> tuple[str, ...]:
    request = relay.Request(model=model, messages=(HI,), **fields)
    return G.render_request(request, relay.GeminiQuirks(), ACCOUNT).dropped


# Addresses

ADDRESSES: list[tuple[str, tuple[str, bool, str]]] = [
    ("/v1beta/models/gemini-x:generateContent", ("gemini-x", False, "")),
    ("/v1/models/gemini-x:streamGenerateContent?alt=sse", ("gemini-x", True, "")),
    ("/v1/models/gemini-x:streamGenerateContent?key=k&alt=sse", ("gemini-x", True, "")),
    ("/v1beta/models/gemini-x:streamGenerateContent", ("gemini-x", True, "array")),
    ("/v1beta/models/gemini-x:streamGenerateContent?alt=json", ("gemini-x", True, "array")),
    ("/v1beta/v1beta/models/gemini-x:generateContent", ("gemini-x", False, "")),
    ("/v1beta/models/models/gemini-x:generateContent", ("gemini-x", False, "")),
    ("/v1beta/tunedModels/mine:generateContent", ("tunedModels/mine", False, "")),
    ("/v1beta/models/kimi%2Fk3:generateContent", ("kimi/k3", False, "")),
    ("/v1beta/models/kimi/k3:generateContent", ("kimi/k3", False, "")),
    ("/v1beta/models/qwen3%3A8b:generateContent", ("qwen3:8b", False, "")),
    ("/v1beta/models/qwen3:8b:countTokens", ("qwen3:8b", False, "")),
    (
        "/v1beta1/projects/p/locations/global/publishers/google/models/m:generateContent",
        ("m", False, ""),
    ),
    ("/v1/publishers/google/models/m:streamGenerateContent?alt=sse", ("m", True, "")),
]


@pytest.mark.parametrize(("address", "peek"), ADDRESSES)
def test_the_address_says_model_and_mode(address: str, peek: tuple[str, bool, str]) -> None:
    assert G.peek({}, address) == peek
    path = relay._VERSIONS.sub("", relay.unquote(address.partition("?")[0]))
    purpose = "count" if "countTokens" in address else "answer"
    assert relay.asked_at(path) == (G, purpose)


@pytest.mark.parametrize(
    "path",
    [
        "/models/m:embedContent",
        "/models/m",
        "/models",
        "/p/gemini/v1beta/models/m:generateContent",
        "/messages:generateContent",
    ],
)
def test_other_paths_are_not_its_own(path: str) -> None:
    assert G.serves(path) == ""


@pytest.mark.parametrize("path", ["/v1beta/models/m:embedContent", "/v1/models/google/m:predict"])
def test_its_other_calls_are_not_supported_yet(path: str) -> None:
    with pytest.raises(relay.BadRequest, match="not supported yet"):
        relay.route("POST", path)


@pytest.mark.parametrize(
    "address", ["/v1beta/models/:generateContent", f"/v1beta/models/{'m' * 257}:generateContent"]
)
def test_a_model_has_a_name(address: str) -> None:
    with pytest.raises(relay.RelayError):
        G.peek({}, address)


BASE = "https://h/v1beta/models/{model}:generateContent"


@pytest.mark.parametrize(
    ("url", "model", "stream", "asked"),
    [
        (BASE, "gemini-x", False, "https://h/v1beta/models/gemini-x:generateContent"),
        (BASE, "gemini-x", True, "https://h/v1beta/models/gemini-x:streamGenerateContent?alt=sse"),
        (BASE, "models/gemini-x", False, "https://h/v1beta/models/gemini-x:generateContent"),
        (BASE, "tunedModels/x", False, "https://h/v1beta/tunedModels/x:generateContent"),
        (BASE, "a b", False, "https://h/v1beta/models/a%20b:generateContent"),
        (
            BASE + "?key=k",
            "x",
            True,
            "https://h/v1beta/models/x:streamGenerateContent?key=k&alt=sse",
        ),
    ],
)
def test_a_provider_is_asked_at(url: str, model: str, stream: bool, asked: str) -> None:
    assert G.address(url, model, stream) == asked


def test_a_provider_counts_beside_where_it_answers() -> None:
    assert G.address(G.counting(BASE), "x", False) == "https://h/v1beta/models/x:countTokens"
    assert G.render_count(7) == {"totalTokens": 7}
    assert G.parse_count({"totalTokens": 7, "promptTokensDetails": []}) == 7


# A request, read

PARTS: list[tuple[relay.JSON, list[relay.Part]]] = [
    ({"text": "a"}, [Text("a")]),
    ({"text": ""}, []),
    ({}, []),
    ({"inlineData": {"mimeType": "image/png", "data": PNG}}, [Media("image", "image/png", PNG)]),
    ({"inline_data": {"mime_type": "image/jpg", "data": PNG}}, [Media("image", "image/png", PNG)]),
    (
        {"inlineData": {"mimeType": "application/pdf", "data": PDF, "displayName": "a.pdf"}},
        [Media("document", "application/pdf", PDF, name="a.pdf")],
    ),
    (
        {"inlineData": {"mimeType": "audio/wav", "data": "UklG"}},
        [Media("audio", "audio/wav", "UklG")],
    ),
    (
        {"inlineData": {"mimeType": "text/plain", "data": base64.b64encode(b"Hi").decode()}},
        [Media("text", "text/plain", "Hi")],
    ),
    (
        {"fileData": {"mimeType": "image/png", "fileUri": "https://a/b.png"}},
        [Media("image", url="https://a/b.png")],
    ),
    (
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a/b"}},
        [Media("document", "application/pdf", url="https://a/b")],
    ),
    (
        {"executableCode": {"language": "PYTHON", "code": "1+1"}},
        [Text("```python\n1+1\n```\n")],
    ),
    ({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}}, [Text("```\n2\n```\n")]),
    ({"text": "hm", "thought": True}, [Reasoning("hm")]),
]


@pytest.mark.parametrize(("wire", "read"), PARTS)
def test_every_kind_of_part_is_read(wire: relay.JSON, read: list[relay.Part]) -> None:
    assert list(parts(wire)) == read


@pytest.mark.parametrize(
    ("wire", "named"),
    [
        ({"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}, "contents[].parts[].video"),
        ({"toolCall": {"id": "x"}}, "contents[].parts[].toolCall"),
        ({"text": "a", "videoMetadata": {"fps": 1}}, "contents[].parts[].videoMetadata"),
    ],
)
def test_a_part_without_a_counterpart_is_named(wire: relay.JSON, named: str) -> None:
    assert parsed(turn(wire)).dropped == (named,)


@pytest.mark.parametrize(
    "body",
    [
        {"systemInstruction": {"parts": [{"text": "Be brief."}], "role": "user"}},
        {"system_instruction": {"parts": [{"text": "Be brief."}]}},
        {"systemInstruction": "Be brief."},
        {"systemInstruction": {"text": "Be brief."}},
        {"systemInstruction": [{"text": "Be brief."}]},
        {"system_instruction": {"parts": {"text": "Be brief."}}},
    ],
)
def test_the_system_prompt_in_any_form(body: relay.JSON) -> None:
    assert parsed(**body).messages == (Message("system", (Text("Be brief."),)), HI)


def test_a_picture_in_the_system_prompt_is_named() -> None:
    parts = [{"text": "Be brief."}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]
    assert parsed(systemInstruction={"parts": parts}).dropped == (
        "systemInstruction.parts[].inlineData",
    )


def test_controls_are_read() -> None:
    request = parsed(
        generationConfig={
            "temperature": 1,
            "topP": 0.95,
            "topK": 64,
            "seed": 3,
            "maxOutputTokens": 100,
            "stopSequences": ["x"],
            "presencePenalty": 0.5,
            "frequencyPenalty": 0.25,
            "candidateCount": 1,
        }
    )
    assert request.sampling == relay.Sampling(1, 0.95, 64, 3, 0.25, 0.5)
    assert (request.max_tokens, request.stop, request.dropped) == (100, ("x",), ())


def test_snake_case_says_the_same() -> None:
    """Checklist 34, with test_google_s_clients_say_their_key_in_any_way."""
    schema = {"type": "object", "properties": {"file_path": {"type": "string"}}}
    request = parsed(
        turn({"function_call": {"name": "read", "args": {"file_path": "a"}}}, role="model"),
        turn({"function_response": {"name": "read", "response": {"exit_code": 0}}}),
        generation_config={"max_output_tokens": 5, "stop_sequences": ["x"]},
        tools=[{"function_declarations": [{"name": "read", "parameters_json_schema": schema}]}],
        tool_config={
            "function_calling_config": {"mode": "any", "allowed_function_names": ["read"]}
        },
    )
    assert (request.max_tokens, request.stop) == (5, ("x",))
    assert request.tools == (Tool("read", "", schema),)
    assert request.tool_choice == relay.ToolChoice("named", ("read",))
    (call,) = request.messages[0].parts
    assert isinstance(call, ToolCall)
    assert json.loads(call.text) == {"file_path": "a"}
    assert request.messages[1].parts == (ToolResult(call.id, (Text('{"exit_code":0}'),)),)
    assert request.dropped == ()


@pytest.mark.parametrize(
    ("config", "thinking"),
    [
        ({"thinkingBudget": 0}, Thinking(False)),
        ({"thinkingBudget": -1, "includeThoughts": True}, Thinking(True)),
        ({"thinkingBudget": 8192}, Thinking(True, "", 8192)),
        ({"thinkingLevel": "HIGH"}, Thinking(True, "high")),
        ({"thinkingLevel": "low", "includeThoughts": False}, Thinking(True, "low")),
        ({"includeThoughts": True}, Thinking(True)),
        ({"includeThoughts": False}, None),
        ({}, None),
    ],
)
def test_how_much_to_think_is_read(config: relay.JSON, thinking: Thinking | None) -> None:
    said = parsed(generationConfig={"thinkingConfig": config}).thinking
    assert (said and said.level()) == (thinking and thinking.level())
    assert (said and said.on) == (thinking and thinking.on)


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({"mode": "AUTO"}, ("auto", ())),
        ({"mode": "NONE"}, ("none", ())),
        ({"mode": "ANY"}, ("required", ())),
        ({"mode": "ANY", "allowedFunctionNames": ["a"]}, ("named", ("a",))),
        ({"mode": "ANY", "allowedFunctionNames": ["a", "b"]}, ("required", ("a", "b"))),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["a"]}, ("auto", ("a",))),
    ],
)
def test_the_choice_among_tools_both_ways(config: relay.JSON, choice: Any) -> None:
    read = parsed(toolConfig={"functionCallingConfig": config}).tool_choice
    assert read == relay.ToolChoice(*choice)
    tools = (Tool("a"), Tool("b"))
    body = rendered(tools=tools, tool_choice=read)
    assert body["toolConfig"] == {"functionCallingConfig": config}


def test_tools_are_read_from_one_entry_or_one_each() -> None:
    one, two = {"name": "a", "description": "A"}, {"name": "b", "parameters": {"type": "OBJECT"}}
    read = (Tool("a", "A"), Tool("b", "", {"type": "object"}))
    assert parsed(tools=[{"functionDeclarations": [one, two]}]).tools == read
    assert (
        parsed(tools=[{"functionDeclarations": [one]}, {"functionDeclarations": [two]}]).tools
        == read
    )


def test_what_only_google_has_is_named() -> None:
    request = parsed(
        tools=[{"googleSearch": {}}, {"codeExecution": {}}, {"urlContext": {}}],
        safetySettings=[],
        labels={"a_b": "c"},
        generationConfig={"responseModalities": ["TEXT"]},
        toolConfig={"retrievalConfig": {}},
    )
    assert set(request.dropped) == {
        "tools[].googleSearch",
        "tools[].codeExecution",
        "tools[].urlContext",
        "safetySettings",
        "labels",
        "generationConfig.responseModalities",
        "toolConfig.retrievalConfig",
    }


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
        ({"cachedContent": "cachedContents/x"}, "cachedContent"),
        ({"contents": "Hi"}, "contents: expected a list"),
        ({"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 3}]}]}, "contents[0].parts[0].text"),
        (
            {"contents": [{"parts": [{"functionCall": {}}]}]},
            "contents[0].parts[0].functionCall.name",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(body: relay.JSON, said: str) -> None:
    with pytest.raises(relay.BadRequest) as caught:
        parsed(**body)
    assert caught.value.message.startswith(said)


def test_both_forms_of_counting_are_read() -> None:
    system = {"parts": [{"text": "Be brief."}]}
    inner = {"model": "models/m", "contents": [turn("Hi")], "systemInstruction": system}
    whole = G.parse_request({"generateContentRequest": inner})
    assert [message.role for message in whole.messages] == ["system", "user"]
    assert parsed().messages == (HI,)


@pytest.mark.parametrize(
    ("config", "schema"),
    [
        ({"responseMimeType": "application/json"}, (None,)),
        ({"responseJsonSchema": {"type": "object"}}, ({"type": "object"},)),
        ({"responseJsonSchema": {"type": "OBJECT"}}, ({"type": "object"},)),
        (
            {"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT"}},
            ({"type": "object"},),
        ),
        ({"responseMimeType": "text/plain"}, None),
    ],
)
def test_the_format_is_read(config: relay.JSON, schema: Any) -> None:
    format = parsed(generationConfig=config).format
    assert (format and (format.schema,)) == schema


# Google's schemas as JSON Schema


def test_googles_schema_is_read_as_json_schema() -> None:
    google = {
        "type": "OBJECT",
        "properties": {
            "min_items": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": "1"},
            "type": {"type": "INTEGER", "nullable": True},
            "any": {"any_of": [{"type": "NUMBER"}, {"type": "STRING"}], "nullable": True},
            "ref": {"ref": "#/defs/Node"},
        },
        "defs": {"Node": {"type": "OBJECT"}},
        "propertyOrdering": ["type"],
        "required": ["type"],
    }
    assert relay._json_schema(google) == {
        "type": "object",
        "properties": {
            "min_items": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "type": {"type": ["integer", "null"]},
            "any": {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]},
            "ref": {"$ref": "#/$defs/Node"},
        },
        "$defs": {"Node": {"type": "object"}},
        "required": ["type"],
    }


def test_what_is_no_json_schema_in_googles_is_none_afterwards() -> None:
    google = {
        "type": "TYPE_UNSPECIFIED",
        "properties": {
            "a": {"type": ["STRING", "NULL"]},
            "b": {"type": "OBJECT", "example": {"x": 1}},
        },
    }
    assert relay._json_schema(google) == {
        "properties": {
            "a": {"type": ["string", "null"]},
            "b": {"type": "object", "examples": [{"x": 1}]},
        }
    }


# Calls and their results


def test_results_find_their_calls_by_id_then_by_name_in_order() -> None:
    """Checklist 33; and by name alone nothing is lost."""
    request = parsed(
        turn("Go"),
        turn(
            function_call("read", path="a"),
            function_call("read", path="b"),
            function_call("list", "fc-9"),
            role="model",
        ),
        turn(
            {"functionResponse": {"name": "read", "response": {"output": "A"}}},
            {"functionResponse": {"name": "read", "response": {"output": "B"}}},
            {"functionResponse": {"id": "fc-9", "name": "list", "response": {"error": "no"}}},
        ),
    )
    a, b, listed = request.messages[1].parts
    assert isinstance(a, ToolCall)
    assert isinstance(b, ToolCall)
    assert isinstance(listed, ToolCall)
    assert len({a.id, b.id, "fc-9"}) == 3
    assert listed.id == "fc-9"
    assert request.messages[2].parts == (
        ToolResult(a.id, (Text("A"),)),
        ToolResult(b.id, (Text("B"),)),
        ToolResult("fc-9", (Text("no"),), True),
    )
    assert relay.repaired(request.messages) == request.messages


def test_ids_that_were_made_stay_the_same_as_the_conversation_goes_on() -> None:
    first = [turn("Go"), turn(function_call("read"), role="model")]
    answer = turn({"functionResponse": {"name": "read", "response": {"output": "A"}}})
    more = [answer, turn(function_call("read"), role="model")]
    before, after = parsed(*first).messages, parsed(*first, *more).messages
    assert after[: len(before)] == before
    ids = [p.id for m in after for p in m.parts if isinstance(p, ToolCall)]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("response", "read", "is_error"),
    [
        ({"output": "A"}, "A", False),
        ({"result": "A"}, "A", False),
        ({"error": "A"}, "A", True),
        ({"output": {"a": 1}}, '{"a":1}', False),
        ({"name": "read", "content": "A"}, '{"name":"read","content":"A"}', False),
        ({"error": "A", "code": 1}, '{"error":"A","code":1}', True),
        ({"output": "A", "error": None}, '{"output":"A","error":null}', False),
    ],
)
def test_a_functions_response_is_read(response: relay.JSON, read: str, is_error: bool) -> None:
    assert relay._gemini_output(response) == (read, is_error)


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket/a.png",
        "https://generativelanguage.googleapis.com/v1beta/files/abc",
        "https://www.youtube.com/watch?v=1",
        "https://youtu.be/1",
    ],
)
def test_what_google_alone_can_fetch_is_named_as_lost(url: str) -> None:
    parts = [{"text": "See."}, {"fileData": {"fileUri": url}}]
    request = G.parse_request({"contents": [{"role": "user", "parts": parts}]})
    note = Text(f"[{url}: left out, for this model does not take it]")
    assert request.messages == (Message("user", (Text("See."), note)),)
    assert request.dropped == ("contents[].parts[].fileUri",)


def test_pictures_in_a_response_are_its_own() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    response = {"name": "see", "response": {"output": "look"}, "parts": [picture]}
    request = parsed(turn(function_call("see"), role="model"), turn({"functionResponse": response}))
    (answer,) = request.messages[1].parts
    assert isinstance(answer, ToolResult)
    assert answer.parts == (Text("look"), Media("image", "image/png", PNG))


def test_a_turn_in_many_contents_is_one() -> None:
    """SDKs that stream keep every chunk."""
    request = parsed(
        turn("Go"),
        turn({"text": "Hm", "thought": True}, role="model"),
        turn("I ", role="model"),
        turn("see.", role="model"),
        turn(function_call("read") | {"thoughtSignature": "QQ=="}, role="model"),
        turn({"functionResponse": {"name": "read", "response": {"output": "A"}}}),
    )
    assert [m.role for m in request.messages] == ["user", "assistant", "user"]
    thought, one, two, sealed, call = request.messages[1].parts
    assert (thought, one, two) == (Reasoning("Hm"), Text("I "), Text("see."))
    assert sealed == Reasoning("", Seal("gs", "QQ=="))
    assert isinstance(call, ToolCall)


@pytest.mark.parametrize("dummy", [SKIP, "context_engineering_is_the_way_to_go"])
def test_a_word_that_stands_for_a_signature_is_none(dummy: str) -> None:
    (call,) = parts(function_call("read") | {"thoughtSignature": dummy}, role="model")
    assert isinstance(call, ToolCall)


# Foreign thoughts, carried by a Gemini client

AS = Seal("as", "EqAB", ACCOUNT)


def told(*said: relay.OutputPart, finish: relay.FinishReason = "tool_calls") -> list[relay.JSON]:
    """The parts that a client gets, whole and streamed."""
    response = relay.Response("r", "m", said, finish)
    whole = G.render_response(response, ASKED)["candidates"][0]["content"]["parts"]
    encoder = G.encoder(ASKED)
    stream = b"".join(map(encoder.encode, relay.unfold(response)))
    chunks = [chunk["candidates"][0]["content"]["parts"] for chunk in events(stream)]
    streamed = [part for parts in chunks for part in parts if part != {"text": ""}]
    assert streamed == [part for part in whole if part != {"text": ""}]
    return list(whole)


CALL = ToolCall("c", "read", "{}")


def again(*wires: relay.JSON) -> tuple[relay.Part, ...]:
    """What comes back: all of it, or only what Gemini CLI keeps."""
    echoed = parts(*wires, role="model")
    kept = parts(*(wire for wire in wires if not wire.get("thought")), role="model")
    assert echoed == kept
    return echoed


@pytest.mark.parametrize(
    "said",
    [
        (Reasoning("Hm.", AS), CALL),
        (Reasoning("Hm.", AS), Text("So:"), CALL),
        (Text("So:"), Reasoning("Hm.", AS), CALL),
        (Reasoning("Hm.", AS), Text("So:"), Reasoning("Or", AS), CALL),
        (Reasoning("", Seal("ad", "EmwK", ACCOUNT)), Reasoning("Hm.", AS), CALL),
        (Reasoning("Hm.", Seal("cr", "", ACCOUNT)), CALL, ToolCall("d", "read", "{}")),
        (Reasoning("Hm.", AS), CALL, Reasoning("Now", AS), ToolCall("d", "read", "{}")),
        (Reasoning("漢字 \u2028", Seal("cd", '[{"a":"b c"}]', ACCOUNT)), CALL),
        (Reasoning("Hm.", AS), Text("So.")),
    ],
)
def test_a_foreign_thought_comes_back_with_its_call(said: Any) -> None:
    """With its text, its seal, and at its place among text and calls."""
    assert again(*told(*said)) == said


def test_every_signature_is_base64() -> None:
    for part in told(Reasoning("Hm.?>~", AS), Text("So:"), CALL):
        if "thoughtSignature" in part:
            assert base64.b64decode(part["thoughtSignature"], validate=True)


def test_a_signature_in_the_alphabet_for_addresses_is_the_same() -> None:
    """Python's SDK decodes to bytes and encodes anew."""
    *_, call = told(Reasoning("Hm.?>~ü", Seal("as", "??>>~~", ACCOUNT)), CALL)
    data = base64.b64decode(call["thoughtSignature"])
    call = call | {"thoughtSignature": base64.urlsafe_b64encode(data).decode()}
    thought, _ = parts(call, role="model")
    assert thought == Reasoning("Hm.?>~ü", Seal("as", "??>>~~", ACCOUNT))


def test_a_damaged_signature_of_ours_opens_nothing() -> None:
    for inner in (b"rly1.", b"rly1.as.zz", b"rly1.as.0a1b2c3d.***"):
        signature = base64.b64encode(inner).decode()
        (call,) = parts(function_call("read") | {"thoughtSignature": signature}, role="model")
        assert isinstance(call, ToolCall)


def test_deepseeks_reasoning_survives_gemini_cli() -> None:
    """Checklist 15, toward a client of this dialect."""
    stream = chat_stream(
        {"reasoning_content": "Need a look."},
        {"tool_calls": [fragment(0, "{}", "call_1", "read")]},
        finish="tool_calls",
    )
    chunks = events(through(C, G, stream))
    kept = [
        part
        for chunk in chunks
        for part in chunk["candidates"][0]["content"]["parts"]
        if not part.get("thought") and part != {"text": ""}
    ]
    body = {"contents": [turn("Go"), turn(*kept, role="model"), RESPONSE]}
    back = carried(body, G, C, relay.PRESETS["deepseek"].quirks["openai"]).body
    assert back["messages"][1]["reasoning_content"] == "Need a look."


RESPONSE = turn({"functionResponse": {"name": "read", "response": {"output": "A"}}})


def test_claudes_thought_survives_a_gemini_client() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"}
    stream = anthropic_stream(thought, text("So:"), use("toolu_1"), stop="tool_use")
    out = piped(relay.Streamed(passage(A, G)), [stream])
    kept = [p for chunk in events(out) for p in chunk["candidates"][0]["content"]["parts"]]
    kept = [part for part in kept if not part.get("thought") and part != {"text": ""}]
    body = {"contents": [turn("Go"), turn(*kept, role="model"), RESPONSE]}
    back = carried(body, G, A, relay.PRESETS["anthropic"].quirks["anthropic"]).body
    assert back["messages"][1]["content"] == [thought, text("So:"), use("toolu_1")]


# Passed through


def test_a_foreign_signature_is_replaced_by_the_word_for_none() -> None:
    wires = told(Reasoning("Hm.", AS), CALL)
    body = {"contents": [turn("Go"), turn(*wires, role="model"), RESPONSE]}
    clean = G.cleaned(body, relay.GeminiQuirks(), ACCOUNT, False)
    assert clean["contents"][1]["parts"][-1]["thoughtSignature"] == SKIP
    assert clean["contents"][0] is body["contents"][0]


def test_googles_own_signature_passes() -> None:
    own = function_call("read") | {"thoughtSignature": "CiQBAAAA"}
    body = {"contents": [turn("Go"), turn(own, role="model"), RESPONSE]}
    assert G.cleaned(body, relay.GeminiQuirks(), ACCOUNT, False) is body
    stripped = G.cleaned(body, relay.GeminiQuirks(), ACCOUNT, True)
    assert stripped["contents"][1]["parts"] == [function_call("read") | {"thoughtSignature": SKIP}]
    assert G.cleaned(stripped, relay.GeminiQuirks(), ACCOUNT, True) is stripped


def test_an_empty_text_goes_with_its_foreign_signature() -> None:
    wires = told(Reasoning("Hm.", AS), Text("So."), finish="stop")
    body = {"contents": [turn("Go"), turn(*wires, role="model"), turn("And?")]}
    clean = G.cleaned(body, relay.GeminiQuirks(), ACCOUNT, False)
    assert clean["contents"][1]["parts"] == [{"text": "Hm.", "thought": True}, {"text": "So."}]
    alone = {"contents": [turn("Go"), turn(wires[-1], role="model"), turn("And?")]}
    clean = G.cleaned(alone, relay.GeminiQuirks(), ACCOUNT, False)
    assert clean["contents"] == [turn("Go"), turn("And?")]


@pytest.mark.parametrize("body", [{}, {"contents": 3}, {"contents": [3, {"parts": [3]}]}])
def test_what_is_not_understood_passes(body: relay.JSON) -> None:
    assert G.cleaned(body, relay.GeminiQuirks(), ACCOUNT, True) is body


# A request, written


def history(*said: relay.Part, model: str = "gemini-3-pro") -> list[relay.JSON]:
    """The parts of an assistant's turn that called something, as the provider gets it."""
    calls = [part for part in said if isinstance(part, ToolCall)]
    results = Message("user", tuple(ToolResult(c.id, (Text("A"),)) for c in calls))
    body = rendered(HI, Message("assistant", said), results, model=model)
    return list(body["contents"][1]["parts"])


def test_a_turn_of_calls_is_written() -> None:
    body = rendered(
        Message("system", (Text("Be brief."),)),
        HI,
        Message("assistant", (Text("Looking."), ToolCall("c", "read", '{"path":"a"}'))),
        Message("user", (ToolResult("c", (Text("A"),)), Text("And?"))),
    )
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    call = {"functionCall": {"id": "c", "name": "read", "args": {"path": "a"}}}
    answer = {"id": "c", "name": "read", "response": {"output": "A"}}
    assert body["contents"] == [
        turn("Hi"),
        turn("Looking.", call | {"thoughtSignature": SKIP}, role="model"),
        turn({"functionResponse": answer}, "And?"),
    ]


OWN = Seal("gs", "CiQBAAAA", ACCOUNT)


@pytest.mark.parametrize(
    ("said", "signatures"),
    [
        ((CALL, ToolCall("d", "read")), [SKIP, None]),
        ((Reasoning("", OWN), CALL, ToolCall("d", "read")), ["CiQBAAAA", None]),
        ((Reasoning("Hm", OWN), Text("So"), CALL), ["CiQBAAAA", SKIP]),
        ((Text("So"), Reasoning("Hm", OWN), CALL), [None, "CiQBAAAA"]),
        ((Reasoning("", Seal("gs", "CiQB", "ffffffff")), CALL), [SKIP]),
        ((Reasoning("", Seal("gs", "CiQB")), CALL), ["CiQB"]),
        ((Reasoning("Hm", AS), CALL), [SKIP]),
        ((Text("So"), Reasoning("", OWN)), [None, "CiQBAAAA"]),
        ((Reasoning("", OWN), Reasoning("", Seal("gs", "CiQC")), CALL), ["CiQBAAAA", "CiQC"]),
    ],
)
def test_signatures_go_back_where_they_stood(said: Any, signatures: list[str | None]) -> None:
    """Checklist 17: the own one at its place, and the word for none on a step's first call."""
    assert [part.get("thoughtSignature") for part in history(*said)] == signatures
    assert not any("thought" in part for part in history(*said))


def test_older_models_need_no_signature_and_know_no_ids() -> None:
    (call,) = history(CALL, model="gemini-2.5-pro")
    assert call == {"functionCall": {"name": "read", "args": {}}}


def test_every_step_begins_with_a_signature() -> None:
    steps = []
    for id in "abc":
        steps.append(Message("assistant", (ToolCall(id, "read"),)))
        steps.append(Message("user", (ToolResult(id, (Text("A"),)),)))
    body = rendered(HI, *steps)
    models = [content for content in body["contents"] if content["role"] == "model"]
    assert [content["parts"][0]["thoughtSignature"] for content in models] == [SKIP] * 3


def test_one_request_is_a_prefix_of_the_next() -> None:
    messages = [HI]
    seen: list[Any] = []
    for id in "abc":
        messages.append(Message("assistant", (Text("So"), ToolCall(id, "read"))))
        messages.append(Message("user", (ToolResult(id, (Text("A"),)), Text("Go on"))))
        contents = rendered(*messages)["contents"]
        assert contents[: len(seen)] == seen
        seen = contents


def test_media_in_a_result_stands_inside_it_or_behind() -> None:
    """Checklist 2."""
    picture = Media("image", "image/png", PNG)
    messages = (
        HI,
        Message("assistant", (CALL,)),
        Message("user", (ToolResult("c", (Text("see"), picture)), Text("And?"))),
    )
    inline = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    (answer, said) = rendered(*messages)["contents"][2]["parts"]
    assert answer["functionResponse"]["parts"] == [inline]
    assert answer["functionResponse"]["response"] == {"output": "see"}
    assert said == {"text": "And?"}
    answer, note, shown, said = rendered(*messages, model="gemini-2.5-pro")["contents"][2]["parts"]
    assert "parts" not in answer["functionResponse"]
    assert "c" in note["text"]
    assert shown == inline


@pytest.mark.parametrize(
    ("media", "wire"),
    [
        (Media("image", url="https://a/b.webp"), ("fileData", "image/webp")),
        (Media("document", url="https://a/b.pdf"), ("fileData", "application/pdf")),
        (Media("image", url="https://a/b"), ("fileData", "image/jpeg")),
        (Media("document", "application/pdf", PDF), ("inlineData", "application/pdf")),
        (Media("audio", "audio/wav", "UklG"), ("inlineData", "audio/wav")),
    ],
)
def test_media_is_written(media: Media, wire: tuple[str, str]) -> None:
    (part,) = rendered(Message("user", (media,)))["contents"][0]["parts"]
    kind, mime = wire
    assert part[kind]["mimeType"] == mime


def test_a_picture_of_the_models_own_is_its_part() -> None:
    """Clients of chat send one back that a model has made."""
    body = rendered(HI, Message("assistant", (Text("x"), Media("image", "image/png", PNG))), HI)
    wire = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    assert body["contents"][1]["parts"] == [{"text": "x"}, wire]


def test_vertex_wants_words_beside_a_picture() -> None:
    vertex = relay.PRESETS["vertex"].quirks["gemini"]
    picture = Message("user", (Media("image", "image/png", PNG),))
    assert rendered(picture, quirks=vertex)["contents"][0]["parts"][-1] == {"text": " "}
    assert len(rendered(picture)["contents"][0]["parts"]) == 1


def test_a_conversation_begins_with_the_user_and_is_never_empty() -> None:
    system = Message("system", (Text("Be brief."),))
    assert rendered(system)["contents"] == [turn(".")]
    said = rendered(Message("assistant", (Text("Hello."),)), HI)
    assert said["contents"] == [turn("."), turn("Hello.", role="model"), turn("Hi")]


def test_a_system_message_keeps_its_place_in_the_users_words() -> None:
    body = rendered(HI, Message("system", (Text("Be brief."),)), Message("user", (Text("Go"),)))
    (content,) = body["contents"]
    assert content["parts"][1] == {"text": "<system-reminder>\nBe brief.\n</system-reminder>"}


def test_a_beginning_of_an_answer_is_named_as_lost() -> None:
    request = relay.Request(model="m", messages=(HI, Message("assistant", (Text("Sure,"),))))
    said = G.render_request(request, relay.GeminiQuirks(), ACCOUNT)
    assert said.dropped == ("prefill",)
    assert said.body["contents"] == [turn("Hi")]


@pytest.mark.parametrize(
    ("model", "thinking", "config"),
    [
        ("gemini-3-pro", Thinking(True, "medium"), {"thinkingLevel": "MEDIUM"}),
        ("gemini-3-pro", Thinking(True, "minimal"), {"thinkingLevel": "LOW"}),
        ("gemini-3.8-flash", Thinking(True, "minimal"), {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.8-flash", Thinking(True, "max"), {"thinkingLevel": "HIGH"}),
        ("gemini-3.8-flash", Thinking(False), {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-pro", Thinking(False), {"thinkingLevel": "LOW"}),
        ("gemini-3-pro", Thinking(True, "", 2000), {"thinkingLevel": "LOW"}),
        ("gemini-3-pro", Thinking(True), {}),
        ("gemini-4-argon", Thinking(True, "max"), {"thinkingLevel": "HIGH"}),
        ("gemini-flash-latest", Thinking(True, "xhigh"), {"thinkingLevel": "XHIGH"}),
        ("gemini-2.5-flash", Thinking(False), {"thinkingBudget": 0}),
        ("gemini-2.5-pro", Thinking(False), {"thinkingBudget": 128}),
        ("gemini-2.5-flash", Thinking(True, "low"), {"thinkingBudget": 1024}),
        ("gemini-2.5-flash", Thinking(True, "max"), {"thinkingBudget": 24576}),
        ("gemini-2.5-pro", Thinking(True, "max"), {"thinkingBudget": 32768}),
        ("gemini-2.5-pro", Thinking(True, "", 60), {"thinkingBudget": 128}),
        ("gemini-2.5-pro", Thinking(True), {"thinkingBudget": -1}),
    ],
)
def test_thinking_by_the_models_generation(
    model: str, thinking: Thinking, config: relay.JSON
) -> None:
    """Checklist 19; a budget or a level, never both."""
    said = rendered(model=model, thinking=thinking)["generationConfig"]["thinkingConfig"]
    assert said == {"includeThoughts": thinking.on} | config


def test_what_a_generation_does_not_take_is_named() -> None:
    penalties = relay.Sampling(frequency_penalty=1.0, presence_penalty=1.0)
    assert lost(sampling=penalties) == ("frequency_penalty", "presence_penalty")
    assert lost("gemini-2.5-pro", sampling=penalties) == ()
    assert lost("gemini-2.0-flash", thinking=Thinking(True)) == ("thinking",)
    assert lost("gemini-2.0-flash", thinking=Thinking(False)) == ()
    assert lost(tools=(Tool("a"),), parallel_tools=False) == ("parallel_tool_calls",)
    assert lost(parallel_tools=True) == ()


def test_a_format_with_tools_is_said_in_words_to_models_that_refuse_both() -> None:
    format, tools = relay.Format({"type": "object"}), (Tool("a"),)
    config = rendered(format=format, tools=tools)["generationConfig"]
    assert config["responseJsonSchema"] == {"type": "object"}
    body = rendered(model="gemini-2.5-pro", format=format, tools=tools)
    assert "generationConfig" not in body
    assert "Answer with JSON" in body["systemInstruction"]["parts"][0]["text"]
    alone = rendered(model="gemini-2.5-pro", format=format)["generationConfig"]
    assert alone["responseMimeType"] == "application/json"


def test_names_fit_googles_rules() -> None:
    pattern = relay.re.compile(relay.GeminiQuirks().tool_name)
    for name in ("mcp__a__b", "a.b:c-d", "_x"):
        assert relay.accepted_name(name, pattern) == name
    for name in ("1st", "a b", "x" * 65, "-a", "ä"):
        assert pattern.fullmatch(relay.accepted_name(name, pattern))


# Schemas, written

STRANGE: relay.JSON = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "not": {"type": ["string", "null"], "description": "d", "default": "x"},
        "kind": {"const": "file"},
        "count": {"type": "integer", "exclusiveMinimum": 0, "format": "uint64"},
        "when": {"type": "string", "format": "date-time", "examples": ["x"]},
        "any": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]},
        "maybe": {"oneOf": [{"type": "string"}, {"type": "null"}], "description": "m"},
        "list": {"type": "array"},
        "mixed": {"enum": ["a", 1]},
        "empty": {"type": "object", "properties": {}},
        "node": {"$ref": "#/$defs/Node"},
        "all": {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]},
        "map": {"type": "object", "propertyNames": {"pattern": "a"}, "additionalProperties": True},
    },
    "required": ["not", "gone"],
    "$defs": {
        "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}},
    },
}


def test_a_schema_as_google_takes_it() -> None:
    before = json.dumps(STRANGE)
    (function,) = rendered(tools=(Tool("a", "", STRANGE),))["tools"][0]["functionDeclarations"]
    said = function["parametersJsonSchema"]
    assert "$schema" not in said
    assert said["properties"]["not"] == STRANGE["properties"]["not"]
    assert said["properties"]["map"] == {"type": "object", "additionalProperties": True}
    assert said["properties"]["node"] == {"$ref": "#/$defs/Node"}
    assert said["$defs"] == STRANGE["$defs"]
    assert "parameters" not in function
    assert json.dumps(STRANGE) == before


def test_a_function_without_parameters() -> None:
    """Checklist 11."""
    (new,) = rendered(tools=(Tool("now"),))["tools"][0]["functionDeclarations"]
    assert new == {"name": "now", "parametersJsonSchema": {"type": "object", "properties": {}}}


def test_a_reference_stands_alone_or_is_replaced_by_what_it_refers_to() -> None:
    """Google refuses anything beside it."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/definitions/Node"}}}
    schema: relay.JSON = {
        "type": "object",
        "properties": {
            "alone": {"$ref": "#/definitions/Node"},
            "titled": {"$ref": "#/definitions/Node", "title": "T"},
            "nowhere": {"$ref": "#/definitions/None", "title": "N"},
            "odd": {"enum": 5, "required": True, "allOf": [{"$ref": 5}], "type": "string"},
        },
        "anyOf": [{"required": ["alone"]}, {"required": ["titled"]}],
        "definitions": {"Node": node},
    }
    (function,) = rendered(tools=(Tool("a", "", schema),))["tools"][0]["functionDeclarations"]
    said = function["parametersJsonSchema"]
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    assert said["properties"] == {
        "alone": {"$ref": "#/$defs/Node"},
        "titled": node | {"title": "T"},
        "nowhere": {"title": "N"},
        "odd": {"allOf": [{}], "type": "string"},
    }
    assert said["$defs"] == {"Node": node}
    assert said["anyOf"] == schema["anyOf"]


def test_a_reference_elsewhere_than_into_definitions_is_replaced() -> None:
    """As libraries write the second use of a part; a pointer may escape a name."""
    list_: relay.JSON = {"type": "array", "items": {"$ref": "#/properties/list"}}
    schema: relay.JSON = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "again": {"$ref": "#/properties/text"},
            "list": list_,
            "odd": {"$ref": "#/$defs/a~1b%20c", "title": "T"},
        },
        "$defs": {"a/b c": {"type": "integer"}},
    }
    (function,) = rendered(tools=(Tool("a", "", schema),))["tools"][0]["functionDeclarations"]
    assert function["parametersJsonSchema"]["properties"] == {
        "text": {"type": "string"},
        "again": {"type": "string"},
        "list": {"type": "array", "items": {"type": "array", "items": {}}},
        "odd": {"type": "integer", "title": "T"},
    }


def test_a_schema_that_goes_on_for_ever_ends() -> None:
    inner = {"properties": {"a": {"$ref": "#/$defs/A", "title": "t"}}}
    schema = inner | {"type": "object", "$defs": {"A": inner}}
    (function,) = rendered(tools=(Tool("a", "", schema),))["tools"][0]["functionDeclarations"]
    assert len(relay.dumps(function)) < 4000


# Answers


def test_a_call_is_told_when_it_is_whole() -> None:
    stream = chat_stream(
        {"tool_calls": [fragment(0, '{"pa', "call_1", "read")]},
        {"tool_calls": [fragment(0, 'th":"a"}')]},
        finish="tool_calls",
    )
    said = [p for chunk in events(through(C, G, stream)) for p in parts_in(chunk)]
    calls = [part["functionCall"] for part in said if "functionCall" in part]
    assert calls == [{"id": "call_1", "name": "read", "args": {"path": "a"}}]


def parts_in(chunk: relay.JSON) -> list[relay.JSON]:
    return list(chunk["candidates"][0]["content"]["parts"])


def test_a_call_that_was_cut_off_is_not_told() -> None:
    """Checklist 39."""
    stream = chat_stream(
        {"tool_calls": [fragment(0, '{"command":"rm -rf', "call_1", "sh")]}, finish="length"
    )
    chunks = events(through(C, G, stream))
    assert not any("functionCall" in part for chunk in chunks for part in parts_in(chunk))
    assert chunks[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_a_call_that_is_no_json_is_told_as_it_is() -> None:
    (part,) = told(ToolCall("c", "read", "{nope"))
    assert part["functionCall"]["args"] == {"_raw": "{nope"}


@pytest.mark.parametrize(
    ("finish", "said"),
    [
        ("stop", "STOP"),
        ("tool_calls", "STOP"),
        ("stop_sequence", "STOP"),
        ("pause", "STOP"),
        ("length", "MAX_TOKENS"),
        ("context_length", "MAX_TOKENS"),
        ("content_filter", "SAFETY"),
    ],
)
def test_how_an_answer_ended(finish: Any, said: str) -> None:
    wire = G.render_response(relay.Response("r", "m", (Text("Hi"),), finish), ASKED)
    assert wire["candidates"][0]["finishReason"] == said


def test_counts_both_ways() -> None:
    """Checklist 41: cached tokens are input here, thoughts are not output."""
    usage = relay.Usage(1045, 57, 1024, 0, 30)
    wire = G.render_response(relay.Response("r", "m", (Text("Hi"),), "stop", usage), ASKED)
    assert wire["usageMetadata"] == {
        "promptTokenCount": 1045,
        "candidatesTokenCount": 27,
        "totalTokenCount": 1102,
        "cachedContentTokenCount": 1024,
        "thoughtsTokenCount": 30,
    }
    assert G.parse_usage(wire) == usage


def test_a_stream_as_an_array_is_one_json_value() -> None:
    """Checklist 57."""
    stream = anthropic_stream(text("Hi"), use("a", path="x"), stop="tool_use")
    out = through(A, G, stream, variant="array")
    chunks = json.loads(out)
    assert [list(part) for chunk in chunks for part in parts_in(chunk)] == [
        ["text"],
        ["functionCall"],
        ["text"],
    ]
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"


def test_a_gemini_providers_stream_becomes_an_array_too() -> None:
    out = through(G, G, gemini_stream("Hel", "lo"), variant="array")
    assert "".join(part["text"] for chunk in json.loads(out) for part in parts_in(chunk)) == "Hello"


def test_keep_alives_in_an_array_are_white_space() -> None:
    encoder = G.encoder(ASKED._replace(variant="array"))
    out = encoder.alive()
    for event in relay.unfold(relay.Response("r", "m", (Text("Hi"),), "stop")):
        out += encoder.encode(event) + encoder.alive()
    assert json.loads(out)


def test_events_are_what_googles_reader_takes() -> None:
    """Checklist 57: `data: ` lines and blank ones; no event:, no comment, no [DONE]."""
    stream = anthropic_stream(text("Hi\u2028"), use("a"), stop="tool_use")
    out = through(A, G, stream) + G.encoder(ASKED).alive()
    for line in out.split(b"\n"):
        assert line == b"" or line.startswith(b'data: {"')
    assert b"[DONE]" not in out


def test_a_break_behind_text_is_told_by_the_connection_alone() -> None:
    """CLIENTS.md 4: an error event behind a tool's result is taken for the end."""
    whole = anthropic_stream(text("Hi"))
    pipe = relay.Streamed(passage(A, G))
    out = piped(pipe, [whole[: whole.index(b"event: message_delta")]])
    assert pipe.failure
    assert b'"Hi"' in out
    assert b"error" not in out
    assert b"finishReason" not in out


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        ("bad_request", 400, "INVALID_ARGUMENT"),
        ("auth", 401, "UNAUTHENTICATED"),
        ("permission", 403, "PERMISSION_DENIED"),
        ("model_not_found", 404, "NOT_FOUND"),
        ("rate_limit", 429, "RESOURCE_EXHAUSTED"),
        ("server", 500, "INTERNAL"),
        ("overloaded", 503, "UNAVAILABLE"),
        ("timeout", 504, "DEADLINE_EXCEEDED"),
    ],
)
def test_errors_are_in_googles_shape(kind: str, status: int, word: str) -> None:
    error = relay.RelayError("what", kind=kind, status=status)
    assert G.render_error(error, "req_1") == {
        "error": {"code": status, "message": "what", "status": word}
    }


def test_how_long_to_wait_is_told_as_google_does() -> None:
    """Checklist 53."""
    error = relay.RelayError("slow", kind="rate_limit", status=429, retry_after=16.2)
    (detail,) = G.render_error(error, "req_1")["error"]["details"]
    assert detail == {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "17s",
    }


def test_an_error_in_an_array_is_a_list() -> None:
    error = relay.RelayError("what")
    array = G.encoder(relay.AnswerContext("", "", variant="array"))
    (said,) = json.loads(array.failed(error))
    assert said["error"]["message"] == "what"
    assert G.encoder(relay.AnswerContext("", "")).failed(error).startswith(b'data: {"error":')


def test_the_list_of_models() -> None:
    """Checklist 62."""
    listed = [relay.ModelInfo("a", 1000, 100), relay.ModelInfo("b")]
    first, second = G.render_models(listed)["models"]
    assert first["name"] == "models/a"
    assert (first["inputTokenLimit"], first["outputTokenLimit"]) == (1000, 100)
    assert "inputTokenLimit" not in second
    assert "generateContent" in second["supportedGenerationMethods"]
    assert G.render_model(listed[0]) == first


# Through the hub and back


def test_a_googles_signature_survives_claude_code() -> None:
    """Checklist 56."""
    signed = function_call("read", "fc-1", path="a") | {"thoughtSignature": "CiQBAAAA"}
    out = piped(relay.Streamed(passage(G, A)), [gemini_stream(signed)])
    blocks = [e["content_block"] for e in events(out) if e["type"] == "content_block_start"]
    thought = blocks[0]
    assert [block["type"] for block in blocks] == ["redacted_thinking", "tool_use"]
    body = anthropic(
        messages=[
            user("Go"),
            assistant(thought, use("fc-1", path="a"), use("fc-2", path="b")),
            user(result("fc-1"), result("fc-2")),
        ]
    )
    first, second = carried(body | {"model": "gemini-3-pro"}, A, G).body["contents"][1]["parts"]
    assert first["thoughtSignature"] == "CiQBAAAA"
    assert "thoughtSignature" not in second


@pytest.mark.parametrize("whole", [False, True])
def test_no_thought_of_googles_is_unsigned_for_an_anthropic_client(whole: bool) -> None:
    """pi takes a thought with an empty signature for text, and Copilot drops an empty thought."""
    thought = {"text": "First...", "thought": True}
    signed = function_call("read", "fc-1", path="a") | {"thoughtSignature": "CiQBAAAA"}
    wire = gemini_stream(thought, {"text": "So."}, signed)
    pipe = relay.Gathered(passage(G, A)) if whole else relay.Streamed(passage(G, A))
    out = piped(pipe, [wire])
    blocks = json.loads(out)["content"] if whole else blocks_of(out)
    assert [block["type"] for block in blocks] == [
        *("thinking", "text", "redacted_thinking", "tool_use")
    ]
    assert blocks[0]["signature"]
    blocks[3]["input"] = {"path": "a"}
    history = [user("Go"), assistant(*blocks), user(result("fc-1"))]
    body = anthropic(messages=history) | {"model": "gemini-3-pro"}
    parts = carried(body, A, G).body["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, "CiQBAAAA"]


def test_a_chat_history_is_written() -> None:
    """Names of results are looked up by their ids; C -> G."""
    messages = [{"role": "user", "content": "Go"}, called("a", "b"), tool("b", "B"), tool("a", "A")]
    contents = carried(chat(messages=messages), C, G).body["contents"]
    answers = [part["functionResponse"] for part in contents[2]["parts"]]
    assert [(a["name"], a["response"]["output"]) for a in answers] == [("read", "A"), ("read", "B")]


def test_a_blocked_prompt_is_a_refusal() -> None:
    blocked = relay.sse({"promptFeedback": {"blockReason": "SAFETY"}, "responseId": "r1"})
    out = events(through(G, A, blocked))
    (stop,) = [e["delta"]["stop_reason"] for e in out if e["type"] == "message_delta"]
    assert stop == "refusal"
    assert G.is_answer({"promptFeedback": {"blockReason": "SAFETY"}})
    assert not G.is_answer({"promptFeedback": {}, "candidates": []})
    assert not G.is_answer(candidate(finishReason="MALFORMED_FUNCTION_CALL"))
