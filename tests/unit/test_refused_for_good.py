"""What a provider refuses once it refuses with every later turn, because it stays in the history.

So it is mended on the way, and alike whether the request is translated or passes on.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from laws.strategies import ACCOUNT, carried
from unit.wires import (
    A,
    C,
    G,
    R,
    anthropic,
    assistant,
    called,
    chat,
    responses,
    result,
    text,
    tool,
    use,
    user,
)

import relay

NATIVE = relay.PRESETS["anthropic"].quirks["anthropic"]
SIGNED = relay.AnthropicQuirks(signed=True)
KIMI = relay.PRESETS["moonshot"].quirks["openai"]
DATA = base64.b64encode(b"not a known picture").decode()


def seems_clean(dialect: relay.Dialect, body: relay.JSON, quirks: relay.Quirks) -> bool:
    raw = relay.dumps(body)
    return dialect.is_clean(raw, relay.Body(raw, words=dialect.words).words, quirks)


def passed(body: relay.JSON, quirks: relay.Quirks, strip: bool = False) -> Any:
    """A body of Anthropic's format at a provider of it; and whether its bytes show as much."""
    out = A.cleaned(body, quirks, ACCOUNT, strip)
    assert out is body or strip or not seems_clean(A, body, quirks)
    return out


# White space and nothing

BLANKS = [
    text("\n\n"),
    text("\xa0"),
    text("\u2028"),
    text(""),
    {"type": "thinking", "thinking": "", "signature": ""},
]


@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize("quirks", [NATIVE, SIGNED])
def test_blank_blocks_do_not_reach_anthropic(blank: relay.JSON, quirks: relay.Quirks) -> None:
    turns = [user("Go"), assistant(blank, use("toolu_1")), user(result("toolu_1"))]
    there = passed(anthropic(*turns), quirks)["messages"][1]["content"]
    assert [block["type"] for block in there] == ["tool_use"]
    there = carried(chat(user("Go"), called("a", content="\n\n"), tool("a")), C, A, quirks).body
    assert [block["type"] for block in there["messages"][1]["content"]] == ["tool_use"]


@pytest.mark.parametrize("token", ["", "their own", "rly1.as.0a1b2c3d.YQ"])
def test_a_thought_is_read_only_where_it_may_have_to_be_changed(token: str) -> None:
    """Who thinks sends thoughts in every request: else each of them would be decoded."""
    thought = {"type": "thinking", "thinking": "Hm.", "signature": token}
    body = anthropic(user("Go"), assistant(thought, text("On.")), user("on"))
    sealed = token.startswith("rly1.")
    assert seems_clean(A, body, relay.AnthropicQuirks()) is not sealed
    assert not seems_clean(A, body, SIGNED)
    passed(body, relay.AnthropicQuirks())


@pytest.mark.parametrize("content", ["", " \n", [text("\n")]])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_blank_turn_keeps_a_word(content: Any, role: str) -> None:
    body = anthropic(user("Go"), {"role": role, "content": content}, user("on"))
    (turn,) = passed(body, SIGNED)["messages"][1:2]
    said = turn["content"] if isinstance(turn["content"], str) else turn["content"][0]["text"]
    assert said.strip()


def test_a_clone_gets_what_came() -> None:
    body = anthropic(user("Go"), assistant(text("\n\n"), use("f:0")), user(result("f:0")))
    assert passed(body, relay.AnthropicQuirks()) is body


def test_a_turn_of_reasoning_alone_is_no_empty_message() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    body = anthropic(user("a"), assistant(thought, text("\n")), user("b"))
    for quirks in (relay.ChatQuirks(), KIMI, relay.ChatQuirks(replay="always")):
        assert carried(body, A, C, quirks).body["messages"] == [
            {"role": "user", "content": "a\n\nb"}
        ]
    empty = chat(user("a"), {"role": "assistant", "content": ""}, user("b"))
    assert C.cleaned(empty, KIMI, ACCOUNT, False)["messages"] == [user("a"), user("b")]
    assert C.cleaned(empty, relay.ChatQuirks(), ACCOUNT, False) is empty


# Ids of calls


def test_ids_of_calls_are_cleaned_and_told_apart_where_anthropic_would_refuse_them() -> None:
    """Relay gave them to its clients itself, before the model was switched."""
    turns = [
        user("Go"),
        assistant(use("f:0"), use("0")),
        user(result("f:0", "A"), result("0", "B")),
        assistant(use("0")),
        user(result("0", "C")),
    ]
    there = passed(anthropic(*turns), NATIVE)["messages"]
    ids = [block["id"] for turn in there[1::2] for block in turn["content"]]
    assert len(set(ids)) == 3
    assert all(map(relay.re.compile(A.call_id).fullmatch, ids))
    results = [block for turn in there[2::2] for block in turn["content"]]
    assert [block["tool_use_id"] for block in results] == ids
    assert [block["content"] for block in results] == ["A", "B", "C"]
    translated = carried(anthropic(*turns), A, A, NATIVE).body["messages"]
    assert [block["id"] for turn in translated[1::2] for block in turn["content"]] == ids
    good = anthropic(user("Go"), assistant(use("toolu_1")), user(result("toolu_1")))
    assert passed(good, NATIVE) is good
    assert seems_clean(A, good, NATIVE)


def test_ids_of_calls_fit_a_chat_provider_that_checks_them() -> None:
    mistral = relay.ChatQuirks(call_id="[a-zA-Z0-9]{9}")
    body = chat(user("Go"), called("call_long_one"), tool("call_long_one"))
    there = C.cleaned(body, mistral, ACCOUNT, False)["messages"]
    (id,) = (call["id"] for call in there[1]["tool_calls"])
    assert relay.re.fullmatch(mistral.call_id, id)
    assert there[2]["tool_call_id"] == id
    assert not seems_clean(C, body, mistral)


# Arguments

ARGUMENTS = [
    ('{"a":1}', {"a": 1}),
    ('{"a":12345678901234567890123}', {"a": 12345678901234567890123}),
    ("", {}),
    ("null", {}),
    ('{"a":"tru', {"_raw": '{"a":"tru'}),
    ("[1]", {"_raw": "[1]"}),
    ('"x"', {"_raw": '"x"'}),
]


@pytest.mark.parametrize(("written", "arguments"), ARGUMENTS)
def test_arguments_are_an_object_everywhere(written: str, arguments: Any) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": written}
    output = {"type": "function_call_output", "call_id": "a", "output": "ok"}
    body = responses({"role": "user", "content": "Go"}, call, output)
    there = {name: carried(body, R, d).body for name, d in relay.DIALECTS.items()}
    function = there["openai"]["messages"][1]["tool_calls"][0]["function"]
    assert relay.json.loads(function["arguments"]) == arguments
    assert relay.json.loads(there["responses"]["input"][1]["arguments"]) == arguments
    assert there["anthropic"]["messages"][1]["content"][0]["input"] == arguments
    called = there["gemini"]["contents"][1]["parts"][0]["functionCall"]
    assert called["args"] == arguments


# Media


@pytest.mark.parametrize("mime", ["image/heic", "image/bmp", "image/svg+xml", "image/avif"])
def test_pictures_that_are_not_taken_are_left_out_and_named(mime: str) -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:{mime};base64,{DATA}"}}
    body = chat({"role": "user", "content": [part]})
    for upstream in (A, R):
        there = carried(body, C, upstream)
        assert "image" in there.dropped
        assert mime in repr(there.body)
        assert DATA not in repr(there.body)
    there = carried(body, C, G)
    assert (DATA in repr(there.body)) is (mime == "image/heic")


@pytest.mark.parametrize(
    "url",
    [
        f"data:IMAGE/PNG;BASE64,{DATA}",
        f"data:image%2Fpng;base64,{DATA}",
        f"DATA:image/png;base64,{DATA.replace('=', '%3D')}",
    ],
)
def test_data_urls_in_any_spelling(url: str) -> None:
    assert relay.media_from_url(url) == relay.Media("image", "image/png", DATA)


def test_a_file_by_its_address_is_an_address() -> None:
    file = {"type": "file", "file": {"file_data": "https://a/b.pdf", "filename": "b.pdf"}}
    there = carried(chat({"role": "user", "content": [file]}), C, A).body["messages"][0]["content"]
    source = {"type": "url", "url": "https://a/b.pdf"}
    assert there == [{"type": "document", "source": source, "title": "b.pdf"}]


@pytest.mark.parametrize("upstream", [A, C, R])
def test_a_sound_by_its_address_is_left_out_and_named(upstream: relay.Dialect) -> None:
    part = {"fileData": {"mimeType": "audio/mp3", "fileUri": "https://a/b.mp3"}}
    there = carried({"contents": [{"role": "user", "parts": [part]}]}, G, upstream)
    assert "audio" in there.dropped
    assert "left out" in repr(there.body)
    assert "input_audio" not in repr(there.body)


@pytest.mark.parametrize("upstream", [A, C, R])
def test_what_only_google_can_fetch_is_named_to_the_model(upstream: relay.Dialect) -> None:
    part = {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/v.mp4"}}
    there = carried({"contents": [{"role": "user", "parts": [part]}]}, G, upstream)
    assert "video" in repr(there.dropped)
    assert "gs://b/v.mp4: left out" in repr(there.body)


@pytest.mark.parametrize("upstream", [A, C, R])
def test_a_sound_of_a_gemini_client_is_a_sound(upstream: relay.Dialect) -> None:
    """A WAVE file begins as a WebP picture does."""
    data = base64.b64encode(b"RIFF\x24\x00\x00\x00WAVEfmt ").decode()
    part = {"inlineData": {"mimeType": "audio/wav", "data": data}}
    there = carried({"contents": [{"role": "user", "parts": [part]}]}, G, upstream)
    assert "image" not in repr(there.body)
    assert "audio" in repr(there.body)


@pytest.mark.parametrize("upstream", [A, C, R])
@pytest.mark.parametrize("kind", ["image/jpeg", "application/pdf", "audio/mp3"])
def test_base64_of_googles_sdk_is_what_others_read(upstream: relay.Dialect, kind: str) -> None:
    """It writes the URL-safe alphabet; others write line breaks, as in mail."""
    data = b"\xff\xd8\xff" + bytes(range(255, 0, -1))
    if upstream is A and kind.startswith("audio"):
        return
    usual = base64.b64encode(data).decode()
    for there in (base64.urlsafe_b64encode(data).decode(), f"{usual[:76]}\r\n{usual[76:]}\r\n"):
        part = {"inlineData": {"mimeType": kind, "data": there}}
        body = carried({"contents": [{"role": "user", "parts": [part]}]}, G, upstream).body
        assert usual in repr(body)


def test_a_document_that_google_does_not_take_is_left_out_and_named() -> None:
    mime = "application/vnd.ms-excel"
    file = {"filename": "a.xls", "file_data": f"data:{mime};base64,0M8R4KGxGuE="}
    there = carried(chat(user({"type": "file", "file": file})), C, G)
    assert there.dropped == ("document",)
    assert f"a.xls {mime}: left out" in repr(there.body)


def test_a_document_that_a_tool_returned_goes_along() -> None:
    """Claude Code's Read of a PDF."""
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}
    document = {"type": "document", "source": source}
    body = anthropic(user("Go"), assistant(use("a")), user(result("a", [document])))
    for upstream in relay.DIALECTS.values():
        assert "JVBERi0xLjQ=" in repr(carried(body, A, upstream).body)


# Words of other makers


def test_words_of_other_makers() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = C.parse_request(chat(user("a"), tools=tools, tool_choice="any"))
    assert asked.tool_choice == relay.ToolChoice("required")
    assert C.parse_request(chat(user("a"), reasoning_effort="default")).thinking is None
    assert C.parse_request(chat(user("a"), reasoning_effort="auto")).thinking is None


def test_one_object_for_a_list_is_a_list_of_one() -> None:
    body: relay.JSON = {
        "systemInstruction": {"parts": {"text": "s"}},
        "contents": {"role": "user", "parts": {"text": "a"}},
        "tools": {"functionDeclarations": {"name": "f"}},
    }
    request = G.parse_request(body)
    assert [message.parts for message in request.messages] == [
        (relay.Text("s"),),
        (relay.Text("a"),),
    ]
    assert [tool.name for tool in request.tools] == ["f"]


def test_marks_of_what_to_cache_reach_anthropic() -> None:
    mark, long = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    parts = [text("a") | {"cache_control": mark}, text("b")]
    system = {"role": "system", "content": "s", "cache_control": long}
    function = {"type": "function", "function": {"name": "f"}, "cache_control": mark}
    body = chat(system, {"role": "user", "content": parts}, tools=[function])
    for quirks in (relay.AnthropicQuirks(), SIGNED, NATIVE):
        there = carried(body, C, A, quirks).body
        assert there["system"] == [text("s") | {"cache_control": long}]
        assert there["messages"][0]["content"] == parts
        assert there["tools"][0]["cache_control"] == mark
        assert "cache_control" not in there
    again = relay.without_reasoning(C.parse_request(body))
    there = A.render_request(again, relay.AnthropicQuirks(), ACCOUNT)
    assert "cache_control" not in repr(there.body)
    assert "cache_control" in there.dropped
    whole = A.render_request(C.parse_request(body), relay.AnthropicQuirks(), ACCOUNT).body
    assert "cache_control" not in repr(passed(whole, relay.AnthropicQuirks(), strip=True))
    assert "cache_control" in repr(passed(whole, NATIVE, strip=True))  # which takes them
    many = [text(str(n)) | {"cache_control": mark} for n in range(6)]
    there = carried(chat({"role": "user", "content": many}), C, A).body
    assert sum("cache_control" in block for block in there["messages"][0]["content"]) == 4


def test_two_outputs_for_one_call_are_one() -> None:
    """Codex may send one again with a retry."""
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "a", "output": "ok"}
    body = responses({"role": "user", "content": "Go"}, call, output, output)
    assert carried(body, R, C).body["messages"][2:] == [tool("a")]


# Reasoning that a chat client sends back as a text

THOUGHT_ALOUD = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": None, "reasoning_content": "Nothing but this"},
    {"role": "assistant", "content": "b", "reasoning_content": "T", "reasoning": "T"},
    {"role": "user", "content": "c"},
]
BARE = [THOUGHT_ALOUD[0], {"role": "assistant", "content": "b"}, THOUGHT_ALOUD[3]]


@pytest.mark.parametrize("preset", ["groq", "mistral", "openai", "cerebras"])
def test_who_refuses_reasoning_as_a_text_gets_none_from_its_own_dialect_either(preset: str) -> None:
    """opencode, Kimi Code and Qwen Code send it back, whoever has thought it."""
    quirks = relay.PRESETS[preset].quirks["openai"]
    body = chat(*THOUGHT_ALOUD)
    assert C.cleaned(body, quirks, ACCOUNT, False)["messages"] == BARE
    assert preset == "mistral" or not seems_clean(C, body, quirks)
    plain = chat(*BARE)
    assert C.cleaned(plain, quirks, ACCOUNT, False) is plain
    assert preset == "mistral" or seems_clean(C, plain, quirks)


def test_who_objects_to_reasoning_as_a_text_is_asked_once_more_without() -> None:
    body = chat(*THOUGHT_ALOUD)
    quirks = relay.ChatQuirks()
    assert seems_clean(C, body, quirks)
    assert C.cleaned(body, quirks, ACCOUNT, False) is body
    assert C.cleaned(body, quirks, ACCOUNT, True)["messages"] == BARE


def test_who_wants_reasoning_back_is_not_asked_without() -> None:
    said = called("x") | {"reasoning_content": "T"}
    body = chat({"role": "user", "content": "a"}, said, tool("x"))
    quirks = relay.PRESETS["deepseek"].quirks["openai"]
    assert C.cleaned(body, quirks, ACCOUNT, True)["messages"][1] == said


# Thinking that was objected to


def test_thinking_is_off_where_the_turn_in_progress_lacks_its_thought() -> None:
    """An address without a preset, and a chat client: Claude checks it all the same."""
    body = chat(user("a"), called("x", content="I look"), tool("x"), reasoning_effort="high")
    request = relay.replace(C.parse_request(body), model="claude-opus-4-5")
    there = A.render_request(request, relay.AnthropicQuirks(), ACCOUNT)
    assert there.body["thinking"] == {"type": "disabled"}
    assert "thinking" in there.dropped
    glm = A.render_request(relay.replace(request, model="glm-5"), A.quirks(), ACCOUNT)
    assert glm.body["thinking"]["type"] == "enabled"


def test_stripped_a_request_does_not_think_and_says_so() -> None:
    body = chat(user("a"), called("x"), tool("x"), user("b"), reasoning_effort="high")
    request = relay.without_reasoning(C.parse_request(body))
    request = relay.replace(request, model="claude-opus-4-5")
    there = A.render_request(request, relay.AnthropicQuirks(), ACCOUNT)
    assert there.body["thinking"] == {"type": "disabled"}
    assert "thinking" in there.dropped
    edits = [{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]
    body = anthropic(
        user("a"),
        assistant({"type": "thinking", "thinking": "Hm.", "signature": "s"}, use("x")),
        user(result("x")),
        thinking={"type": "enabled", "budget_tokens": 2000},
        context_management={"edits": edits},
    )
    there = passed(body, NATIVE, strip=True)
    assert "thinking" not in there
    assert there["context_management"] == {"edits": edits[1:]}


# A server that knows functions only


CUSTOM = {"type": "custom", "name": "apply_patch", "description": "d"}
PLAIN = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


def test_only_functions_pass_on_where_nothing_else_is_known() -> None:
    quirks, hi = relay.ResponsesQuirks(functions_only=True), {"role": "user", "content": "Go"}
    plain = responses(hi, tools=[PLAIN])
    custom = responses(hi, tools=[PLAIN, CUSTOM])
    search = responses(hi, {"type": "tool_search_call", "execution": "server"})
    kept = custom | {"previous_response_id": "resp_1"}
    assert R.passes_on(lambda: plain, quirks)
    assert R.passes_on(lambda: kept, quirks)
    assert not R.passes_on(lambda: custom, quirks)
    assert not R.passes_on(lambda: search, quirks)
    assert all(R.passes_on(lambda body=body: body, R.quirks()) for body in (custom, search))
    there = carried(custom, R, R, quirks)
    assert {tool["type"] for tool in there.body["tools"]} == {"function"}
    assert there.names == {"apply_patch": "apply_patch"}


# Where a token stood


def test_a_token_comes_back_on_the_call_it_stood_on() -> None:
    seal = relay.Seal("gs", "c2ln", ACCOUNT, call="1")
    assert relay.opened(relay.enveloped(seal), "gs").call == "1"
    details = [{"type": "reasoning.encrypted", "data": relay.enveloped(seal)}]
    message = called("a", "b", content="Hm.") | {"reasoning_details": details}
    body = chat(user("Go"), message, tool("a"), tool("b"))
    request = relay.replace(C.parse_request(body), model="gemini-3-pro")
    request = relay.replace(request, messages=relay.repaired(request.messages))
    parts = G.render_request(request, G.quirks(), ACCOUNT).body["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts][::2] == [None, "c2ln"]
