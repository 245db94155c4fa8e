"""The checklist of PROTOCOLS.md 4, as far as it concerns OpenAI Responses; by its numbers.

What it says of a Responses client or provider alone is in test_responses.py under the same words.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from laws.strategies import ACCOUNT, PNG, carried, passage, piped
from unit.wires import (
    A,
    C,
    G,
    R,
    anthropic,
    anthropic_stream,
    assistant,
    calls,
    chat,
    chat_stream,
    events,
    fragment,
    message_of,
    output_text,
    responses,
    responses_stream,
    result,
    stop_of,
    text,
    through,
    tool,
    use,
    user,
)

import relay

IMAGE = {"type": "base64", "media_type": "image/png", "data": PNG}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "name": "read", "parameters": SCHEMA, "strict": False}


def a_to_r(**body: Any) -> relay.JSON:
    return carried(anthropic(**body), A, R).body


def r_to_c(*items: relay.JSON, quirks: Any = None, **body: Any) -> relay.JSON:
    return carried(responses(*items, **body), R, C, quirks).body


def r_to_a(*items: relay.JSON, **body: Any) -> relay.JSON:
    return carried(responses(*items, **body), R, A).body


def call(id: str, name: str = "read") -> relay.JSON:
    return {"type": "function_call", "call_id": id, "name": name, "arguments": "{}"}


def output(id: str, said: Any = "ok") -> relay.JSON:
    return {"type": "function_call_output", "call_id": id, "output": said}


def hi(said: str = "Hi") -> relay.JSON:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}


def kinds(body: relay.JSON) -> list[str]:
    return [item.get("role") or item["type"] for item in body["input"]]


# Requests


def test_checklist_01_results_come_in_the_calls_order() -> None:
    history = [
        user("Go"),
        assistant(use("a"), use("b")),
        user("and now", result("b", "B"), result("a", "A")),
    ]
    body = a_to_r(messages=history)
    said = [(item["call_id"], item["output"]) for item in body["input"] if "output" in item]
    assert said == [("a", "A"), ("b", "B")]
    assert kinds(body)[-1] == "user"


def test_checklist_02_a_picture_in_a_result_stays_in_it() -> None:
    picture = {"type": "image", "source": IMAGE}
    history = [user("Go"), assistant(use("a")), user(result("a", [text("see"), picture]))]
    (said,) = [item for item in a_to_r(messages=history)["input"] if "output" in item]
    assert said["output"][0] == {"type": "input_text", "text": "see"}
    assert said["output"][1]["image_url"] == f"data:image/png;base64,{PNG}"
    assert PNG not in json.dumps(said["output"][0])


def test_checklist_02_a_picture_of_codexs_view_image_reaches_every_provider() -> None:
    shown = output("c", [{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}])
    there = r_to_a(hi(), call("c"), shown)["messages"][-1]["content"][0]
    assert there["content"] == [{"type": "image", "source": IMAGE}]
    *_, tool_message, following = r_to_c(hi(), call("c"), shown)["messages"]
    assert PNG not in json.dumps(tool_message)
    assert following["content"][1]["image_url"]["url"].endswith(PNG)


def test_checklist_03_a_result_without_its_call_is_kept_as_text() -> None:
    body = a_to_r(messages=[user("Go"), assistant("Hm."), user(result("gone", "kept"))])
    assert "function_call_output" not in kinds(body)
    assert "kept" in json.dumps(body["input"][-1])


def test_checklist_04_a_call_without_a_result_gets_one() -> None:
    body = a_to_r(messages=[user("Go"), assistant(use("a")), user("and now")])
    assert kinds(body) == ["user", "function_call", "function_call_output", "user"]
    assert body["input"][2]["output"].startswith("Error:")


def test_checklist_05_ids_fit_and_stay_the_same() -> None:
    long = "functions.write:0" * 9
    history = [user("Go"), assistant(use(long)), user(result(long, "ok"))]
    first, second = (a_to_r(messages=history) for _ in range(2))
    there, back = (item["call_id"] for item in first["input"][1:])
    assert there == back
    assert len(there) <= 64
    assert first == second


def test_checklist_07_the_billing_block_is_not_passed_on() -> None:
    def body(cch: str) -> relay.JSON:
        billing = text(f"x-anthropic-billing-header: cc_version=2; cch={cch};")
        return a_to_r(system=[billing, text("You are Claude Code.")])

    assert body("00a1b") == body("ffe22")
    assert body("1")["instructions"] == "You are Claude Code."


def test_checklist_08_a_system_message_in_the_middle_stays_where_it_is() -> None:
    history = [user("One"), assistant("1"), user("Two"), {"role": "system", "content": "Be brief."}]
    following = [*history, assistant("2"), user("Three")]
    first, second = (a_to_r(messages=said)["input"] for said in (history, following))
    assert first[-1]["role"] == "developer"
    assert relay.dumps(second[: len(first)]) == relay.dumps(first)


@pytest.mark.parametrize(("asked", "said"), [(None, False), (False, False), (True, True)])
def test_checklist_09_strict_is_always_said(asked: bool | None, said: bool) -> None:
    tool = {"name": "t", "input_schema": SCHEMA} | ({} if asked is None else {"strict": asked})
    assert a_to_r(tools=[tool])["tools"][0]["strict"] is said


def test_checklist_09_strict_of_tools_in_namespaces_too() -> None:
    inner = [FUNCTION, FUNCTION | {"name": "write", "strict": True}]
    tools = r_to_c(tools=[{"type": "namespace", "name": "ns", "tools": inner}])["tools"]
    assert [t["function"].get("strict") for t in tools] == [None, True]


@pytest.mark.parametrize("schema", [{}, {"type": "object"}])
def test_checklist_11_a_schema_always_has_a_type_and_properties(schema: Any) -> None:
    body = a_to_r(tools=[{"name": "t", "input_schema": schema}])
    assert body["tools"][0]["parameters"] == {"type": "object", "properties": {}}


def test_checklist_18_sealed_reasoning_returns_to_its_maker_alone() -> None:
    """Through a client of Anthropic's dialect; through Codex see test_responses.py."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    whole = {"id": "resp_1", "object": "response", "status": "completed", "output": [thought]}
    answer = relay.loads(piped(relay.Gathered(passage(R, A)), [relay.dumps(whole)]))
    assert "gAAA" not in json.dumps(answer)
    history = [user("Go"), {"role": "assistant", "content": [*answer["content"], text("x")]}]
    request = A.parse_request(anthropic(messages=[*history, user("On")]))
    own = R.render_request(request, relay.ResponsesQuirks(), ACCOUNT).body["input"]
    assert own[1] == thought
    other = R.render_request(request, relay.ResponsesQuirks(), "99999999").body["input"]
    assert kinds({"input": other}) == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "enabled", "budget_tokens": 10_000}, "medium"),
        ({"type": "disabled"}, "none"),
        ({"type": "adaptive"}, None),
    ],
)
def test_checklist_19_a_budget_is_an_effort(thinking: relay.JSON, effort: str | None) -> None:
    said = a_to_r(thinking=thinking, max_tokens=20_000).get("reasoning", {})
    assert said.get("effort") == effort


def test_checklist_22_there_is_a_least_room_and_a_made_up_one() -> None:
    assert a_to_r(max_tokens=5)["max_output_tokens"] == 16
    assert r_to_a(hi())["max_tokens"] > 0


def test_checklist_23_a_schema_for_the_answer_is_flat_here() -> None:
    inner = {"name": "weather", "schema": SCHEMA, "strict": True}
    flat = {"type": "json_schema", **inner}
    asked = {"type": "json_schema", "json_schema": inner}
    assert carried(chat(response_format=asked), C, R).body["text"]["format"] == flat
    assert r_to_c(hi(), text={"format": flat})["response_format"] == asked
    assert r_to_a(hi(), text={"format": flat})["output_config"]["format"]["type"] == "json_schema"
    any_object = {"type": "json_object"}
    assert carried(chat(response_format=any_object), C, R).body["text"]["format"] == any_object


CHOICES: list[tuple[Any, Any, Any]] = [
    ("auto", {"type": "auto"}, "auto"),
    ("none", {"type": "none"}, "none"),
    ("required", {"type": "any"}, "required"),
    (
        {"type": "function", "name": "read"},
        {"type": "tool", "name": "read"},
        {"type": "function", "function": {"name": "read"}},
    ),
]


@pytest.mark.parametrize(("said", "anthropics", "chats"), CHOICES)
def test_checklist_24_every_choice_has_its_counterpart(
    said: Any, anthropics: Any, chats: Any
) -> None:
    tools = [FUNCTION]
    assert r_to_a(hi(), tools=tools, tool_choice=said)["tool_choice"] == anthropics
    assert r_to_c(hi(), tools=tools, tool_choice=said)["tool_choice"] == chats
    asked = {"name": "read", "input_schema": SCHEMA}
    assert a_to_r(tools=[asked], tool_choice=anthropics)["tool_choice"] == said


def test_checklist_24_parallel_calls_can_be_switched_off() -> None:
    body = r_to_a(hi(), tools=[FUNCTION], parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert r_to_c(hi(), tools=[FUNCTION], parallel_tool_calls=False)["parallel_tool_calls"] is False


def test_checklist_24_an_allowed_subset_has_its_own_word() -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "t"}}]}
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "tu"]
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    assert carried(chat(tools=tools, tool_choice=choice), C, R).body["tool_choice"] == {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "t"}],
    }


def test_checklist_25_documents_and_sounds_have_their_parts() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}
    note = {"type": "text", "media_type": "text/plain", "data": "A note."}
    said = [{"type": "document", "source": source} for source in (pdf, note)]
    (item,) = a_to_r(messages=[user(*said)])["input"]
    assert item["content"][0]["filename"]
    assert item["content"][0]["file_data"] == "data:application/pdf;base64,JVBERi0xLjQK"
    assert "A note." in item["content"][1]["text"]
    sound = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
    there = carried(chat(messages=[user(sound)]), C, R).body
    assert there["input"][0]["content"] == [sound]


@pytest.mark.parametrize(
    ("said", "chats"), [("low", "low"), ("high", "high"), ("original", "high"), ("auto", None)]
)
def test_checklist_25_how_closely_to_look_is_said_by_openais_formats(said: str, chats: Any) -> None:
    picture = {"type": "input_image", "image_url": "https://a/b.png", "detail": said}
    asked = {"role": "user", "content": [picture]}
    image = r_to_c(asked)["messages"][0]["content"][0]["image_url"]
    assert image == {"url": "https://a/b.png"} | ({"detail": chats} if chats else {})
    part = {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": said}}
    there = carried(chat(user(part)), C, R).body["input"][0]["content"]
    assert there == [picture]
    assert ("detail" in carried(responses(asked), R, A).dropped) is (said != "auto")


@pytest.mark.parametrize(
    ("mime", "format"), [("audio/mpeg", "mp3"), ("audio/x-wav", "wav"), ("audio/mp3", "mp3")]
)
def test_checklist_25_sounds_have_the_formats_that_openai_knows(mime: str, format: str) -> None:
    parts = [{"inlineData": {"mimeType": mime, "data": "UklG"}}]
    body = {"contents": [{"role": "user", "parts": parts}]}
    sound = {"type": "input_audio", "input_audio": {"data": "UklG", "format": format}}
    assert carried(body, G, C).body["messages"][0]["content"] == [sound]
    assert carried(body, G, R).body["input"][0]["content"] == [sound]


def test_checklist_25_a_text_in_a_file_is_a_text() -> None:
    """Anthropic takes base64 of nothing but PDF."""
    file = {"filename": "a.txt", "file_data": "data:text/plain;base64,SGk="}
    there = carried(chat(user({"type": "file", "file": file})), C, A).body
    (block,) = there["messages"][0]["content"]
    assert block["source"] == {"type": "text", "media_type": "text/plain", "data": "Hi"}


def test_checklist_28_items_are_grouped_into_turns() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"text": "Hm."}]}
    body = r_to_c(
        hi(),
        thought,
        output_text("Go."),
        call("a"),
        call("b"),
        output("b", "B"),
        output("a", "A"),
        hi("and now"),
        quirks=relay.ChatQuirks(replay="always"),
    )
    _, said, *results, last = body["messages"]
    assert [c["id"] for c in said["tool_calls"]] == ["a", "b"]
    assert (said["content"], said["reasoning_content"]) == ("Go.", "Hm.")
    assert [(r["tool_call_id"], r["content"]) for r in results] == [("a", "A"), ("b", "B")]
    assert last == {"role": "user", "content": "and now"}


def test_checklist_29_tools_are_offered_once() -> None:
    more = {"type": "additional_tools", "role": "developer", "tools": [FUNCTION, FUNCTION]}
    space = {"type": "namespace", "name": "ns", "tools": [FUNCTION]}
    body = r_to_c(more, hi(), more, tools=[FUNCTION, space])
    assert [t["function"]["name"] for t in body["tools"]] == ["read", "ns__read"]


def test_checklist_30_a_freeform_tool_is_wrapped_in_the_history_too() -> None:
    patch = {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "a\n"}
    done = {"type": "custom_tool_call_output", "call_id": "c", "output": "Done."}
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: x"}
    offered = {"type": "custom", "name": "apply_patch", "format": grammar}
    body = r_to_c(hi(), patch, done, tools=[offered])
    (function,) = (t["function"] for t in body["tools"])
    assert function["parameters"]["required"] == ["input"]
    (there,) = body["messages"][1]["tool_calls"]
    assert json.loads(there["function"]["arguments"]) == {"input": "a\n"}
    assert body["messages"][2] == tool("c", "Done.")


def test_checklist_31_state_of_another_provider_is_a_400_that_says_so() -> None:
    for body in ({"previous_response_id": "resp_1"}, {"input": [{"type": "item_reference"}]}):
        with pytest.raises(relay.BadRequest) as caught:
            R.parse_request(responses() | body)
        assert caught.value.status == 400
        assert "another" in caught.value.message or "input" in caught.value.message


# Answers


def done(out: bytes) -> list[relay.JSON]:
    return [e["item"] for e in events(out) if e["type"] == "response.output_item.done"]


def test_checklist_35_interleaved_calls_become_one_item_after_the_other() -> None:
    pieces = [fragment(0, "", "a", "read"), fragment(1, "", "b", "read")]
    pieces += [fragment(i, p) for p in ('{"x"', ":1}") for i in (0, 1)]
    out = through(C, R, chat_stream(*map(calls, pieces), finish="tool_calls"))
    assert [(i["call_id"], i["arguments"]) for i in done(out)] == [
        ("a", '{"x":1}'),
        ("b", '{"x":1}'),
    ]
    added = [e["output_index"] for e in events(out) if e["type"].endswith("item.added")]
    assert added == [0, 1]


def test_checklist_36_two_calls_in_one_chunk_are_two_items() -> None:
    both = calls(fragment(0, "{}", "a", "read"), fragment(1, "{}", "b", "read"))
    assert len(done(through(C, R, chat_stream(both, finish="tool_calls")))) == 2


def test_checklist_38_a_turn_with_calls_is_completed() -> None:
    out = through(C, R, chat_stream(calls(fragment(0, "{}", "a", "read")), finish="stop"))
    assert events(out)[-1]["response"]["status"] == "completed"
    item = call("a") | {"id": "fc_1", "arguments": "{}"}
    assert stop_of(through(R, A, responses_stream(item))) == "tool_use"
    assert stop_of(through(R, C, responses_stream(item))) == "tool_calls"
    assert stop_of(through(R, C, responses_stream(output_text("Hi")))) == "stop"


def test_checklist_41_cached_tokens_are_counted_once() -> None:
    counts = {"input_tokens": 1045, "input_tokens_details": {"cached_tokens": 1024}}
    stream = responses_stream(output_text("Hi"), usage=counts | {"output_tokens": 57})
    (delta,) = [e for e in events(through(R, A, stream)) if e["type"] == "message_delta"]
    assert delta["usage"]["input_tokens"] == 21
    assert delta["usage"]["cache_read_input_tokens"] == 1024
    back = events(through(A, R, through(R, A, stream)))[-1]["response"]["usage"]
    assert (back["input_tokens"], back["output_tokens"], back["total_tokens"]) == (1045, 57, 1102)
    assert back["input_tokens_details"]["cached_tokens"] == 1024


def test_checklist_43_reasoning_text_and_calls_are_items_in_order() -> None:
    stream = chat_stream(
        {"reasoning_content": "Hm."}, "Go.", calls(fragment(0, "{}", "a", "read")), finish="stop"
    )
    assert [i["type"] for i in done(through(C, R, stream))] == [
        "reasoning",
        "message",
        "function_call",
    ]


def test_checklist_44_a_client_of_codexs_kind_gets_a_whole_story() -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"}
    stream = anthropic_stream(thinking, text("Go."), use("a"), stop="tool_use")
    out = events(through(A, R, stream))
    assert [event["sequence_number"] for event in out] == list(range(len(out)))
    assert [event["type"].removeprefix("response.") for event in out] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    items = [event["item"] for event in out if event["type"].endswith("item.done")]
    assert out[-1]["response"]["output"] == items
    named = {event["item_id"] for event in out if "item_id" in event}
    assert named == {item["id"] for item in items}
    usage = out[-1]["response"]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize("deltas", [True, False])
def test_checklist_45_arguments_are_said_once(deltas: bool) -> None:
    item = call("a") | {"id": "fc_1", "arguments": '{"x":1}'}
    stream = responses_stream(item)
    if not deltas:
        blocks = stream.split(b"\n\n")
        stream = b"\n\n".join(b for b in blocks if b"function_call_arguments.delta" not in b)
    message = message_of(through(R, C, stream))
    assert message["calls"] == [("a", "read", '{"x":1}')]


@pytest.mark.parametrize("client", [A, C, R], ids=lambda dialect: dialect.name)
def test_checklist_48_an_error_in_mid_stream_is_told_in_the_clients_words(
    client: relay.Dialect,
) -> None:
    whole = responses_stream(output_text("Hi"))
    cut = whole.index(b"\n\n", whole.index(b'"Hi"')) + 2
    failure = {"type": "error", "code": "server_error", "message": "boom"}
    failed = {
        "type": "response.failed",
        "response": {"status": "failed", "error": {"code": "server_error", "message": "boom"}},
    }
    for error in (failure, failed):
        out = through(R, client, whole[:cut] + relay.sse(error))
        assert b"boom" in out
        assert not any(end in out for end in (b"message_stop", b"[DONE]", b"response.completed"))


def test_checklist_48_an_error_in_mid_stream_is_a_failed_response_to_codex() -> None:
    stream = chat_stream("Hi", finish=None).replace(b"data: [DONE]\n\n", b"")
    out = events(through(C, R, stream + relay.sse({"error": {"message": "boom"}})))
    assert out[-1]["type"] == "response.failed"
    assert out[-1]["response"]["error"]["message"].endswith("boom")
    assert [event["type"] for event in out].count("response.completed") == 0


def test_checklist_53_a_limit_has_the_code_that_codex_waits_at() -> None:
    error = relay.UpstreamError("rate_limited", "slow down", retry_after=17)
    wire = R.render_error(error, "req_1")["error"]
    assert (R.status(error), wire["code"]) == (429, "rate_limit_exceeded")


def test_checklist_55_a_refusal_is_told_as_one() -> None:
    refusal = {"type": "refusal", "refusal": "I cannot."}
    item = {"type": "message", "role": "assistant", "content": [refusal]}
    message = message_of(through(R, C, responses_stream(item)))
    assert "I cannot." in (message.get("refusal"), message.get("content"))
    assert stop_of(through(R, C, responses_stream(item))) == "content_filter"
    assert stop_of(through(R, A, responses_stream(item))) == "refusal"
    out = events(through(C, R, chat_stream({"refusal": "I cannot."}, finish="stop")))
    assert out[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}


def test_checklist_59_a_pause_is_an_end_and_no_error() -> None:
    out = events(through(A, R, anthropic_stream(text("So far"), stop="pause_turn")))
    assert out[-1]["type"] == "response.completed"


def test_checklist_61_counting_counts_everything() -> None:
    few = relay.estimate(R.parse_request(responses(hi())))
    more = relay.estimate(
        R.parse_request(responses(hi(), tools=[FUNCTION], instructions="Be brief. " * 50))
    )
    assert more > few + 100


def test_checklist_62_the_model_list_is_openais() -> None:
    wire = R.render_models([relay.ModelInfo("glm-4.6", 200_000, 8192)])
    assert wire["object"] == "list"
    assert wire["data"][0]["id"] == "glm-4.6"
