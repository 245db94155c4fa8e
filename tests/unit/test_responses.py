"""OpenAI Responses: what Codex sends and needs back, and what a provider of it is asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import ACCOUNT, ASKED, PDF, PNG, passage, piped
from unit.wires import (
    A,
    C,
    R,
    calls,
    chat_stream,
    events,
    fragment,
    output_text,
    responses,
    responses_stream,
    text,
    through,
)

import relay
from relay import Media, Message, Reasoning, Request, Seal, Text, Tool, ToolCall, ToolResult

HI = Message("user", (Text("Hi"),))
PNG_URL = f"data:image/png;base64,{PNG}"
OTHER = "99999999"


def parsed(*items: relay.JSON, **body: Any) -> Request:
    return R.parse_request(responses(*items, **body))


def repaired(*items: relay.JSON, **body: Any) -> tuple[Message, ...]:
    return relay.repaired(parsed(*items, **body).messages)


def rendered(*messages: Message, quirks: Any = None, **fields: Any) -> relay.JSON:
    request = Request(**{"model": "m", "messages": messages} | fields)
    return R.render_request(request, quirks or relay.ResponsesQuirks(), ACCOUNT).body


# A request, read

ITEMS: list[tuple[relay.JSON, Message]] = [
    ({"role": "user", "content": "Hi"}, HI),
    ({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}, HI),
    ({"role": "developer", "content": "Be brief."}, Message("system", (Text("Be brief."),))),
    ({"role": "system", "content": "Be brief."}, Message("system", (Text("Be brief."),))),
    ({"role": "assistant", "content": "Hello"}, Message("assistant", (Text("Hello"),))),
    (
        output_text("Hello") | {"id": "msg_1", "status": "completed", "phase": "commentary"},
        Message("assistant", (Text("Hello"),)),
    ),
    (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        Message("assistant", (Text("No."),)),
    ),
    (
        {"role": "user", "content": [{"type": "input_image", "image_url": PNG_URL}]},
        Message("user", (Media("image", "image/png", PNG),)),
    ),
    (
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://a/b.png"}]},
        Message("user", (Media("image", url="https://a/b.png"),)),
    ),
    (
        {
            "role": "user",
            "content": [{"type": "input_file", "filename": "a.pdf", "file_data": PDF}],
        },
        Message("user", (Media("document", "application/pdf", PDF, name="a.pdf"),)),
    ),
    (
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [
                {"type": "summary_text", "text": "One."},
                {"type": "summary_text", "text": "Two."},
            ],
            "content": None,
            "encrypted_content": "gAAA",
        },
        Message("assistant", (Reasoning("One.\n\nTwo.", Seal("re", "rs_1 gAAA")),)),
    ),
    (
        {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
            "encrypted_content": None,
        },
        Message("assistant", (Reasoning("Hm."),)),
    ),
    (
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "n", "arguments": "{}"},
        Message("assistant", (ToolCall("c", "n", "{}"),)),
    ),
    (
        {
            "type": "function_call",
            "call_id": "c",
            "name": "spawn_agent",
            "namespace": "agents",
            "arguments": "{}",
        },
        Message("assistant", (ToolCall("c", "agents__spawn_agent", "{}"),)),
    ),
    (
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "a\n"},
        Message("assistant", (ToolCall("c", "apply_patch", '{"input":"a\\n"}'),)),
    ),
    (
        {
            "type": "local_shell_call",
            "call_id": "c",
            "action": {"type": "exec", "command": ["ls"]},
        },
        Message("assistant", (ToolCall("c", "local_shell", '{"command":["ls"]}'),)),
    ),
    (
        {
            "type": "tool_search_call",
            "call_id": "c",
            "execution": "client",
            "arguments": {"query": "x"},
        },
        Message("assistant", (ToolCall("c", "tool_search", '{"query":"x"}'),)),
    ),
    (
        {"type": "function_call_output", "call_id": "c", "output": "done"},
        Message("user", (ToolResult("c", (Text("done"),)),)),
    ),
    (
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "input_image", "image_url": PNG_URL, "detail": "original"}],
        },
        Message("user", (ToolResult("c", (Media("image", "image/png", PNG, detail="original"),)),)),
    ),
    (
        {
            "type": "custom_tool_call_output",
            "call_id": "c",
            "output": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        Message("user", (ToolResult("c", (Text("a"), Text("b"))),)),
    ),
    (
        {"type": "local_shell_call_output", "id": "c", "output": '{"output":"x"}'},
        Message("user", (ToolResult("c", (Text('{"output":"x"}'),)),)),
    ),
    (
        {"type": "apply_patch_call_output", "call_id": "c", "status": "failed", "output": "No."},
        Message("user", (ToolResult("c", (Text("No."),), True),)),
    ),
]


@pytest.mark.parametrize(("item", "message"), ITEMS, ids=lambda v: str(v)[:60])
def test_an_item_is_read_as_what_it_means(item: relay.JSON, message: Message) -> None:
    request = parsed(item)
    assert request.messages == (message,)
    assert request.dropped == ()


def test_settings_that_change_on_the_way_are_those_of_the_end() -> None:
    update = {"type": "configuration_update", "reasoning": {"effort": "low"}}
    format = {"type": "json_object"}
    body = responses(
        {"role": "user", "content": "Hi"},
        update,
        update | {"reasoning": {"effort": "high"}, "text": {"format": format}},
        reasoning={"effort": "medium", "summary": "auto"},
        text={"verbosity": "low"},
    )
    request = R.parse_request(body)
    assert request.thinking == relay.Thinking(True, "high")
    assert (request.show_thoughts, request.verbosity) == (True, "low")
    assert request.format == relay.Format()
    assert request.dropped == ()
    assert body["reasoning"]["effort"] == "medium"


def test_what_include_asks_for_is_named_where_nobody_sends_it() -> None:
    def dropped(*asked: str) -> tuple[str, ...]:
        said = {"role": "user", "content": "Hi."}
        return parsed(said, include=list(asked)).dropped

    assert dropped("reasoning.encrypted_content") == ()
    assert dropped("reasoning.encrypted_content", "message.output_text.logprobs") == ("include",)


def test_an_answer_repeats_what_was_asked_for() -> None:
    """All but what is long; and what was not said is said as not said."""
    body = responses(
        {"role": "user", "content": "Hi"},
        instructions="Be brief.",
        tools=[{"type": "function", "name": "n", "parameters": {}}],
        reasoning={"effort": "low"},
        text={"verbosity": "low"},
        metadata={"run": "7"},
        temperature=0.5,
        tool_choice="required",
        parallel_tool_calls=False,
        top_p=None,
    )
    answer = relay.Response("1", "m", (Text("Hi"),), "stop", relay.Usage(1, 1))
    whole = R.render_response(answer, ASKED._replace(echo=R.echoed(body)))
    assert (whole["reasoning"], whole["text"]) == (
        {"effort": "low", "summary": None},
        {"format": {"type": "text"}, "verbosity": "low"},
    )
    assert (whole["metadata"], whole["temperature"], whole["top_p"]) == ({"run": "7"}, 0.5, None)
    assert (whole["tool_choice"], whole["parallel_tool_calls"]) == ("required", False)
    assert (whole["tools"], whole["instructions"]) == ([], None)
    nothing = R.render_response(answer, ASKED)
    assert nothing["text"] == {"format": {"type": "text"}}
    assert nothing["reasoning"] == {"effort": None, "summary": None}


def test_input_may_be_one_string() -> None:
    request = R.parse_request({"model": "m", "input": "Hi", "instructions": "Be brief."})
    assert request.messages == (Message("system", (Text("Be brief."),)), HI)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, "web_search_call"),
        ({"type": "next_years", "x": 1}, "next_years"),
        ({"type": "compaction", "encrypted_content": "gAAA"}, "compaction"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}, "file_id"),
        ({"role": "user", "content": [{"type": "next_years"}]}, "next_years"),
    ],
)
def test_what_has_no_word_here_is_named(item: relay.JSON, said: str) -> None:
    (dropped,) = parsed({"role": "user", "content": "Hi"}, item).dropped
    assert dropped.endswith(said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].id"),
        ({"input": None}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
    ],
)
def test_what_cannot_be_done_is_a_bad_request_with_its_place(body: relay.JSON, said: str) -> None:
    with pytest.raises(relay.BadRequest) as caught:
        R.parse_request(responses() | body)
    assert caught.value.message.startswith(said)


def test_a_request_is_put_together_from_answers_link_by_link() -> None:
    asked = [responses({"role": "user", "content": str(n)}) for n in range(3)]
    said = [[{"type": "message", "id": str(n), "role": "assistant"}] for n in range(3)]
    for n in (1, 2):
        asked[n]["previous_response_id"] = f"resp_{n - 1}"
    known = {f"resp_{n}": (asked[n], said[n]) for n in range(3)}
    whole = R.resolved(asked[2], known.get)
    items = [*asked[0]["input"], *said[0], *asked[1]["input"], *said[1], *asked[2]["input"]]
    assert whole == {"model": asked[2]["model"], "input": items}
    del known["resp_0"]  # then nothing is: half a conversation would be another one
    assert R.resolved(asked[2], known.get) is asked[2]
    known["resp_0"] = (asked[2], said[0])  # a ring
    assert R.resolved(asked[2], known.get) is asked[2]


def test_what_other_providers_keep_is_refused_with_what_to_do() -> None:
    with pytest.raises(relay.BadRequest, match="send the whole conversation in `input`"):
        parsed(previous_response_id="resp_1")


# Tools

FUNCTION = {"type": "function", "name": "read", "parameters": {"type": "object"}, "strict": False}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
CUSTOM = {"type": "custom", "name": "apply_patch", "description": "Patches.", "format": GRAMMAR}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools."}


def space(name: str, *tools: relay.JSON) -> relay.JSON:
    return {"type": "namespace", "name": name, "description": "", "tools": list(tools)}


def test_every_kind_of_tool_is_a_function_that_remembers_what_it_was() -> None:
    tools = parsed(
        tools=[
            FUNCTION,
            CUSTOM,
            SEARCH,
            {"type": "local_shell"},
            {"type": "shell"},
            {"type": "apply_patch"},
            space("agents", FUNCTION, CUSTOM),
            space("mcp__docs__", FUNCTION),
        ]
    ).tools
    assert [(tool.name, tool.form) for tool in tools] == [
        ("read", ""),
        ("apply_patch", "custom"),
        ("tool_search", "tool_search"),
        ("local_shell", "local_shell"),
        ("shell", "shell"),
        ("agents__read", "function@agents"),
        ("agents__apply_patch", "custom@agents"),
        ("mcp__docs__read", "function@mcp__docs__"),
    ]
    for tool in tools:
        assert relay.rooted(tool.schema)["type"] == "object"


def test_a_grammar_is_said_in_the_description() -> None:
    (tool,) = parsed(tools=[CUSTOM]).tools
    assert tool.description.startswith("Patches.")
    assert GRAMMAR["definition"] in tool.description
    assert "lark" in tool.description
    assert list(tool.schema["properties"]) == tool.schema["required"] == ["input"]


def test_what_runs_at_openai_is_named() -> None:
    request = parsed(
        tools=[FUNCTION, {"type": "web_search", "external_web_access": False}, {"type": "mcp"}]
    )
    assert [tool.name for tool in request.tools] == ["read"]
    assert set(request.dropped) == {"tools[].web_search", "tools[].mcp"}


def test_tools_found_later_join_in_the_order_of_their_first_sight() -> None:
    later = {"type": "additional_tools", "role": "developer", "tools": [space("late", FUNCTION)]}
    found = {
        "type": "tool_search_output",
        "call_id": "c",
        "execution": "client",
        "tools": [FUNCTION, space("agents", FUNCTION)],
    }
    request = parsed(later, {"role": "user", "content": "Hi"}, found, tools=[FUNCTION])
    assert [tool.name for tool in request.tools] == ["read", "late__read", "agents__read"]
    result = request.messages[-1].parts[0]
    assert result == ToolResult("c", (Text("Found: read, agents__read"),))


CHOICES: list[tuple[Any, relay.ToolChoice | None]] = [
    (None, None),
    ("auto", relay.ToolChoice("auto")),
    ("none", relay.ToolChoice("none")),
    ("required", relay.ToolChoice("required")),
    ({"type": "function", "name": "read"}, relay.ToolChoice("named", ("read",))),
    ({"type": "custom", "name": "apply_patch"}, relay.ToolChoice("named", ("apply_patch",))),
    ({"type": "local_shell"}, relay.ToolChoice("named", ("local_shell",))),
    (
        {"type": "allowed_tools", "mode": "required", "tools": [FUNCTION, CUSTOM]},
        relay.ToolChoice("required", ("read", "apply_patch")),
    ),
]


@pytest.mark.parametrize(("said", "choice"), CHOICES)
def test_a_choice_of_tools_is_read(said: Any, choice: relay.ToolChoice | None) -> None:
    assert parsed(tools=[FUNCTION, CUSTOM], tool_choice=said).tool_choice == choice


@pytest.mark.parametrize(
    ("effort", "thinking"),
    [
        (None, None),
        ("none", relay.Thinking(False)),
        ("high", relay.Thinking(True, "high")),
    ],
)
def test_an_effort_is_read(effort: str | None, thinking: relay.Thinking | None) -> None:
    request = parsed(reasoning={"effort": effort, "summary": "auto"})
    assert request.thinking == thinking
    assert request.dropped == ()


# A request, written


def test_results_come_before_what_else_was_said() -> None:
    body = rendered(
        HI,
        Message("assistant", (Text("Go."), ToolCall("a", "n", "{}"), ToolCall("b", "n", ""))),
        Message("user", (ToolResult("a", (Text("A"),)), ToolResult("b"), Text("And now?"))),
    )
    assert body["input"][1:] == [
        {"type": "message", "role": "assistant", "content": "Go."},
        {"type": "function_call", "call_id": "a", "name": "n", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "n", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "A"},
        {"type": "function_call_output", "call_id": "b", "output": "(no output)"},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "And now?"}],
        },
    ]


def test_a_failed_call_says_so_in_words() -> None:
    result = ToolResult("a", (Text("no such file"),), True)
    body = rendered(Message("assistant", (ToolCall("a", "n"),)), Message("user", (result,)))
    assert body["input"][-1]["output"] == "Error: no such file"


def test_a_picture_in_a_result_is_a_part_of_it() -> None:
    result = ToolResult("a", (Text("see"), Media("image", "image/png", PNG)))
    body = rendered(Message("assistant", (ToolCall("a", "n"),)), Message("user", (result,)))
    assert body["input"][-1]["output"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": PNG_URL, "detail": "auto"},
    ]


def test_nothing_is_kept_at_the_provider_and_reasoning_comes_back() -> None:
    body = rendered(HI)
    assert (body["store"], body["include"]) == (False, ["reasoning.encrypted_content"])


@pytest.mark.parametrize(("asked", "said"), [(5, 16), (16, 16), (4000, 4000)])
def test_there_is_a_least_room_for_an_answer(asked: int, said: int) -> None:
    assert rendered(HI, max_tokens=asked)["max_output_tokens"] == said


@pytest.mark.parametrize(
    ("how", "asked", "said"),
    [
        ("as_is", None, False),
        ("as_is", True, True),
        ("false", True, False),
        ("drop", True, None),
    ],
)
def test_strict_is_never_left_to_the_provider(how: Any, asked: Any, said: Any) -> None:
    """Left out it means "try", and every property of a schema becomes required."""
    body = rendered(
        HI, tools=(Tool("t", strict=asked),), quirks=relay.ResponsesQuirks(tool_strict=how)
    )
    assert body["tools"][0].get("strict") is said


def test_a_beginning_of_an_answer_cannot_be_gone_on_with() -> None:
    request = Request(model="m", messages=(HI, Message("assistant", (Text("{"),))))
    out = R.render_request(request, relay.ResponsesQuirks(), ACCOUNT)
    assert len(out.body["input"]) == 1
    assert "prefill" in out.dropped


def test_what_reasoning_models_refuse_is_dropped_and_said() -> None:
    quirks = relay.PRESETS["openai"].quirks["responses"]
    request = Request(model="m", messages=(HI,), sampling=relay.Sampling(0.2, 0.9, 5, 7))
    out = R.render_request(request, quirks, ACCOUNT)
    assert {"temperature", "top_p", "top_k", "seed"} <= set(out.dropped)
    assert not {"temperature", "top_p"} & out.body.keys()


def test_a_system_message_in_the_middle_keeps_its_place() -> None:
    head = Message("system", (Text("You are."),))
    body = rendered(head, HI, Message("system", (Text("Be brief."),)), HI)
    assert body["instructions"] == "You are."
    assert [item["role"] for item in body["input"]] == ["user", "developer", "user"]


def test_request_n_is_a_prefix_of_request_n_plus_1() -> None:
    turns = [
        HI,
        Message("assistant", (Reasoning("Hm.", Seal("re", "rs_1 gAAA", ACCOUNT)), Text("Go."))),
        Message("user", (Text("On."),)),
        Message("assistant", (ToolCall("a", "n", "{}"),)),
        Message("user", (ToolResult("a", (Text("A"),)),)),
    ]
    bodies = [rendered(*turns[:count]) for count in (1, 3, 5)]
    for before, after in itertools.pairwise(bodies):
        count = len(before["input"])
        assert relay.dumps(after["input"][:count]) == relay.dumps(before["input"])


# Reasoning and its seals

SEALED = Reasoning("Hm.", Seal("re", "rs_1 gAAA", ACCOUNT))
NATIVE = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Hm."}],
    "encrypted_content": "gAAA",
}
PLAIN = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}
UNSIGNED = relay.ResponsesQuirks(unsigned=True)


@pytest.mark.parametrize(
    ("thought", "quirks", "said"),
    [
        (SEALED, None, NATIVE),
        (relay.replace(SEALED, text=""), None, NATIVE | {"summary": []}),
        (Reasoning("Hm.", Seal("re", "rs_1 gAAA")), None, NATIVE),  # of a direct session
        (Reasoning("Hm.", Seal("re", "rs_1 ", ACCOUNT)), None, PLAIN),  # was never encrypted
        (Reasoning("Hm.", Seal("re", "rs_1 gAAA", OTHER)), None, None),
        (Reasoning("Hm.", Seal("as", "EqAB", ACCOUNT)), None, None),
        (Reasoning("Hm."), None, None),
    ],
)
def test_reasoning_goes_back_to_who_sealed_it(
    thought: Reasoning, quirks: Any, said: relay.JSON | None
) -> None:
    body = rendered(HI, Message("assistant", (thought, Text("x"))), HI, quirks=quirks)
    assert body["input"][1:-2] == ([said] if said else [])


def test_where_it_is_wanted_everybodys_reasoning_goes_back() -> None:
    for thought in (Reasoning("Hm."), Reasoning("Hm.", Seal("as", "EqAB", OTHER))):
        body = rendered(HI, Message("assistant", (thought, Text("x"))), HI, quirks=UNSIGNED)
        assert body["input"][1]["content"] == PLAIN["content"]
        assert body["input"][1]["id"].startswith("rs_")


def test_reasoning_that_led_to_nothing_does_not_go_back() -> None:
    """ "... was provided without its required following item"."""
    body = rendered(HI, Message("assistant", (Text("x"), SEALED)), HI)
    assert [item["type"] for item in body["input"]] == ["message"] * 3


def test_a_placeholder_stands_where_reasoning_is_missing() -> None:
    quirks = relay.PRESETS["deepseek"].quirks["responses"]
    body = rendered(HI, Message("assistant", (ToolCall("a", "n"),)), HI, quirks=quirks)
    kinds = [item["type"] for item in body["input"]]
    assert kinds == ["message", "reasoning", "function_call", "message"]


def cleaned(*items: relay.JSON, strip: bool = False, quirks: Any = None) -> Any:
    body = {"model": "m", "input": list(items)}
    out = R.cleaned(body, quirks or relay.ResponsesQuirks(), ACCOUNT, strip)
    return body is out or out["input"]


def kept(seal: Seal) -> relay.JSON:
    """A reasoning item as a client has it back from relay."""
    return NATIVE | {"id": "rs_relay", "encrypted_content": relay.enveloped(seal)}


def test_what_passes_through_is_edited_only_where_it_must_be() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}
    assert cleaned(NATIVE, call, {"role": "user", "content": "Hi"}) is True
    assert R.cleaned({"model": "m", "input": "Hi"}, UNSIGNED, ACCOUNT, True)["input"] == "Hi"


def test_an_envelope_is_opened_for_its_own_account_alone() -> None:
    assert cleaned(kept(Seal("re", "rs_1 gAAA", ACCOUNT))) == [NATIVE]
    assert cleaned(kept(Seal("re", "rs_1 gAAA"))) == [NATIVE]
    assert cleaned(kept(Seal("re", "rs_1 gAAA", OTHER))) == []
    assert cleaned(kept(Seal("as", "EqAB", ACCOUNT))) == []
    assert cleaned(kept(Seal("re"))) == []
    (plain,) = cleaned(kept(Seal("as", "EqAB", OTHER)), quirks=UNSIGNED)
    assert plain["content"] == PLAIN["content"]


def test_stripped_a_body_holds_no_reasoning() -> None:
    hi = {"role": "user", "content": "Hi"}
    assert cleaned(NATIVE, hi, kept(Seal("re", "rs_1 gAAA", ACCOUNT)), strip=True) == [hi]


def test_reasoning_of_another_maker_comes_back_to_it_through_a_client() -> None:
    """Anthropic's signature in the client's own opaque slot, there and back."""
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"}
    wire = relay.dumps(
        {
            "type": "message",
            "id": "msg_1",
            "model": "m",
            "content": [thinking, text("Hi")],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
    )
    answer = relay.loads(piped(relay.Gathered(passage(A, R)), [wire]))
    thought, _ = answer["output"]
    request = R.parse_request(responses(*answer["output"], {"role": "user", "content": "On."}))
    quirks = relay.AnthropicQuirks(signed=True)
    back = A.render_request(relay.replace(request, max_tokens=9), quirks, ACCOUNT).body
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert back["messages"][1]["content"][0] == thinking
    other = A.render_request(relay.replace(request, max_tokens=9), quirks, OTHER).body
    assert "EqAB" not in json.dumps(other)


# Answers in the form the tools were offered in

FORMS = {
    "apply_patch": "custom",
    "agents__read": "function@agents",
    "mcp__docs__read": "function@mcp__docs__",
    "functions__exec": "custom@functions",
    "local_shell": "local_shell",
    "tool_search": "tool_search",
}


def called(name: str, *arguments: str) -> list[relay.JSON]:
    """The events of one call by a chat provider, for a client that offered it in its form."""
    pieces = [fragment(0, "", "call_1", name), *(fragment(0, piece) for piece in arguments)]
    stream = chat_stream(*map(calls, pieces), finish="tool_calls")
    out = events(through(C, R, stream, forms=FORMS))
    assert [event["sequence_number"] for event in out] == list(range(len(out)))
    return out


def item_of(out: Sequence[relay.JSON]) -> relay.JSON:
    (done,) = [e["item"] for e in out if e["type"] == "response.output_item.done"]
    (added,) = [e["item"] for e in out if e["type"] == "response.output_item.added"]
    assert added["id"] == done["id"]
    assert out[-1]["response"]["output"] == [done]
    return {name: value for name, value in done.items() if name not in ("id", "status")}


def test_a_namespaced_call_comes_back_with_its_namespace() -> None:
    """Checklist 47."""
    call = {"type": "function_call", "call_id": "call_1", "name": "read", "arguments": "{}"}
    assert item_of(called("agents__read", "{}")) == call | {"namespace": "agents"}
    assert item_of(called("mcp__docs__read", "{}")) == call | {"namespace": "mcp__docs__"}
    assert item_of(called("read", "{}")) == call


def test_calls_of_typed_tools_come_back_as_their_own_items() -> None:
    assert item_of(called("local_shell", '{"command":["ls"]}')) == {
        "type": "local_shell_call",
        "call_id": "call_1",
        "action": {"type": "exec", "command": ["ls"], "env": {}},
    }
    assert item_of(called("tool_search", '{"query":', '"x"}')) == {
        "type": "tool_search_call",
        "call_id": "call_1",
        "execution": "client",
        "arguments": {"query": "x"},
    }


def typed(out: Sequence[relay.JSON], part: str) -> list[relay.JSON]:
    return [event for event in out if event["type"] == f"response.custom_tool_call_input.{part}"]


PATCH = '*** Begin Patch\n+\t"\\é\U0001f680\u2028\x7f/\n*** End Patch'


@given(cuts=st.lists(st.integers(0, 90), max_size=8), escaped=st.booleans(), every=st.booleans())
def test_a_freeform_call_is_unwrapped_however_it_is_cut(
    cuts: list[int], escaped: bool, every: bool
) -> None:
    """Checklist 46."""
    wrapped = json.dumps({"input": PATCH}, ensure_ascii=escaped)
    at = range(len(wrapped)) if every else sorted(cuts)
    pieces = [wrapped[a:b] for a, b in itertools.pairwise([0, *at, len(wrapped)])]
    out = called("apply_patch", *pieces)
    assert item_of(out) == {
        "type": "custom_tool_call",
        "call_id": "call_1",
        "name": "apply_patch",
        "input": PATCH,
    }
    assert "".join(event["delta"] for event in typed(out, "delta")) == PATCH
    assert [event["input"] for event in typed(out, "done")] == [PATCH]
    assert not any("\ud800" <= c <= "\udfff" for e in typed(out, "delta") for c in e["delta"])


def test_a_freeform_call_streams() -> None:
    out = called("functions__exec", '{"input": "a', "b", "c", '"}')
    assert [event["delta"] for event in typed(out, "delta")] == ["a", "b", "c"]
    assert item_of(out)["namespace"] == "functions"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"patch": "x"}', "x"),  # another name
        ('{"a": 1, "input": "x"}', "x"),
        ('{"input": "\\ud83d"}', "\ud83d"),
        ('{"input": ""}', ""),
        ('{"input": "x", "reason": "y"}', "x"),
    ],
)
def test_a_freeform_call_is_read_as_it_was_meant(arguments: str, text: str) -> None:
    out = called("apply_patch", arguments)
    assert item_of(out)["input"] == text
    assert "".join(event["delta"] for event in typed(out, "delta")) == text


def test_a_freeform_call_that_is_no_json_is_its_text() -> None:
    reader = relay.FreeText()
    bare = "*** Begin Patch\n" * 9
    assert "".join(map(reader.feed, bare)) == ""
    assert reader.rest(bare) == bare


@pytest.mark.parametrize("end", ["", '"', '"}', "\\n"])
def test_a_freeform_call_whose_input_is_not_what_was_sent_is_not_ended(end: str) -> None:
    """An escape that JSON does not know: what stands before it is half a script."""
    arguments = '{"input": "ab\\d and more of it' + end
    reader = relay.FreeText()
    assert "".join(map(reader.feed, arguments)) == "ab"
    assert reader.rest(arguments) is None
    stream = chat_stream(calls(fragment(0, arguments + "}", "call_1", "exec")), finish="tool_calls")
    for client, done in ((R, "output_item.done"), (C, '"tool_calls","logprobs"')):
        way = relay.AnswerPath(
            C, client, relay.AnswerContext("m", "r", forms={"exec": "custom"}), {"x": "x"}
        )
        out = piped(relay.Streamed(way), [stream]).decode()
        assert done not in out
        assert '"length"' in out or "response.incomplete" in out
        whole = piped(relay.Gathered(way), [stream]).decode()
        assert '"ab' not in whole


def test_a_freeform_call_may_hold_line_breaks_as_they_are() -> None:
    arguments = '{"input": "a\nb"}'
    reader = relay.FreeText()
    told = "".join(map(reader.feed, arguments))
    assert f"{told}{reader.rest(arguments)}" == "a\nb"


def test_a_call_that_was_cut_off_is_not_complete() -> None:
    """Codex runs an item that is done, whatever its status: so none is said to be."""
    stream = chat_stream(calls(fragment(0, '{"a', "call_1", "read")), finish="length")
    *_, before, last = events(through(C, R, stream))
    assert before["type"] == "response.function_call_arguments.delta"
    assert last["type"] == "response.incomplete"
    assert last["response"]["output"] == []
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


# The stream


def test_the_last_event_says_what_was_said() -> None:
    stream = chat_stream(
        {"reasoning_content": "Hm."}, "Hi", calls(fragment(0, "{}", "c", "read")), finish="stop"
    )
    out = events(through(C, R, stream))
    done = [e["item"] for e in out if e["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call"]
    last = out[-1]["response"]
    assert (last["output"], last["status"]) == (done, "completed")
    assert [e["response"]["id"] for e in (out[0], out[1], out[-1])] == [last["id"]] * 3
    assert len({item["id"] for item in done}) == 3
    assert all(len(item["id"]) <= 64 for item in done)
    assert out == events(through(C, R, stream))


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (relay.Failure("x", cause="too_long"), "context_length_exceeded"),
        (relay.Failure("x", cause="rate_limited"), "rate_limit_exceeded"),
        (relay.Failure("x", cause="overloaded"), "server_error"),
        (relay.Failure("x", cause="transient"), "server_error"),
        (relay.Failure("x", "context_length_exceeded"), "context_length_exceeded"),
        (relay.Failure("x", "insufficient_quota"), "insufficient_quota"),
        (relay.Failure("x", "server_is_overloaded"), "server_error"),
    ],
)
def test_codex_is_told_what_failed_in_words_it_knows(failure: relay.Failure, code: str) -> None:
    """server_is_overloaded would be the end of its session: CLIENTS.md 7 no. 13."""
    encoder = R.encoder(ASKED)
    encoder.encode(relay.Start("x"))
    (event,) = events(encoder.encode(failure))
    assert event["type"] == "response.failed"
    assert event["response"]["status"] == "failed"
    assert event["response"]["error"]["code"] == code


def test_codex_is_told_when_to_try_again() -> None:
    error = relay.UpstreamError("rate_limited", "slow down", retry_after=1.5)
    (event,) = events(R.encoder(ASKED).failed(error))
    assert "try again in 2s" in event["response"]["error"]["message"]


def test_a_refusal_is_a_part_of_its_own() -> None:
    answer = relay.Response("x", "m", (Text("I can"),), "content_filter", detail="Because.")
    wire = R.render_response(answer, ASKED)
    said, refused = (item["content"][0] for item in wire["output"])
    assert (said["text"], refused["refusal"]) == ("I can", "Because.")
    assert (wire["status"], wire["incomplete_details"]["reason"]) == (
        "incomplete",
        "content_filter",
    )
    told = relay.replace(answer, parts=(Text("Because."),))
    assert len(R.render_response(told, ASKED)["output"]) == 1


# Compaction

TRIGGER = {"type": "compaction_trigger"}


def test_a_compaction_is_known_by_its_path_or_its_last_item() -> None:
    compact = "/v1/responses/compact?x=1"
    assert R.peek(responses(), compact).variant == "compact"
    assert R.peek(responses(), "/v1/responses").variant == ""
    assert R.peek(responses(TRIGGER), "/v1/responses").variant == "trigger"
    assert R.address("https://h/v1/responses", "m", False, "compact").endswith("/responses/compact")
    assert R.address("https://h/v1/responses", "m", True, "trigger") == "https://h/v1/responses"


@pytest.mark.parametrize("variant", ["compact", "trigger"])
def test_elsewhere_the_model_is_asked_for_a_summary(variant: str) -> None:
    body = responses({"role": "user", "content": "Hi"}, TRIGGER, tools=[FUNCTION])
    request = R.parse_request(body, variant)
    assert request.messages[0] == HI
    assert request.messages[1].role == "user"
    assert [tool.name for tool in request.tools] == ["read"]  # the prefix stays
    assert request.tool_choice == relay.ToolChoice("none")


def test_a_summary_comes_as_one_item_and_is_read_back() -> None:
    """Checklist 32."""
    stream = chat_stream({"reasoning_content": "Hm."}, "We did ", "this.", finish="stop")
    out = events(through(C, R, stream, variant="trigger"))
    (item,) = [e["item"] for e in out if e["type"] == "response.output_item.done"]
    assert item["type"] == "compaction"
    assert out[-1]["response"]["output"] == [item]
    assert [event["sequence_number"] for event in out] == list(range(len(out)))
    (again, _) = parsed(item, {"role": "user", "content": "Go on."}).messages
    assert again.role == "user"
    (said,) = again.parts
    assert isinstance(said, Text)
    assert said.text.endswith("We did this.")
    (message,) = cleaned(item)  # at a provider that speaks Responses it is a message too
    assert message["content"] == [{"type": "input_text", "text": said.text}]


def test_the_compact_endpoint_has_an_answer_of_its_own() -> None:
    answer = relay.Response("x", "m", (Text("We did this."),), "stop", relay.Usage(9, 5))
    wire = R.render_response(answer, ASKED._replace(variant="compact"))
    assert (wire["object"], [item["type"] for item in wire["output"]]) == (
        "response.compaction",
        ["compaction"],
    )
    assert R.claims(wire)
    assert R.is_answer(wire)


def test_a_summary_that_was_not_written_is_a_failure() -> None:
    """Else the conversation would be forgotten."""
    stream = chat_stream(finish="stop")
    (_, _, last) = events(through(C, R, stream, variant="trigger"))
    assert last["type"] == "response.failed"


# Counting


def test_tokens_are_counted_beside_what_is_asked() -> None:
    assert R.counting("https://h/v1/responses?v=1") == "https://h/v1/responses/input_tokens?v=1"
    assert R.render_count(7) == {"object": "response.input_tokens", "input_tokens": 7}
    assert R.parse_count(R.render_count(7)) == 7
    assert R.serves("/responses/input_tokens") == "count"
    assert R.serves("/responses/compact") == R.serves("/responses") == "answer"


def test_what_a_provider_says_is_what_a_client_of_it_hears() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    stream = responses_stream(thought, output_text("Hi"))
    pipe = relay.Streamed(passage(R, R))
    assert piped(pipe, [stream]) == stream
    assert (pipe.translated, pipe.failure) == (False, None)
