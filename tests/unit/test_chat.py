"""OpenAI Chat Completions: requests read and written, answers read and written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from laws.strategies import ACCOUNT, ASKED, EFFORTS, PDF, PNG, piped, stream_of
from unit.wires import C, called, chat, events, text, to_chat, tool, user

import relay
from relay import Media, Message, Reasoning, Seal, Text, Thinking, Tool, ToolCall, ToolResult

PNG_URL = f"data:image/png;base64,{PNG}"
HI = Message("user", (Text("Hi"),))


def parsed(*messages: relay.JSON, **body: Any) -> relay.Request:
    return C.parse_request(chat(*messages, **body))


def rendered(*messages: Message, quirks: relay.Quirks | None = None, **fields: Any) -> relay.JSON:
    request = relay.Request(**{"model": "m", "messages": messages} | fields)
    return C.render_request(request, quirks or relay.ChatQuirks(), ACCOUNT).body


# A request, read

MESSAGES: list[tuple[relay.JSON, Message]] = [
    ({"role": "system", "content": "s"}, Message("system", (Text("s"),))),
    ({"role": "developer", "content": [text("s")]}, Message("system", (Text("s"),))),
    ({"role": "user", "content": "u", "name": "bob"}, Message("user", (Text("u"),))),
    ({"role": "user", "content": ""}, Message("user", ())),
    (
        user("see", {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "high"}}),
        Message("user", (Text("see"), Media("image", "image/png", PNG, detail="high"))),
    ),
    (
        user({"type": "image_url", "image_url": "https://a/b"}),
        Message("user", (Media("image", url="https://a/b"),)),
    ),
    (
        user(
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
            }
        ),
        Message("user", (Media("document", "application/pdf", PDF, name="a.pdf"),)),
    ),
    (
        user({"type": "file", "file": {"file_data": PDF}}),
        Message("user", (Media("document", "application/pdf", PDF),)),
    ),
    (
        user({"type": "file", "file": {"file_id": "f"}}),
        Message("user", (Text("[file: left out, for this model does not take it]"),)),
    ),
    (
        user({"type": "video_url", "video_url": {"url": "https://a/b.mp4"}}),
        Message("user", (Text("[video: left out, for this model does not take it]"),)),
    ),
    (
        user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}),
        Message("user", (Media("audio", "audio/mp3", "AAAA"),)),
    ),
    (user({"type": "hologram"}), Message("user", ())),
    ({"role": "assistant", "content": None}, Message("assistant", ())),
    (
        {"role": "assistant", "content": [text("a"), {"type": "refusal", "refusal": "no"}]},
        Message("assistant", (Text("a"), Text("no"))),
    ),
    ({"role": "assistant", "content": None, "refusal": "no"}, Message("assistant", (Text("no"),))),
    (called("c1"), Message("assistant", (ToolCall("c1", "read", "{}"),))),
    (
        {
            "role": "assistant",
            "content": "a",
            "reasoning_content": "Hm.",
            "tool_calls": called("c1")["tool_calls"],
        },
        Message("assistant", (Reasoning("Hm."), Text("a"), ToolCall("c1", "read", "{}"))),
    ),
    (
        {"role": "assistant", "content": "a", "reasoning": "Hm."},
        Message("assistant", (Reasoning("Hm."), Text("a"))),
    ),
    (
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "n", "input": "raw"}}],
        },
        Message("assistant", (ToolCall("c1", "n", '{"input":"raw"}'),)),
    ),
    (
        {"role": "assistant", "content": None, "function_call": {"name": "n", "arguments": "{}"}},
        Message("assistant", (ToolCall("n", "n", "{}"),)),
    ),
    (tool("c1", "ok"), Message("user", (ToolResult("c1", (Text("ok"),)),))),
    (
        tool("c1", [text("a"), text("b")]),
        Message("user", (ToolResult("c1", (Text("a"), Text("b"))),)),
    ),
    (
        {"role": "function", "name": "n", "content": "ok"},
        Message("user", (ToolResult("n", (Text("ok"),)),)),
    ),
]


@pytest.mark.parametrize(
    ("wire", "message"), MESSAGES, ids=lambda v: v["role"] if isinstance(v, dict) else ""
)
def test_every_message_is_read(wire: relay.JSON, message: Message) -> None:
    assert parsed(wire).messages == (message,)


@pytest.mark.parametrize("field", ["text", "summary"])
def test_reasoning_in_an_object_is_read(field: str) -> None:
    said = {"role": "assistant", "content": "A", "reasoning": {field: "T"}}
    assert parsed(said).messages == (Message("assistant", (Reasoning("T"), Text("A"))),)
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    answer = relay.fold(C.decoder().whole({"id": "x", "model": "m", "choices": [choice]}))
    assert isinstance(answer, relay.Response)
    assert [part.text for part in answer.parts] == ["T", "A"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("reason", ["error", None])
def test_an_error_in_a_choice_says_what_it_is(whole: bool, reason: str | None) -> None:
    """As OpenRouter writes it: a status as the code, and no error beside the choices."""
    choice = {"index": 0, "finish_reason": reason, "error": {"code": 429, "message": "Slow down"}}
    wire = {"id": "x", "model": "m", "choices": [choice | {"message": {"content": ""}}]}
    read = C.decoder().whole(wire) if whole else C.decoder().feed(relay.sse(wire))
    assert read[-1] == relay.Failure("Slow down", "429") == C.failure_in(wire)
    assert not C.is_answer(wire)


@pytest.mark.parametrize("whole", [True, False])
def test_a_choice_that_is_null_says_nothing(whole: bool) -> None:
    counts = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    said = {"content": "Hey"}
    wires: list[relay.JSON] = [
        {"id": "x", "model": "m", "choices": [None]},
        {"id": "x", "model": "m", "choices": [None, {"index": 1, "delta": said}]},
        {"id": "x", "model": "m", "choices": [None]} | counts,
    ]
    if whole:
        wires = [wires[1] | {"choices": [None, {"index": 1, "message": said}]} | counts]
    stream = b"".join(map(relay.sse, wires)) + b"data: [DONE]\n\n"
    read = C.decoder().whole(wires[0]) if whole else C.decoder().feed(stream)
    answer = relay.fold(read)
    assert isinstance(answer, relay.Response)
    assert [part.text for part in answer.parts] == ["Hey"]
    assert answer.usage == relay.Usage(3, 2)


@pytest.mark.parametrize("choices", [[None], [], None])
def test_an_answer_without_a_choice_is_a_failure(choices: Any) -> None:
    wire = {"id": "x", "model": "m", "choices": choices}
    empty = relay.Failure("sent an empty answer", cause="transient")
    assert C.decoder().whole(dict(wire))[-1] == empty
    assert C.decoder().feed(relay.sse(wire) + b"data: [DONE]\n\n")[-1] == empty
    assert not C.is_answer(wire)


def test_our_seals_are_opened() -> None:
    seal = Seal("as", "EqAB", "0a1b2c3d")
    details = [
        {"type": "reasoning.text", "text": "Hm.", "signature": relay.enveloped(seal), "index": 0}
    ]
    message = {
        "role": "assistant",
        "content": "a",
        "reasoning_content": "Hm.",
        "reasoning_details": details,
    }
    assert parsed(message).messages[0].parts == (Reasoning("Hm.", seal), Text("a"))


def test_details_of_others_are_kept_as_they_are() -> None:
    details = [
        {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "format": "f", "index": 0}
    ]
    (thought, _) = (
        parsed({"role": "assistant", "content": "a", "reasoning_details": details})
        .messages[0]
        .parts
    )
    assert isinstance(thought, Reasoning)
    assert thought.seal
    assert (thought.seal.field, json.loads(thought.seal.value)) == ("cd", details)


FIELDS: list[tuple[relay.JSON, relay.JSON]] = [
    ({"max_tokens": 7}, {"max_tokens": 7}),
    ({"max_tokens": 7, "max_completion_tokens": 9}, {"max_tokens": 9}),
    ({"stop": "a"}, {"stop": ("a",)}),
    ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
    (
        {
            "temperature": 1,
            "top_p": 0.5,
            "top_k": 7,
            "seed": 3,
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
        },
        {"sampling": relay.Sampling(1, 0.5, 7, 3, 0.1, 0.2)},
    ),
    ({"stream": True}, {"stream": True, "include_usage": False}),
    (
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "include_usage": True},
    ),
    ({"user": "u"}, {"user": "u"}),
    (
        {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k"},
        {"user": "s", "session": "k"},
    ),
    ({"parallel_tool_calls": False}, {"parallel_tools": False}),
    ({"reasoning_effort": "high"}, {"thinking": Thinking(True, "high")}),
    ({"reasoning_effort": "none"}, {"thinking": Thinking(False)}),
    ({"reasoning_effort": "auto"}, {"thinking": None}),
    ({"max_tokens": -1}, {"max_tokens": None}),  # no limit: llama.cpp, LM Studio
    (
        {"reasoning": {"effort": "low", "max_tokens": 5000}},
        {"thinking": Thinking(True, "low", 5000)},
    ),
    ({"thinking": {"type": "enabled"}}, {"thinking": Thinking(True)}),
    ({"thinking": {"type": "disabled"}}, {"thinking": Thinking(False)}),
    ({"enable_thinking": True, "thinking_budget": 5000}, {"thinking": Thinking(True, "", 5000)}),
    ({"enable_thinking": False}, {"thinking": Thinking(False)}),
    ({"tool_choice": "required"}, {"tool_choice": relay.ToolChoice("required")}),
    ({"tool_choice": "none"}, {"tool_choice": relay.ToolChoice("none")}),
    (
        {"tool_choice": {"type": "function", "function": {"name": "n"}}},
        {"tool_choice": relay.ToolChoice("named", ("n",))},
    ),
    ({"function_call": {"name": "n"}}, {"tool_choice": relay.ToolChoice("named", ("n",))}),
    ({"response_format": {"type": "text"}}, {"format": None}),
    ({"response_format": {"type": "json_object"}}, {"format": relay.Format()}),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True},
            }
        },
        {"format": relay.Format({"a": 1}, "n", True)},
    ),
    (
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "n", "parameters": {"type": "object"}, "strict": True},
                }
            ]
        },
        {"tools": (Tool("n", "", {"type": "object"}, True),)},
    ),
    (
        {"functions": [{"name": "n", "description": "d"}]},
        {"tools": (Tool("n", "d", form="function_call"),), "parallel_tools": False},
    ),
    ({"reasoning": {"enabled": True}}, {"thinking": Thinking(True), "dropped": ()}),
    ({"chat_template_kwargs": {"enable_thinking": False}}, {"thinking": Thinking(False)}),
    (
        {"chat_template_kwargs": {"enable_thinking": True, "x": 1}},
        {"thinking": Thinking(True), "dropped": ("chat_template_kwargs.x",)},
    ),
    ({"thinking_budget": 0}, {"thinking": Thinking(False)}),
    ({"tools": [{"type": "hologram"}]}, {"tools": (), "dropped": ("tools[].hologram",)}),
    (
        {"tool_choice": {"type": "custom", "custom": {"name": "n"}}},
        {"tool_choice": relay.ToolChoice("named", ("n",))},
    ),
    ({"logit_bias": {}, "modalities": []}, {"dropped": ("logit_bias", "modalities")}),
    ({"verbosity": "low", "service_tier": "flex"}, {"verbosity": "low", "service_tier": "flex"}),
    ({"n": 1}, {"dropped": ()}),
]


@pytest.mark.parametrize(("body", "fields"), FIELDS, ids=lambda v: json.dumps(v, default=str)[:50])
def test_every_field_is_read(body: relay.JSON, fields: relay.JSON) -> None:
    request = parsed(**body)
    for name, value in fields.items():
        got = getattr(request, name)
        assert (sorted(got) if name == "dropped" else got) == (
            sorted(value) if name == "dropped" else value
        )


PATCH_TOOL = {
    "type": "custom",
    "custom": {
        "name": "patch",
        "description": "Edit files.",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: any"}},
    },
}


def test_a_freeform_tool_is_a_function_that_remembers_what_it_was() -> None:
    allowed = {"mode": "auto", "tools": [{"type": "custom", "custom": {"name": "patch"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    request = parsed(tools=[PATCH_TOOL], tool_choice=choice)
    (tool,) = request.tools
    assert (tool.name, tool.form, tool.schema) == ("patch", "custom", relay.FREEFORM)
    assert tool.description.startswith("Edit files.")
    assert tool.description.endswith("(lark):\n\nstart: any")
    assert request.tool_choice == relay.ToolChoice("auto", ("patch",))
    assert request.dropped == ()


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("maker", [C, relay.ANTHROPIC], ids=["openai", "anthropic"])
def test_a_freeform_call_comes_back_unwrapped(streamed: bool, maker: relay.Dialect) -> None:
    """As what it was offered as; and its text is wrapped again in the history."""
    text = 'line "one"\n\u2028two \\ 🌍'
    wrapped = relay.dumps({"input": text}).decode()
    said = (relay.Text("Now."), ToolCall("a", "patch", wrapped), ToolCall("b", "read", "{}"))
    answer = relay.Response("1", "m", said, "tool_calls", relay.Usage(1, 1))
    asked = ASKED._replace(forms={"patch": "custom"})
    between = relay.AnswerPath(maker, C, asked, account=ACCOUNT, names={"x": "y"})
    if streamed:
        out = piped(relay.Streamed(between), [stream_of(maker, answer)])
        deltas = [choice["delta"] for event in events(out) for choice in event["choices"]]
        pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
        custom = [piece["custom"] for piece in pieces if piece["index"] == 0]
        first = pieces[0]
        call = first | {"custom": {"name": custom[0]["name"], "input": ""}}
        call["custom"]["input"] = "".join(piece["input"] for piece in custom)
        assert (call.pop("index"), pieces[-1]["index"]) == (0, 1)
    else:
        wire = relay.dumps(maker.render_response(answer, ASKED))
        whole = relay.loads(piped(relay.Gathered(between), [wire]))
        call, other = whole["choices"][0]["message"]["tool_calls"]
        assert other["type"] == "function"
    assert call == {"id": "a", "type": "custom", "custom": {"name": "patch", "input": text}}
    (message,) = parsed({"role": "assistant", "tool_calls": [call]}).messages
    assert message.parts == (ToolCall("a", "patch", wrapped),)


@pytest.mark.parametrize("streamed", [True, False])
def test_who_knows_no_tools_is_told_of_a_function_call(streamed: bool) -> None:
    """`functions` came before `tools`, and their clients read nothing else, and of one call only;
    not every provider heeds that it is asked for one."""
    calls = (
        ToolCall("a", "look", '{"x":1}'),
        ToolCall("b", "look", '{"y":2}'),
        ToolCall("c", "look"),
    )
    answer = relay.Response("1", "m", (relay.Text("Now."), *calls), "tool_calls", relay.Usage(1, 1))
    asked = ASKED._replace(forms={"look": "function_call"})
    between = relay.AnswerPath(relay.ANTHROPIC, C, asked, account=ACCOUNT)
    if streamed:
        out = piped(relay.Streamed(between), [stream_of(relay.ANTHROPIC, answer)])
        choices = [choice for event in events(out) for choice in event["choices"]]
        pieces = [c["delta"]["function_call"] for c in choices if "function_call" in c["delta"]]
        call = {"name": pieces[0]["name"], "arguments": "".join(p["arguments"] for p in pieces)}
        finish = choices[-1]["finish_reason"]
    else:
        wire = relay.dumps(relay.ANTHROPIC.render_response(answer, ASKED))
        (choice,) = relay.loads(piped(relay.Gathered(between), [wire]))["choices"]
        assert "tool_calls" not in choice["message"]
        call, finish = choice["message"]["function_call"], choice["finish_reason"]
    assert (call, finish) == ({"name": "look", "arguments": '{"x":1}'}, "function_call")


MISTAKES: list[tuple[relay.JSON, str]] = [
    ({"messages": {}}, "messages: expected a list, got an object"),
    ({"messages": ["x"]}, 'messages[0]: expected an object, got "x"'),
    ({"messages": [{"content": "x"}]}, "messages[0].role: required"),
    ({"messages": [{"role": "robot", "content": "x"}]}, 'messages[0].role: unknown role "robot"'),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content: expected a list, got 3"),
    (
        {"messages": [user({"type": "text", "text": 3})]},
        "messages[0].content[0].text: expected a string, got 3",
    ),
    (
        {"messages": [user({"type": "image_url", "image_url": {}})]},
        "messages[0].content[0].image_url.url: required",
    ),
    (
        {"messages": [user({"type": "input_audio", "input_audio": {}})]},
        "messages[0].content[0].input_audio.data: required",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "n"}}]}]},
        "messages[0].tool_calls[0].id: required",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "x", "function": {}}]}]},
        "messages[0].tool_calls[0].function.name: required",
    ),
    ({"n": 2}, "n: "),
    ({"stop": 3}, "stop: expected"),
    ({"temperature": []}, "temperature: expected a number, got a list"),
    ({"stream_options": 1}, "stream_options: expected an object, got 1"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name: required"),
    ({"tool_choice": 3}, "tool_choice: expected an object, got 3"),
]


@pytest.mark.parametrize(("body", "complaint"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_mistake_is_told_with_its_place(body: relay.JSON, complaint: str) -> None:
    with pytest.raises(relay.BadRequest) as caught:
        parsed(**body)
    assert caught.value.message.startswith(complaint)


# A request, written


def test_a_text_is_one_string_where_text_is_all_there_is() -> None:
    body = rendered(Message("user", (Text("a"), Text("b"))))
    assert body["messages"] == [{"role": "user", "content": "a\n\nb"}]


def test_the_system_prompt_is_one_message_with_the_role_its_provider_knows() -> None:
    system = Message("system", (Text("a"), Text("b")))
    for role in ("system", "developer"):
        body = rendered(system, HI, quirks=relay.ChatQuirks(system_role=role))
        assert body["messages"][0] == {"role": role, "content": "a\n\nb"}


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        ((Text("a"), Text("b")), "a\n\nb"),
        ((), "(no output)"),
        ((Text(""),), "(no output)"),
        ((Media("text", "text/plain", "d", name="n.txt"),), "n.txt"),
    ],
)
def test_a_tool_result_is_a_text(parts: Any, content: str) -> None:
    turn = Message("assistant", (ToolCall("a", "n"),))
    body = rendered(HI, turn, Message("user", (ToolResult("a", parts),)))
    assert body["messages"][2]["tool_call_id"] == "a"
    assert content in body["messages"][2]["content"]


def test_an_error_result_says_so() -> None:
    turn = Message("assistant", (ToolCall("a", "n"),))
    body = rendered(HI, turn, Message("user", (ToolResult("a", (Text("no"),), True),)))
    assert body["messages"][2]["content"] == "Error: no"


def test_a_turn_of_calls_has_no_content_but_null() -> None:
    body = rendered(HI, Message("assistant", (ToolCall("a", "n"),)), HI)
    assert body["messages"][1]["content"] is None
    assert body["messages"][1]["tool_calls"][0]["function"] == {"name": "n", "arguments": "{}"}


def test_arguments_go_as_the_model_wrote_them() -> None:
    said = '{"b": 1,  "a": "\\u00e9"}'
    body = rendered(HI, Message("assistant", (ToolCall("a", "n", said),)), HI)
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == said


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_limit_has_the_name_its_provider_knows(field: str) -> None:
    assert rendered(HI, max_tokens=7, quirks=relay.ChatQuirks(max_tokens=field))[field] == 7
    assert "max_tokens" not in rendered(HI)


def test_no_more_than_four_stops_are_taken() -> None:
    request = relay.Request(model="m", messages=(HI,), stop=tuple("abcdef"))
    out = C.render_request(request, relay.ChatQuirks(), ACCOUNT)
    assert out.body["stop"] == ["a", "b", "c", "d"]
    assert (out.stops, out.dropped) == (("e", "f"), ())


@pytest.mark.parametrize(("taken", "options"), [(True, {"include_usage": True}), (False, None)])
def test_counts_are_always_asked_for_where_that_is_known(taken: bool, options: Any) -> None:
    quirks = relay.ChatQuirks(stream_usage=taken)
    assert rendered(HI, stream=True, quirks=quirks).get("stream_options") == options
    assert "stream_options" not in rendered(HI, quirks=quirks)


# PROTOCOLS.md 1.2.3, PROVIDERS.md: how each provider is told to think
STYLES: list[tuple[str, Thinking, relay.JSON]] = [
    ("effort", Thinking(True, "high"), {"reasoning_effort": "high"}),
    ("effort", Thinking(True, "", 10000), {"reasoning_effort": "medium"}),
    ("effort", Thinking(True), {}),
    ("effort", Thinking(False), {"reasoning_effort": "none"}),
    ("thinking", Thinking(True, "high"), {"thinking": {"type": "enabled"}}),
    ("thinking", Thinking(False), {"thinking": {"type": "disabled"}}),
    (
        "enable_thinking",
        Thinking(True, "", 5000),
        {"enable_thinking": True, "thinking_budget": 5000},
    ),
    ("enable_thinking", Thinking(True, "low"), {"enable_thinking": True, "thinking_budget": 2048}),
    ("enable_thinking", Thinking(True), {"enable_thinking": True}),
    ("enable_thinking", Thinking(False), {"enable_thinking": False}),
    ("reasoning", Thinking(True, "high"), {"reasoning": {"effort": "high"}}),
    ("reasoning", Thinking(True, "", 5000), {"reasoning": {"max_tokens": 5000}}),
    ("reasoning", Thinking(False), {"reasoning": {"effort": "none"}}),
    ("template", Thinking(True, "high"), {"chat_template_kwargs": {"enable_thinking": True}}),
    ("template", Thinking(False), {"chat_template_kwargs": {"enable_thinking": False}}),
    ("none", Thinking(True, "high"), {}),
]


@pytest.mark.parametrize(("style", "thinking", "said"), STYLES)
def test_thinking_is_asked_for_in_the_providers_words(
    style: str, thinking: Thinking, said: relay.JSON
) -> None:
    body = rendered(HI, thinking=thinking, quirks=relay.ChatQuirks(reasoning=style))
    assert {k: v for k, v in body.items() if k not in ("model", "messages")} == said


STYLES = ("effort", "thinking", "enable_thinking", "reasoning", "template", "none")


@pytest.mark.parametrize("style", STYLES)
def test_efforts_are_said_in_words_the_provider_knows(style: str) -> None:
    efforts = dict.fromkeys(EFFORTS, "high")
    quirks = relay.ChatQuirks(reasoning=style, efforts=efforts)
    for effort in EFFORTS[1:]:
        said = json.dumps(rendered(HI, thinking=Thinking(True, effort), quirks=quirks))
        assert f'"{effort}"' not in said or effort == "high"


THOUGHT = Reasoning("Hm.", Seal("cr", "", ACCOUNT))
REPLAYS: list[tuple[str, bool, bool]] = [
    ("never", True, False),
    ("never", False, False),
    ("tool_turns", True, True),
    ("tool_turns", False, False),
    ("always", True, True),
    ("always", False, True),
]


@pytest.mark.parametrize(("replay", "calls", "there"), REPLAYS)
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_comes_back_where_it_is_wanted(
    replay: Any, calls: bool, there: bool, field: str
) -> None:
    quirks = relay.ChatQuirks(replay=replay, replay_field=field)
    called = (ToolCall("a", "n"),) if calls else ()
    body = rendered(HI, Message("assistant", (THOUGHT, Text("x"), *called)), HI, quirks=quirks)
    assert (body["messages"][1].get(field) == "Hm.") is there


def test_details_come_back_to_their_own_account_as_they_were() -> None:
    details = [{"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "index": 0}]
    quirks = relay.ChatQuirks(replay="always", replay_field="reasoning_details")
    for account, there in ((ACCOUNT, details), ("", details), ("99999999", None)):
        thought = Reasoning("", Seal("cd", json.dumps(details), account))
        body = rendered(HI, Message("assistant", (thought, Text("x"))), HI, quirks=quirks)
        assert body["messages"][1].get("reasoning_details") == there
    plain = rendered(HI, Message("assistant", (THOUGHT, Text("x"))), HI, quirks=quirks)
    assert plain["messages"][1]["reasoning_details"] == [{"type": "reasoning.text", "text": "Hm."}]


@pytest.mark.parametrize(
    ("how", "said", "there"),
    [
        ("as_is", True, True),
        ("as_is", None, None),
        ("drop", True, None),
        ("false", True, False),
        ("false", None, False),
    ],
)
def test_strict_is_said_as_the_provider_takes_it(how: Any, said: Any, there: Any) -> None:
    body = rendered(HI, tools=(Tool("t", "", {}, said),), quirks=relay.ChatQuirks(tool_strict=how))
    assert body["tools"][0]["function"].get("strict") is there


def test_who_the_user_is_goes_out_hashed_and_only_where_it_is_taken() -> None:
    """Claude Code's user_id has 150 characters; the limits are 64 (PROTOCOLS.md 3.6 no. 58)."""
    known = {"user": "u" * 150, "session": "s" * 150}
    assert not {"user", "safety_identifier", "prompt_cache_key"} & rendered(HI, **known).keys()
    quirks = relay.ChatQuirks(identity=("user", "safety_identifier", "prompt_cache_key"))
    first, second = (rendered(HI, **known, quirks=quirks) for _ in range(2))
    assert first == second
    for name in quirks.identity:
        assert 0 < len(first[name]) <= 64
        assert first[name] not in ("u" * 64, "s" * 64)
    assert first["user"] != first["prompt_cache_key"]


def test_a_beginning_of_an_answer_goes_only_where_it_is_understood() -> None:
    """PROTOCOLS.md 2.3.1: prefill only for providers with prefix support."""
    begun = Message("assistant", (Text("{"),))
    assert rendered(HI, begun, quirks=relay.ChatQuirks(prefill="prefix"))["messages"][-1] == {
        "role": "assistant",
        "content": "{",
        "prefix": True,
    }
    request = relay.Request(model="m", messages=(HI, begun))
    out = C.render_request(request, relay.ChatQuirks(), ACCOUNT)
    assert [m["role"] for m in out.body["messages"]] == ["user"]
    assert "prefill" in out.dropped


def test_what_a_provider_does_not_sample_by_is_said() -> None:
    request = relay.Request(model="m", messages=(HI,), sampling=relay.Sampling(0.5, 0.5, 7, 3))
    out = C.render_request(request, relay.ChatQuirks(sampling=("temperature",)), ACCOUNT)
    assert out.body["temperature"] == 0.5
    assert {"top_p", "top_k", "seed"} <= set(out.dropped)


def test_no_more_tools_go_out_than_are_taken() -> None:
    """400 "array too long. Expected an array with maximum length 128", with many MCP servers."""
    tools = tuple(Tool(f"t{number}") for number in range(130))
    request = relay.Request(model="m", messages=(HI,), tools=tools)
    out = C.render_request(request, relay.PRESETS["openai"].quirks["openai"], ACCOUNT)
    assert (len(out.body["tools"]), out.dropped) == (128, ("tools[128:]",))
    for dialect in relay.DIALECTS.values():
        everything = dialect.render_request(request, dialect.quirks(), ACCOUNT)
        assert everything.dropped == ()
        some = dialect.render_request(request, dialect.quirks(most_tools=3), ACCOUNT)
        assert some.dropped == ("tools[3:]",)
        assert len(dialect.parse_request(some.body).tools) == 3


def test_what_is_not_said_is_not_written() -> None:
    assert rendered(HI) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_claude_codes_first_request_is_a_plain_chat() -> None:
    body = to_chat(
        messages=[
            user(
                "Hi",
                {
                    "type": "text",
                    "text": "<system-reminder>",
                    "cache_control": {"type": "ephemeral"},
                },
            )
        ],
        system=[text("You are Claude Code."), text("Be brief.")],
        stream=True,
        thinking={"type": "adaptive"},
    )
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are Claude Code.\n\nBe brief."},
            {"role": "user", "content": "Hi\n\n<system-reminder>"},
        ],
        "max_tokens": 1000,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


# An answer, read and written

FINISHES = [
    ("stop", "stop"),
    ("length", "length"),
    ("content_filter", "content_filter"),
    ("sensitive", "content_filter"),
    ("eos", "stop"),
    ("eos_token", "stop"),
    ("", "stop"),
    (None, "stop"),
    ("whatever", "length"),
]


@pytest.mark.parametrize(("finish", "read"), FINISHES)
def test_finish_reasons_are_read(finish: Any, read: str) -> None:
    wire = {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": finish}]}
    assert relay.fold(C.decoder().whole(wire)).finish == read


STOPS = [
    ("stop", "stop"),
    ("stop_sequence", "stop"),
    ("pause", "stop"),
    ("length", "length"),
    ("context_length", "length"),
    ("tool_calls", "tool_calls"),
    ("content_filter", "content_filter"),
]


@pytest.mark.parametrize(("finish", "there"), STOPS)
def test_every_finish_is_one_that_clients_know(finish: Any, there: str) -> None:
    answer = relay.Response("x", "m", (Text("x"),), finish)
    assert C.render_response(answer, ASKED)["choices"][0]["finish_reason"] == there


def test_an_answer_has_every_field_that_clients_read() -> None:
    answer = relay.Response(
        "x1",
        "m",
        (Reasoning("Hm.", Seal("cr")), Text("Hi"), ToolCall("c", "n", "")),
        "tool_calls",
        relay.Usage(9, 5, 3, 1, 2),
    )
    assert C.render_response(answer, ASKED) == {
        "id": "chatcmpl-x1",
        "object": "chat.completion",
        "created": ASKED.now,
        "model": ASKED.model,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "refusal": None,
                    "reasoning_content": "Hm.",
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "n", "arguments": "{}"},
                        }
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }


def test_an_answer_of_calls_alone_has_no_content_but_null() -> None:
    answer = relay.Response("x1", "m", (ToolCall("c", "n", "{}"),), "tool_calls")
    assert C.render_response(answer, ASKED)["choices"][0]["message"]["content"] is None


USAGES: list[tuple[Any, relay.Usage | None]] = [
    ({"prompt_tokens": 9, "completion_tokens": 5}, relay.Usage(9, 5)),
    (
        {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": None},
        relay.Usage(9, 5),
    ),
    (
        {
            "prompt_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1},
        },
        relay.Usage(9, 0, 3, 1),
    ),
    (
        {"prompt_tokens": 9, "prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 6},
        relay.Usage(9, 0, 3),
    ),
    ({"prompt_tokens": 9, "cached_tokens": 3}, relay.Usage(9, 0, 3)),
    (
        {"prompt_tokens": 1, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2},
        relay.Usage(6, 0, 3, 2),
    ),
    ({"prompt_tokens": None, "completion_tokens": 5.0}, relay.Usage(0, 5)),
    # gateways that leave another format's names
    (
        {"input_tokens": 9, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}},
        relay.Usage(9, 5, reasoning=2),
    ),
    (
        {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 9, "output_tokens": 5},
        relay.Usage(9, 5),
    ),
    (
        {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 3}, "total_tokens": 14},
        relay.Usage(9, 5, 3),
    ),
    (  # Anthropic's: what was cached is apart
        {
            "input_tokens": 9,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 2,
            "output_tokens": 5,
        },
        relay.Usage(14, 5, 3, 2),
    ),
    (
        {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}},
        relay.Usage(0, 5, reasoning=3),
    ),
    (  # xAI counts what was thought apart, and into the sum
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        relay.Usage(32, 103, reasoning=94),
    ),
    (None, None),
    ([], None),
]


@pytest.mark.parametrize(("usage", "read"), USAGES)
def test_counts_are_read_in_every_spelling(usage: Any, read: relay.Usage | None) -> None:
    assert C.parse_usage({"usage": usage}) == read
    assert C.parse_usage({"choices": [{"index": 0, "delta": {}, "usage": usage}]}) == read


def test_the_wire_claims_its_own() -> None:
    for wire in (
        {"choices": []},
        {"object": "chat.completion.chunk"},
        {"object": "chat.completion"},
    ):
        assert C.claims(wire)
    for wire in ({"type": "message"}, {"object": "response"}, {"object": 3}, {}, {"error": {}}):
        assert not C.claims(wire)
