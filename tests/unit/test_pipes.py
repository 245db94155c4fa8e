"""From the provider's bytes to the client's: which way, when it counts, and how it ends."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from laws.strategies import ASKED, PAIRS, decoded, passage, piped, speech
from unit.wires import (
    A,
    C,
    G,
    R,
    anthropic_stream,
    blocks_of,
    calls,
    candidate,
    chat_stream,
    events,
    fragment,
    function_call,
    gemini_stream,
    output_text,
    responses_stream,
    text,
    through,
    use,
)

import relay

SPOKEN = {
    "anthropic": anthropic_stream(text("Hi")),
    "gemini": gemini_stream("Hi"),
    "openai": chat_stream("Hi"),
    "responses": responses_stream(output_text("Hi")),
}
ANSWER = relay.Response("x1", "m", (relay.Text("Hi"),), "stop", relay.Usage(9, 5))
WHOLE = {d.name: relay.dumps(d.render_response(ANSWER, ASKED)) for d in relay.DIALECTS.values()}
pairs = pytest.mark.parametrize(
    ("upstream", "client"), PAIRS, ids=[f"{a.name}-to-{b.name}" for a, b in PAIRS]
)


# What stands in between


def test_what_may_be_the_beginning_of_a_stop_waits_and_nothing_else_does() -> None:
    asked = ASKED._replace(stops=("END", "", "#"))
    pipe = relay.Streamed(relay.AnswerPath(C, A, asked))
    *deltas, last = [
        relay.sse({"choices": [{"index": 0, "delta": {"content": word}}]})
        for word in ("One", " E", "N", " two E", "ND three")
    ]
    said = [pipe.feed(delta) for delta in deltas]
    texts = [[e["delta"]["text"] for e in events(data) if "delta" in e] for data in said]
    assert texts == [["One"], [" "], [], ["EN two "]]
    assert b"three" not in pipe.feed(last)
    broken = pipe.eof()  # the client has all that it wanted
    assert pipe.failure is None
    (ended,) = [e for e in events(broken) if e["type"] == "message_delta"]
    assert ended["delta"]["stop_sequence"] == "END"


def test_a_stop_behind_a_call_ends_a_turn_of_calls() -> None:
    answer = anthropic_stream(use("a"), text("Now.# More"), stop="tool_use")
    asked = ASKED._replace(stops=("#",))
    out = piped(relay.Streamed(relay.AnswerPath(A, R, asked)), [answer])
    got = relay.fold(decoded(R, [out]))
    assert isinstance(got, relay.Response)
    assert (got.finish, got.parts[-1]) == ("tool_calls", relay.Text("Now."))


# What is it?


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ""),
        (b" \r\n", ""),
        (b"\xef\xbb\xbf", ""),
        (b'{"a":1}', "json"),
        (b"[{", "json"),
        (b"\n  {", "json"),
        (b"\xef\xbb\xbf{", "json"),
        (b"data: {", "sse"),
        (b"data:{", "sse"),
        (b"event: x", "sse"),
        (b": hi", "sse"),
        (b"id: 1", "sse"),
        (b"retry: 1", "sse"),
        (b"\n\ndata", "sse"),
        (b"da", "sse"),
        (b"e", "sse"),
        (b"<html>", "other"),
        (b"upstream connect error", "other"),
        (b"data, they said", "other"),
        (b"\x1f\x8b\x08", "other"),
    ],
)
def test_the_first_bytes_say_what_an_answer_is(data: bytes, kind: str) -> None:
    assert relay.looks_like(data) == kind


@pytest.mark.parametrize("expected", relay.DIALECTS.values(), ids=relay.DIALECTS)
@pytest.mark.parametrize("spoken", relay.DIALECTS.values(), ids=relay.DIALECTS)
def test_a_dialect_is_known_by_what_is_said(spoken: relay.Dialect, expected: relay.Dialect) -> None:
    assert relay.recognised(json.loads(WHOLE[spoken.name]), expected) is spoken
    assert relay.stream_dialect(SPOKEN[spoken.name], expected, False) is spoken
    assert relay.recognised({"error": {}}, expected) is expected
    assert relay.stream_dialect(b": hi\n\ndata: [DONE]\n\ndata: {", expected, False) in (
        None,
        expected,
    )


def test_comments_before_a_stream_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # a provider that sends nothing else kept relay busy for minutes: each block began anew
    decode, sizes = relay.SSEDecoder.feed, list[int]()

    def feed(self: relay.SSEDecoder, data: bytes) -> list[relay.SSE]:
        sizes.append(len(data))
        return decode(self, data)

    monkeypatch.setattr(relay.SSEDecoder, "feed", feed)
    pipe = relay.Streamed(
        relay.AnswerPath(relay.CHAT, relay.ANTHROPIC, relay.AnswerContext("m", "id"))
    )
    for _ in range(600):
        assert pipe.feed(b": waiting\n\n" * 10) == b""
    head = 600 * 10 * len(b": waiting\n\n")
    assert head <= sum(sizes) <= 2 * head
    out = pipe.feed(SPOKEN["openai"]) + pipe.eof()
    assert not pipe.failure
    assert b"message_stop" in out


# The gate: nothing counts before the first meaningful event (DESIGN.md 5)

BLOCK = b'data: {"type":"content_block_start","index":0,"content_block":'
CLOSED = b'data: {"type":"content_block_stop","index":0}\n\n'
ADDED = b'data: {"type":"response.output_item.added","output_index":0,"item":'
MEANINGLESS: dict[str, list[bytes]] = {
    "openai": [
        b": hello\n\n",
        chat_stream({"role": "assistant", "content": ""}, finish=None).replace(
            b"data: [DONE]\n\n", b""
        ),
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
        b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":null}]}\n\n',
    ],
    "gemini": [
        b": hello\n\n",
        b'data: {"responseId":"r1","usageMetadata":{"promptTokenCount":1}}\n\n',
        b"data: {}\n\n",
        relay.sse(candidate({"text": ""})),
    ],
    "anthropic": [
        b": hello\n\n",
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\n',
        b'event: ping\ndata: {"type":"ping"}\n\n',
        BLOCK + b'{"type":"text","text":""}}\n\n',
        CLOSED,
    ],
    "responses": [
        b": hello\n\n",
        b'data: {"type":"response.created","response":{"id":"resp_1"}}\n\n',
        b'data: {"type":"keepalive","sequence_number":1}\n\n',
        ADDED + b'{"type":"message","id":"msg_1","content":[]}}\n\n',
        b'data: {"type":"response.content_part.added","part":{"type":"output_text"}}\n\n',
    ],
}
MEANINGFUL: dict[str, list[bytes]] = {
    "openai": [
        b'data: {"choices":[{"index":0,"delta":{"content":"H"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"H"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"refusal":"H"}}]}\n\n',
        relay.sse({"choices": [{"index": 0, "delta": calls(fragment(0, "", "c", "read"))}]}),
        chat_stream(finish="stop"),
    ],
    "gemini": [
        relay.sse(candidate({"text": "H"})),
        relay.sse(candidate({"text": "H", "thought": True})),
        relay.sse(candidate({"text": "", "thoughtSignature": "QQ=="})),
        relay.sse(candidate(function_call())),
    ],
    "anthropic": [
        BLOCK + b'{"type":"text","text":"H"}}\n\n',
        BLOCK + b'{"type":"tool_use","id":"a","name":"n","input":{}}}\n\n',
        BLOCK + b'{"type":"redacted_thinking","data":"x"}}\n\n' + CLOSED,
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{}}\n\n'
        b'data: {"type":"message_stop"}\n\n',
    ],
    "responses": [
        b'data: {"type":"response.output_text.delta","output_index":0,"delta":"H"}\n\n',
        b'data: {"type":"response.refusal.delta","output_index":0,"delta":"H"}\n\n',
        ADDED + b'{"type":"reasoning","id":"rs_1","summary":[]}}\n\n',
        ADDED + b'{"type":"function_call","id":"fc_1","call_id":"c","name":"n"}}\n\n',
        b'data: {"type":"response.completed","response":{"id":"r","output":[]}}\n\n',
    ],
}


@pytest.mark.parametrize("client", relay.DIALECTS.values(), ids=relay.DIALECTS)
@pytest.mark.parametrize("dialect", relay.DIALECTS)
def test_only_what_means_something_opens_the_gate(dialect: str, client: relay.Dialect) -> None:
    upstream = relay.DIALECTS[dialect]
    before = b"".join(MEANINGLESS[dialect])
    for meaningful in MEANINGFUL[dialect]:
        pipe = relay.Streamed(passage(upstream, client))
        pipe.feed(before)
        assert (pipe.committed, pipe.failure) == (False, None)
        pipe.feed(meaningful)
        assert pipe.committed, meaningful


@pairs
def test_a_failure_before_anything_is_known_as_one(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    """Then nothing has reached the client, and the next target is tried."""
    error = relay.sse({"type": "error", "error": {"type": "x", "message": "no", "code": "1308"}})
    pipe = relay.Streamed(passage(upstream, client))
    pipe.feed(MEANINGLESS[upstream.name][1] + error)
    assert not pipe.committed
    assert pipe.failure
    assert pipe.failure.code == "1308"


@pairs
@pytest.mark.parametrize("data", [b"", b"\n\n", b": hi\n\n", b"data: [DONE]\n\n"])
def test_an_empty_stream_is_a_failure(
    upstream: relay.Dialect, client: relay.Dialect, data: bytes
) -> None:
    pipe = relay.Streamed(passage(upstream, client))
    piped(pipe, [data])
    assert not pipe.committed
    assert pipe.failure
    assert pipe.failure.cause == "transient"


@pairs
@pytest.mark.parametrize(
    "page", [b"<html><title>502 Bad Gateway</title></html>", b"upstream connect error", b"\x1f\x8b"]
)
@pytest.mark.parametrize("kind", [relay.Streamed, relay.Gathered])
def test_what_is_no_answer_is_a_failure_that_says_what_it_is(
    upstream: relay.Dialect, client: relay.Dialect, page: bytes, kind: Any
) -> None:
    pipe = kind(passage(upstream, client))
    assert piped(pipe, [page]) == b""
    assert pipe.failure
    assert pipe.failure.cause == "transient"
    if b"502" in page:
        assert "502 Bad Gateway" in pipe.failure.message


@pairs
def test_an_answer_that_is_one_event_without_its_blank_line_is_an_answer(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    said = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    last = {
        "openai": relay.sse({"id": "x", "choices": [said]}),
        "gemini": relay.sse(candidate({"text": "Hi"}, finishReason="STOP")),
        "anthropic": MEANINGFUL["anthropic"][3],
        "responses": MEANINGFUL["responses"][4],
    }[upstream.name].rstrip(b"\n")
    pipe = relay.Streamed(passage(upstream, client))
    out = piped(pipe, [MEANINGLESS[upstream.name][0], last])
    assert (pipe.committed, pipe.failure) == (True, None)
    assert isinstance(relay.fold(decoded(client, [out])), relay.Response)


# What reaches the client


@pairs
def test_a_break_names_the_provider_and_hides_its_credential(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    between = relay.replace(
        passage(upstream, client),
        provider="bigglm/glm-4.6",
        redacted=lambda said: said.replace("sk-secret", "[secret]"),
    )
    whole = SPOKEN[upstream.name]
    cut = whole.index(b"\n\n", whole.index(b'"Hi"')) + 2
    error = relay.sse({"type": "error", "error": {"type": "x", "message": "key sk-secret is bad"}})
    for rest in (b"", error):
        pipe = relay.Streamed(between)
        out = pipe.feed(whole[:cut]) + pipe.feed(rest)
        out += pipe.eof(relay.Failure("went silent", cause="timeout"))
        assert b"sk-secret" not in out
        last = decoded(client, [out])[-1]
        assert isinstance(last, relay.Failure)
        if not rest and not speech(client).silent_breaks:
            assert "bigglm/glm-4.6" in last.message
            assert "went silent" in last.message


def test_half_an_event_is_let_go_before_the_error() -> None:
    """Else both would be one malformed event (PROTOCOLS.md 3.1 no. 9)."""
    for dialect in relay.DIALECTS.values():
        whole = SPOKEN[dialect.name]
        cut = whole.index(b"\n\n", whole.index(b'"Hi"')) + 2
        pipe = relay.Passthrough(passage(dialect, dialect))
        out = pipe.feed(whole[: cut + 20]) + pipe.eof()
        assert out.startswith(whole[:cut])
        errors = events(out.removeprefix(whole[:cut]))
        assert len(errors) == (0 if speech(dialect).silent_breaks else 1)
        assert all(error.get("response", error)["error"]["message"] for error in errors)


@pairs
def test_keep_alives_are_in_the_clients_words(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    pipe = relay.Streamed(passage(upstream, client))
    assert pipe.alive() == b""  # nothing has been said, so there is no stream to keep alive
    pipe.feed(MEANINGLESS[upstream.name][1])
    alive = pipe.alive()
    assert alive.endswith(b"\n\n")
    if client is A:
        assert alive == b'event: ping\ndata: {"type":"ping"}\n\n'
    elif client is R:
        assert alive == b'data: {"type":"keepalive"}\n\n'
    elif client is G:
        (chunk,) = events(alive)
        assert chunk["candidates"] == candidate({"text": ""})["candidates"]
    else:
        (chunk,) = events(alive)
        assert chunk["choices"] == [
            {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}
        ]


@pytest.mark.parametrize(("client", "said"), [(A, b"ping"), (R, b"keepalive")])
def test_no_event_comes_before_the_first(client: relay.Dialect, said: bytes) -> None:
    encoder = client.encoder(ASKED)
    assert encoder.alive().startswith(b":")
    encoder.encode(relay.Start())
    assert said in encoder.alive()


@pairs
def test_the_client_sees_the_model_it_asked_for_where_it_is_translated(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    if upstream is client:
        return
    out = through(upstream, client, SPOKEN[upstream.name], model="claude-said")
    assert b'"claude-said"' in out


def test_an_answer_without_an_id_gets_the_requests() -> None:
    nameless = relay.sse({"choices": [{"index": 0, "delta": {"content": "Hi"}}]})
    ended = relay.sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    (start, *_) = events(through(C, A, nameless + ended, id="req_77"))
    assert start["message"]["id"] == "msg_req_77"


def test_counts_are_left_out_where_nobody_asked_for_them() -> None:
    stream = anthropic_stream(text("Hi"))
    assert b'"usage"' in through(A, C, stream)
    assert b'"usage"' not in through(A, C, stream, usage=False)


@pairs
def test_names_come_back_also_where_the_server_spoke_the_clients_dialect(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    called = relay.replace(
        ANSWER, parts=(relay.ToolCall("c", "mcp_x_1a", "{}"),), finish="tool_calls"
    )
    between = passage(upstream, client, names={"mcp_x_1a": "mcp.x"})
    for spoken in relay.DIALECTS.values():
        wire = relay.dumps(spoken.render_response(called, ASKED))
        out = piped(relay.Gathered(between), [wire])
        assert b'"mcp.x"' in out
        assert b"mcp_x_1a" not in out
        assert b'"mcp.x"' in piped(relay.Streamed(between), [wire])


def test_only_what_passed_untouched_is_not_translated() -> None:
    for upstream, client in PAIRS:
        for spoken in relay.DIALECTS.values():
            pipe = relay.Streamed(passage(upstream, client))
            piped(pipe, [SPOKEN[spoken.name]])
            assert pipe.translated is (spoken is not client)
            whole = relay.Gathered(passage(upstream, client))
            piped(whole, [WHOLE[spoken.name]])
            assert whole.translated is (spoken is not client)


# Some providers keep the connection open behind their last word


@pairs
def test_once_the_end_was_said_not_much_is_waited_for(
    upstream: relay.Dialect, client: relay.Dialect
) -> None:
    whole = SPOKEN[upstream.name]
    pipe = relay.Streamed(passage(upstream, client))
    end, reason = {
        A.name: (b"event: message_stop", b'"stop_reason":"end_turn"'),
        C.name: (b"data: [DONE]", b'"finish_reason":"stop"'),
        R.name: (b"event: response.completed", b""),  # the reason stands in the last event
        G.name: (b"", b'"finishReason":"STOP"'),  # the end of the bytes is the end
    }[upstream.name]
    first = whole.index(b"\n\n", whole.index(b'"Hi"')) + 2
    last = whole.index(end) if end else len(whole)
    assert reason in whole[first:last]
    pipe.feed(whole[:first])
    assert pipe.rest == math.inf
    pipe.feed(whole[first:last])
    assert pipe.rest == math.inf if not reason else 0 < pipe.rest <= 10
    before = pipe.rest
    pipe.feed(whole[last:])
    assert pipe.rest <= before
    pipe.eof()
    assert pipe.failure is None


# Bounded: whatever a provider sends, memory is


@pytest.mark.parametrize("dialect", relay.DIALECTS.values(), ids=relay.DIALECTS)
def test_an_event_that_never_ends_ends_in_a_failure(dialect: relay.Dialect) -> None:
    block = b"x" * (relay.MOST_HELD // 4)
    for client in relay.DIALECTS.values():
        pipe = relay.Streamed(passage(dialect, client))
        pipe.feed(SPOKEN[dialect.name][: SPOKEN[dialect.name].index(b"\n\n") + 2] + b"data: ")
        for _ in range(5):
            pipe.feed(block)
        pipe.eof()
        assert pipe.failure


def test_many_small_events_are_no_event_without_an_end() -> None:
    """The bound is one event's, not a stream's."""
    delta = relay.sse({"choices": [{"index": 0, "delta": {"content": "x" * 1000}}]})
    for client in (A, C):
        pipe = relay.Streamed(passage(C, client))
        for _ in range(200):
            pipe.feed(delta * 10)
        pipe.feed(chat_stream(finish="stop"))
        pipe.eof()
        assert pipe.failure is None


def test_a_whole_answer_that_came_as_a_long_stream_is_gathered() -> None:
    delta = relay.sse({"choices": [{"index": 0, "delta": {"content": "x"}}]})
    pipe = relay.Gathered(passage(C, A))
    out = piped(pipe, [delta * 2000, chat_stream(finish="stop")])
    assert json.loads(out)["content"][0]["text"] == "x" * 2000


# Blocks of what Anthropic's clients get


def test_text_behind_a_call_is_a_block_of_its_own() -> None:
    stream = chat_stream("One.", calls(fragment(0, "{}", "a", "read")), "Two.", finish="stop")
    assert [b["type"] for b in blocks_of(through(C, A, stream))] == ["text", "tool_use", "text"]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    (block,) = blocks_of(through(C, A, chat_stream(calls(fragment(0, "", "a", "now")))))
    assert block["input"] == "{}"
    (whole,) = json.loads(piped(relay.Gathered(passage(C, A)), [relay.dumps(NO_ARGUMENTS)]))[
        "content"
    ]
    assert whole["input"] == {}


NO_ARGUMENTS = {
    "id": "c",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "now", "arguments": ""}}
                ],
            },
        }
    ],
}


def test_arguments_that_are_no_json_are_kept_as_they_are() -> None:
    """The model's mistake, of which the client tells it; those that break off are not told."""
    broken = json.dumps(NO_ARGUMENTS).replace('"arguments": ""', '"arguments": "{nope}"')
    (whole,) = json.loads(piped(relay.Gathered(passage(C, A)), [broken.encode()]))["content"]
    assert whole["input"] == {"_raw": "{nope}"}


def test_signatures_come_last_in_their_block() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "EqAB"}
    out = piped(
        relay.Streamed(passage(A, A, names={"x": "y"})), [anthropic_stream(thought, text("Hi"))]
    )
    kinds = [e["delta"]["type"] for e in events(out) if e["type"] == "content_block_delta"]
    assert kinds == ["thinking_delta", "signature_delta", "text_delta"]
    block, _ = blocks_of(out)
    assert block == thought


def test_redacted_thinking_comes_whole_in_its_start() -> None:
    redacted = {"type": "redacted_thinking", "data": "EmwK"}
    between = passage(A, A, names={"x": "y"})
    out = piped(relay.Streamed(between), [anthropic_stream(redacted, use("a"), stop="tool_use")])
    block, called = blocks_of(out)
    assert block == redacted
    assert called["name"] == "read"


def torn_call(middle: bytes) -> list[relay.Event]:
    """A tool call in three events, the middle one as given, through the chat decoder."""
    chunk = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,%s}]}}]}\n\n'
    decoder = relay.CHAT.decoder()
    begin = b'"id":"a","function":{"name":"sh","arguments":"{\\"c\\":\\"rm "}'
    events = decoder.feed(chunk % begin)
    events += decoder.feed(middle)
    events += decoder.feed(chunk % b'"function":{"arguments":"\\"}"}')
    events += decoder.feed(b'data: {"choices":[{"index":0,"finish_reason":"tool_calls"}]}\n\n')
    return events + decoder.feed(b"data: [DONE]\n\n")


def test_a_torn_event_in_the_middle_of_a_call_is_a_failure() -> None:
    """Left out, the command would be another one, and run."""
    torn = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"func\n\n'
    assert isinstance(torn_call(torn)[-1], relay.Failure)


def test_a_line_that_is_nobodys_json_is_let_go() -> None:
    assert isinstance(torn_call(b"data: keepalive\n\n")[-1], relay.Finish)


# Ids


@pytest.mark.parametrize("client", relay.DIALECTS.values(), ids=relay.DIALECTS)
@pytest.mark.parametrize("id", ["call_0", "f:0", "0", "", "x" * 90])
def test_ids_of_calls_differ_from_the_conversations_and_suit_every_maker(
    client: relay.Dialect, id: str
) -> None:
    """A provider that counts from 0 in each answer makes Claude Code repeat what it has done."""
    known, made = {"call_0", "0"}, list[str]()
    for _ in range(3):  # three turns, of which each answer has the same id
        between = passage(C, client, names={"x": "x"})
        between = relay.replace(between, context=ASKED._replace(ids=frozenset(known)))
        stream = chat_stream(calls(fragment(0, "{}", id, "read")), finish="tool_calls")
        for pipe in (relay.Streamed(between), relay.Gathered(between)):
            out = piped(pipe, [stream])
            streamed = isinstance(pipe, relay.Streamed)
            events = decoded(client, [out]) if streamed else client.decoder().whole(json.loads(out))
            answer = relay.fold(events)
            assert isinstance(answer, relay.Response)
            (call,) = answer.parts
            assert isinstance(call, relay.ToolCall)
            made.append(call.id)
        known.add(call.id)
    assert made[::2] == made[1::2]  # streamed and whole alike
    assert len(set(made)) == 3
    assert not {"call_0", "0"} & set(made)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id) for id in made)


def test_a_stream_that_the_client_did_not_ask_for_is_asked_to_end_with_counts() -> None:
    """stream_mode: always, where both sides speak Chat; not where a provider does not take it."""
    body = {"model": "m", "stream": False}
    asked = C.restreamed(body, True, relay.ChatQuirks())
    assert asked == {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    assert "stream_options" not in C.restreamed(body, True, relay.ChatQuirks(stream_usage=False))
    assert C.restreamed(asked, False, relay.ChatQuirks()) == body
