"""From any dialect to any other: what was said arrives, and a break arrives as a break."""

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import (
    ASKED,
    DIALECTS,
    answers,
    arguments,
    calls_of,
    cuts,
    cuttings,
    decoded,
    dialects,
    events_of,
    folded,
    idents,
    pairs,
    passage,
    piped,
    speech,
    stream_of,
    text_of,
)

import relay

# What every dialect has a word for; the others come as near as they can.
COMMON = ("stop", "length", "tool_calls", "content_filter")
NEAREST = {"stop_sequence": "stop", "pause": "stop", "context_length": "length"}


def same_content(
    got: relay.Response | relay.Failure, said: relay.Response, client: relay.Dialect
) -> None:
    assert isinstance(got, relay.Response)
    for kind in (relay.Text, relay.Reasoning):
        assert text_of(got, kind) == text_of(said, kind)
    assert calls_of(got) == calls_of(said)
    near = NEAREST.get(said.finish, said.finish)
    near = "tool_calls" if near == "stop" and calls_of(said) else near
    assert got.finish in (said.finish, near)
    assert got.model == ASKED.model
    kept = speech(client)
    write = said.usage.cache_write if kept.cache_write else 0
    thought = said.usage.reasoning if kept.reasoning_tokens else 0
    assert got.usage == relay.replace(said.usage, cache_write=write, reasoning=thought)


@pairs
@given(data=st.data())
def test_a_stream_keeps_what_was_said(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(upstream))
    pipe = relay.Streamed(passage(upstream, client))
    out = piped(pipe, data.draw(cuttings(stream_of(upstream, answer))))
    same_content(folded(client, out), answer, client)
    assert (pipe.usage, pipe.failure) == (answer.usage, None)


@pairs
@given(data=st.data())
def test_a_whole_answer_keeps_what_was_said(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(upstream))
    wire = relay.dumps(upstream.render_response(answer, ASKED))
    pipe = relay.Gathered(passage(upstream, client))
    out = piped(pipe, data.draw(cuttings(wire)))
    same_content(relay.fold(client.decoder().whole(relay.loads(out))), answer, client)
    assert (pipe.usage, pipe.failure) == (answer.usage, None)


@pairs
@given(data=st.data())
def test_json_on_a_streaming_request_becomes_a_stream(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(upstream))
    wire = relay.dumps(upstream.render_response(answer, ASKED))
    pipe = relay.Streamed(passage(upstream, client))
    same_content(folded(client, piped(pipe, data.draw(cuttings(wire)))), answer, client)
    assert pipe.usage == answer.usage


@pairs
@given(data=st.data())
def test_a_stream_on_a_whole_request_becomes_one_answer(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(upstream))
    pipe = relay.Gathered(passage(upstream, client))
    out = piped(pipe, data.draw(cuttings(stream_of(upstream, answer))))
    same_content(relay.fold(client.decoder().whole(relay.loads(out))), answer, client)
    assert pipe.usage == answer.usage


@pairs
@given(data=st.data())
def test_a_stream_that_is_read_whole_is_over_at_its_last_event_and_not_before(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    """Whatever dialect was expected: behind that event nobody waits for the connection's end."""
    wire = stream_of(upstream, data.draw(answers(upstream)))
    ends = [match.end() for match in re.finditer(rb"\n\n", wire)]
    for asked_of in DIALECTS:
        pipe = relay.Gathered(passage(asked_of, client))
        over = [wire[:at] for at in ends if pipe.is_over(wire[:at])]
        assert over or asked_of != upstream or upstream is relay.GEMINI
        for begin in over:
            got, whole = (relay.Gathered(passage(asked_of, client)) for _ in range(2))
            assert (piped(got, [begin]), got.failure) == (piped(whole, [wire]), None)
        assert not any(pipe.is_over(wire[: at - 1]) for at in ends)


@pairs
@given(data=st.data())
def test_a_server_may_answer_in_another_dialect_than_its_path_says(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    """It is recognised by what it says: checklist 49, DESIGN.md 7."""
    answer = data.draw(answers(upstream))
    for asked_of in DIALECTS:
        pipe = relay.Streamed(passage(asked_of, client))
        same_content(folded(client, piped(pipe, [stream_of(upstream, answer)])), answer, client)
        whole = relay.Gathered(passage(asked_of, client))
        wire = relay.dumps(upstream.render_response(answer, ASKED))
        out = relay.fold(client.decoder().whole(relay.loads(piped(whole, [wire]))))
        same_content(out, answer, client)


@pairs
@given(data=st.data())
def test_a_cut_stream_is_never_passed_off_as_whole(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    *most, last = events_of(upstream, data.draw(answers(upstream)))
    head, rest = b"".join(most), last.split(b"\n\n")[0]  # the finish reason stands in the first
    cut = data.draw(cuts(len(head + rest)))
    pipe = relay.Streamed(passage(upstream, client))
    out = piped(pipe, data.draw(cuttings((head + rest)[:cut])))
    assert pipe.failure
    assert not out or isinstance(decoded(client, [out])[-1], relay.Failure)
    assert out or not pipe.committed or speech(client).silent_breaks


@pairs
@given(data=st.data())
def test_a_connection_that_breaks_is_told_as_an_error(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    """Its reason is said, in the client's words, unless the end was said before."""
    reason = relay.Failure("went silent", cause="timeout")
    blocks = events_of(upstream, data.draw(answers(upstream)))
    pipe = relay.Streamed(passage(upstream, client))
    out = b"".join(map(pipe.feed, data.draw(cuttings(b"".join(blocks[:-1])))))
    out += pipe.eof(reason)
    assert pipe.failure
    if pipe.committed:
        last = decoded(client, [out])[-1]
        assert isinstance(last, relay.Failure)
        assert speech(client).silent_breaks or "went silent" in last.message


@pairs
@given(data=st.data())
def test_keep_alives_between_any_two_events_mean_nothing(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(upstream))
    pipe, out = relay.Streamed(passage(upstream, client)), [b""]
    for piece in data.draw(cuttings(stream_of(upstream, answer))):
        out += [pipe.feed(piece), pipe.alive() if data.draw(st.booleans()) else b""]
        out.append(pipe.alive())
    same_content(folded(client, b"".join([*out, pipe.eof()])), answer, client)


@pairs
@given(data=st.data())
def test_tool_names_come_back_as_the_client_knows_them(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(upstream))
    there = {part.name for part in answer.parts if isinstance(part, relay.ToolCall)}
    names = {name: f"mcp.server/{name}" for name in there}
    between = passage(upstream, client, names=names)
    for pipe, wire in (
        (relay.Streamed(between), stream_of(upstream, answer)),
        (relay.Gathered(between), relay.dumps(upstream.render_response(answer, ASKED))),
    ):
        out = piped(pipe, [wire])
        streamed = isinstance(pipe, relay.Streamed)
        got = (
            folded(client, out)
            if streamed
            else relay.fold(client.decoder().whole(relay.loads(out)))
        )
        assert isinstance(got, relay.Response)
        said = [(id, names[name], value) for id, name, value in calls_of(answer)]
        assert calls_of(got) == said


@st.composite
def stops_in(draw: Any, answer: relay.Response) -> tuple[str, ...]:
    """Stop sequences: cut from what is said, or not in it at all, or only nearly."""
    text = text_of(answer, relay.Text)
    at = st.integers(0, max(0, len(text) - 1))
    cut = st.tuples(at, st.integers(1, 6)).map(lambda pair: text[pair[0] : pair[0] + pair[1]])
    some = st.lists(cut | st.just("END") | cut.map(lambda s: s + "?"), min_size=1, max_size=3)
    return tuple(filter(None, draw(some))) or ("END",)


def until(answer: relay.Response, stops: tuple[str, ...]) -> relay.Response:
    """The answer as it is when its maker stops there: the plainest way to say what is meant."""
    kept: list[relay.OutputPart] = []
    for part in answer.parts:
        found = [at for stop in stops if (at := part.text.find(stop)) >= 0]
        if isinstance(part, relay.Text) and found:
            kept.append(relay.Text(part.text[: min(found)]))
            return relay.replace(answer, parts=tuple(kept), finish="stop_sequence")
        kept.append(part)
    return answer


@pairs
@given(data=st.data(), streamed=st.booleans())
def test_a_text_ends_at_a_stop_that_its_maker_does_not_know(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject, streamed: bool
) -> None:
    answer = data.draw(answers(upstream))
    stops = data.draw(stops_in(answer))
    between = passage(upstream, client, names={"no tool": "y"})  # never passed through
    between = relay.replace(between, context=ASKED._replace(stops=stops))
    pipe = (relay.Streamed if streamed else relay.Gathered)(between)
    whole = relay.dumps(upstream.render_response(answer, ASKED))
    wire = stream_of(upstream, answer) if data.draw(st.booleans()) else whole
    out = piped(pipe, data.draw(cuttings(wire)))
    got = folded(client, out) if streamed else relay.fold(client.decoder().whole(relay.loads(out)))
    assert pipe.failure is None
    assert pipe.usage == answer.usage
    meant = until(answer, stops)
    same_content(got, meant, client)


# Interleaved calls: fragments of several calls may alternate in any way


@st.composite
def interleavings(draw: Any) -> tuple[list[tuple[str, str, str]], list[tuple[int, str]]]:
    """Calls, and their arguments in fragments, in some order that keeps each call's own."""
    said = draw(st.lists(st.tuples(idents, idents, arguments), min_size=1, max_size=4))
    said = [(f"{id}{i}", name, text) for i, (id, name, text) in enumerate(said)]
    left = [draw(fragments(text)) for _, _, text in said]
    order: list[tuple[int, str]] = []
    while any(left):
        at = draw(st.sampled_from([i for i, pieces in enumerate(left) if pieces]))
        order.append((at, left[at].pop(0)))
    return said, order


@st.composite
def fragments(draw: Any, text: str) -> list[str]:
    at = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True) if a < b]


def chat_fragments(drawn: Any, declared_first: bool) -> bytes:
    said, order = drawn
    seen: set[int] = set()
    chunks = []
    if declared_first:
        for index, (id, name, _) in enumerate(said):
            chunks.append({"index": index, "id": id, "function": {"name": name, "arguments": ""}})
            seen.add(index)
    for index, piece in order:
        id, name, _ = said[index]
        first = {} if index in seen else {"id": id}
        function = {"arguments": piece} | ({} if index in seen else {"name": name})
        chunks.append({"index": index, **first, "function": function})
        seen.add(index)
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [chunk]}}]} for chunk in chunks]
    deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    return b"".join(map(relay.sse, deltas)) + b"data: [DONE]\n\n"


def anthropic_fragments(drawn: Any, declared_first: bool) -> bytes:
    said, order = drawn
    heads = [
        {
            "type": "content_block_start",
            "index": index,
            "content_block": {"type": "tool_use", "id": id, "name": name, "input": {}},
        }
        for index, (id, name, _) in enumerate(said)
    ]
    events: list[relay.JSON] = [{"type": "message_start", "message": {"id": "msg_1"}}]
    events += heads if declared_first else []
    seen: set[int] = set()
    for index, piece in order:
        if not declared_first and index not in seen:
            events.append(heads[index])
        seen.add(index)
        delta = {"type": "input_json_delta", "partial_json": piece}
        events.append({"type": "content_block_delta", "index": index, "delta": delta})
    events += [{"type": "content_block_stop", "index": index} for index in range(len(said))]
    events.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}})
    events.append({"type": "message_stop"})
    return b"".join(relay.sse(event, event["type"]) for event in events)


def responses_fragments(drawn: Any, declared_first: bool) -> bytes:
    said, order = drawn
    items = [
        {"type": "function_call", "id": f"fc_{index}", "call_id": id, "name": name}
        for index, (id, name, _) in enumerate(said)
    ]
    heads = [
        {
            "type": "response.output_item.added",
            "output_index": index,
            "item": item | {"arguments": "", "status": "in_progress"},
        }
        for index, item in enumerate(items)
    ]
    head: relay.JSON = {"type": "response.created", "response": {"id": "resp_1", "model": "m"}}
    events: list[relay.JSON] = [head, *(heads if declared_first else [])]
    seen: set[int] = set()
    for index, piece in order:
        if not declared_first and index not in seen:
            events.append(heads[index])
        seen.add(index)
        delta = {"type": "response.function_call_arguments.delta", "delta": piece}
        events.append(delta | {"output_index": index, "item_id": f"fc_{index}"})
    whole = [item | {"arguments": text} for item, (*_, text) in zip(items, said, strict=True)]
    events += [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate(whole)
    ]
    answer = {"id": "resp_1", "status": "completed", "output": whole}
    events.append({"type": "response.completed", "response": answer})
    return b"".join(relay.sse(event, event["type"]) for event in events)


def gemini_fragments(drawn: Any, declared_first: bool) -> bytes:
    """A call is never in fragments here; several come in one chunk, or in one each."""
    calls = [
        {"functionCall": {"id": id, "name": name, "args": json.loads(text)}}
        for id, name, text in drawn[0]
    ]
    chunks = [calls] if declared_first else [[call] for call in calls]
    wires: list[relay.JSON] = [{"candidates": [{"content": {"parts": parts}}]} for parts in chunks]
    wires.append({"candidates": [{"finishReason": "STOP"}]})
    return b"".join(map(relay.sse, wires))


INTERLEAVED = {
    "anthropic": anthropic_fragments,
    "gemini": gemini_fragments,
    "openai": chat_fragments,
    "responses": responses_fragments,
}


def test_every_dialect_has_its_interleaved_calls() -> None:
    assert INTERLEAVED.keys() == relay.DIALECTS.keys()


@dialects
@given(drawn=interleavings(), declared_first=st.booleans())
def test_interleaved_fragments_give_each_call_its_own_arguments(
    dialect: relay.Dialect,
    drawn: tuple[list[tuple[str, str, str]], list[tuple[int, str]]],
    declared_first: bool,
) -> None:
    wire = INTERLEAVED[dialect.name](drawn, declared_first)
    for client in relay.DIALECTS.values():
        got = folded(client, piped(relay.Streamed(passage(dialect, client)), [wire]))
        assert isinstance(got, relay.Response)
        assert got.finish == "tool_calls"
        said = {id: (name, json.loads(text)) for id, name, text in drawn[0]}
        assert {id: (name, value) for id, name, value in calls_of(got)} == said
