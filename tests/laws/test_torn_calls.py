"""What a client could execute is a beginning of what its provider completed, at any cut.

The readers here are not relay's: each takes from the bytes what the clients of its dialect would
run (CLIENTS.md 7), as early as the earliest of them does.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.strategies import (
    ACCOUNT,
    ASKED,
    answers,
    calls_of,
    cuttings,
    decoded,
    events_of,
    pairs,
    passage,
    piped,
)

import relay

Call = tuple[str, Any]  # name, arguments; of a freeform tool its input


def objects(data: bytes) -> list[Any]:
    decoder = relay.SSEDecoder()
    blocks = [event.data for event in decoder.feed(data) + decoder.eof()]
    return [json.loads(block) for block in blocks if block.startswith(b"{")]


def loaded(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text  # some clients hand it to the tool all the same


def run_by_anthropic(data: bytes) -> list[Call]:
    """Claude Code runs a block when it is closed."""
    calls, names, texts = [], {}, {}
    for wire in objects(data):
        match wire["type"]:
            case "content_block_start" if wire["content_block"]["type"] == "tool_use":
                names[wire["index"]], texts[wire["index"]] = wire["content_block"]["name"], ""
            case "content_block_delta" if wire["delta"]["type"] == "input_json_delta":
                texts[wire["index"]] += wire["delta"]["partial_json"]
            case "content_block_stop" if wire["index"] in names:
                calls.append((names[wire["index"]], loaded(texts[wire["index"]])))
    return calls


def run_by_chat(data: bytes) -> list[Call]:
    """All calls, as soon as a finish reason says that the message is whole."""
    calls: dict[int, tuple[str, str, bool]] = {}
    for wire in objects(data):
        for choice in wire.get("choices", ()):
            for call in choice["delta"].get("tool_calls", ()):
                kind, slot = ("custom", "input") if "custom" in call else ("function", "arguments")
                name, text, _ = calls.get(call["index"], ("", "", False))
                name += call[kind].get("name", "")
                calls[call["index"]] = (name, text + call[kind].get(slot, ""), kind == "custom")
            if choice["finish_reason"] in ("stop", "tool_calls"):
                return [(name, t if free else loaded(t)) for name, t, free in calls.values()]
    return []


def run_by_responses(data: bytes) -> list[Call]:
    """Codex runs an item when it is done, whatever its status; Copilot those of the last event."""
    calls = {}
    for wire in objects(data):
        done = [wire["item"]] if wire["type"] == "response.output_item.done" else []
        for item in (*done, *wire.get("response", {}).get("output", ())):
            if item["type"] == "function_call":
                calls[item["id"]] = (item["name"], loaded(item["arguments"]))
            elif item["type"] == "custom_tool_call":
                calls[item["id"]] = (item["name"], item["input"])
    return list(calls.values())


def run_by_gemini(data: bytes) -> list[Call]:
    parts = [
        part
        for wire in objects(data)
        for candidate in wire.get("candidates", ())
        for part in candidate["content"]["parts"]
    ]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    return [(call["name"], call["args"]) for call in calls]


RUN: dict[str, Callable[[bytes], list[Call]]] = {
    "anthropic": run_by_anthropic,
    "openai": run_by_chat,
    "responses": run_by_responses,
    "gemini": run_by_gemini,
}


def said_so_far(blocks: list[bytes], events: list[relay.Event], cut: int) -> int:
    """How many calls the provider had completed when `cut` bytes had come."""
    ends, at, calls, inside = 0, 0, 0, False
    for block, event in zip(blocks, events, strict=True):
        at += len(block)
        if isinstance(event, relay.PartStart):
            inside = isinstance(event.part, relay.ToolCall)
        ends += isinstance(event, relay.PartEnd) and inside
        # the end of the event that completes it, but for what only separates it from the next
        if at - len(block) < cut or not block:
            calls = ends
    return calls


@pairs
@given(data=st.data())
def test_what_a_client_runs_is_a_beginning_of_what_was_completed(
    upstream: relay.Dialect, client: relay.Dialect, data: st.DataObject
) -> None:
    answer = data.draw(answers(upstream))
    blocks, events = events_of(upstream, answer), list(relay.unfold(answer))
    wire = b"".join(blocks)
    cut = data.draw(st.integers(0, len(wire)))
    pipe = relay.Streamed(passage(upstream, client))
    out = b"".join(map(pipe.feed, data.draw(cuttings(wire[:cut]))))
    end = data.draw(st.sampled_from(("eof", "reset", "shutdown")))
    if end == "shutdown":
        out += pipe.failed(relay.UpstreamError("timeout", "stopped"))
    else:
        out += pipe.eof(*[relay.Failure("reset", cause="transient")] * (end == "reset"))
    called = [(name, value) for _, name, value in calls_of(answer)]
    complete = called[: said_so_far(blocks, events, cut)]
    run = RUN[client.name](out)
    assert run == complete[: len(run)]


@pairs
def test_nothing_runs_at_any_byte_of_a_call(upstream: relay.Dialect, client: relay.Dialect) -> None:
    """Every byte of a stream with one call; the client's tool is one for free text."""
    arguments = relay.dumps({"input": 'rm -rf "/tmp/a\\b"\nls \U0001f680'}).decode()
    answer = relay.Response(
        "r", "m", (relay.Text("So."), relay.ToolCall("c", "exec", arguments)), "tool_calls"
    )
    blocks = [
        upstream_encoder.encode(event)
        for upstream_encoder in [upstream.encoder(ASKED)]
        for event in in_pieces(answer)
    ]
    wire, ended = b"".join(blocks), len(b"".join(blocks[:-2]))
    for forms in ({}, {"exec": "custom"}):
        way = relay.AnswerPath(upstream, client, ASKED._replace(forms=forms), account=ACCOUNT)
        out, live = b"", relay.Streamed(way)
        for cut in range(ended):
            out += live.feed(wire[cut : cut + 1])
            assert cut % 3 or RUN[client.name](out) == []
            if cut % 7 == 0:
                for pipe in (relay.Streamed(way), relay.Gathered(way)):
                    told = piped(pipe, [wire[:cut]])
                    assert pipe.failure, (cut, told)
                    run = RUN[client.name](told) if isinstance(pipe, relay.Streamed) else told
                    assert run in ([], b""), (cut, told)


def in_pieces(answer: relay.Response) -> list[relay.Event]:
    """The answer's events, with each text in pieces of two characters."""
    events: list[relay.Event] = []
    for event in relay.unfold(answer):
        if isinstance(event, relay.PartDelta):
            text = event.text
            events += [relay.PartDelta(text[at : at + 2]) for at in range(0, len(text), 2)]
        else:
            events.append(event)
    return events


def torn_stream(dialect: str, arguments: str, finish: str) -> bytes:
    """A stream that ends as its maker ends one, with a call whose arguments broke off."""
    quoted = json.dumps(arguments)
    match dialect:
        case "anthropic":
            wires = (
                '{"type":"message_start","message":{"id":"m","model":"m","usage":{}}}',
                '{"type":"content_block_start","index":0,'
                '"content_block":{"type":"tool_use","id":"c","name":"exec","input":{}}}',
                '{"type":"content_block_delta","index":0,'
                f'"delta":{{"type":"input_json_delta","partial_json":{quoted}}}}}',
                '{"type":"content_block_stop","index":0}',
                f'{{"type":"message_delta","delta":{{"stop_reason":"{finish}"}},"usage":{{}}}}',
                '{"type":"message_stop"}',
            )
        case "openai":
            call = '{"index":0,"id":"c","type":"function","function":{"name":"exec","arguments":'
            wires = (
                f'{{"choices":[{{"index":0,"delta":{{"tool_calls":[{call}{quoted}}}}}]}}}}]}}',
                f'{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{finish}"}}]}}',
                "[DONE]",
            )
        case "responses":
            item = '{"id":"i","type":"function_call","call_id":"c","name":"exec","arguments":'
            wires = (
                '{"type":"response.created","response":{"id":"r"}}',
                f'{{"type":"response.output_item.added","output_index":0,"item":{item}""}}}}',
                '{"type":"response.function_call_arguments.delta","output_index":0,'
                f'"delta":{quoted}}}',
                '{"type":"response.output_item.done","output_index":0,'
                f'"item":{item}{quoted},"status":"incomplete"}}}}',
                f'{{"type":"response.{finish}","response":{{"id":"r","status":"{finish}",'
                f'"output":[{item}{quoted},"status":"incomplete"}}]}}}}',
            )
        case _:
            raise LookupError(dialect)
    return b"".join(b"data: " + wire.encode() + b"\n\n" for wire in wires)


FINISHES = [
    *(("anthropic", finish) for finish in ("max_tokens", "tool_use", "end_turn", "refusal")),
    *(("openai", finish) for finish in ("length", "tool_calls", "stop", "content_filter")),
    *(("responses", finish) for finish in ("incomplete", "completed")),
]


@pytest.mark.parametrize(("upstream", "finish"), FINISHES)
@pytest.mark.parametrize("client", relay.DIALECTS)
@pytest.mark.parametrize("free", [False, True])
def test_a_call_that_broke_off_is_not_handed_over(
    upstream: str, finish: str, client: str, free: bool
) -> None:
    """However its provider ends the answer: the client learns that it is cut."""
    whole = relay.dumps({"input": 'rm -rf "/tmp/a"\n'}).decode()
    for end in (*range(1, 14), *range(14, len(whole), 3)):
        wire = torn_stream(upstream, whole[:end], finish)
        for asked_for in ("stream", "whole"):
            asked = ASKED._replace(forms={"exec": "custom"} if free else {})
            way = relay.AnswerPath(relay.DIALECTS[upstream], relay.DIALECTS[client], asked)
            if upstream == client:  # passed on as it came, which is its maker's affair
                way = relay.replace(way, names={"exec": "exec"})
            pipe = relay.Streamed(way) if asked_for == "stream" else relay.Gathered(way)
            out = piped(pipe, [wire])
            assert pipe.failure is None
            if asked_for == "stream":
                assert RUN[client](out) == [], (end, out)
                read = relay.fold(decoded(relay.DIALECTS[client], [out]))
            else:
                read = relay.fold(relay.DIALECTS[client].decoder().whole(json.loads(out)))
            assert isinstance(read, relay.Response)
            assert not calls_of(read)
            filtered = finish in ("refusal", "content_filter")
            assert read.finish == ("content_filter" if filtered else "length"), (end, out)


@pytest.mark.parametrize("upstream", ["openai", "anthropic"])
@pytest.mark.parametrize("client", relay.DIALECTS)
def test_a_call_beside_one_that_broke_off_is_handed_over(upstream: str, client: str) -> None:
    """Interleaved calls: the first breaks off, the second is complete."""
    calls = (
        {"index": 0, "id": "a", "function": {"name": "cut", "arguments": '{"x": "y'}},
        {"index": 1, "id": "b", "function": {"name": "whole", "arguments": '{"x": 1}'}},
    )
    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    if upstream == "anthropic":
        encoder = relay.ANTHROPIC.encoder(ASKED)
        events = [relay.Start("m"), relay.PartStart(relay.ToolCall("a", "cut"))]
        events += [relay.PartDelta('{"x": "y'), relay.PartStart(relay.ToolCall("b", "whole"))]
        events += [relay.PartDelta('{"x": 1}'), relay.PartEnd(), relay.Finish("tool_calls")]
        wire = b"".join(map(encoder.encode, events))
    else:
        wires = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls]
        wires.append({"choices": [end]})
        wire = b"".join(b"data: " + relay.dumps(wire) + b"\n\n" for wire in wires)
    way = relay.AnswerPath(
        relay.DIALECTS[upstream], relay.DIALECTS[client], ASKED, names={"x": "x"}
    )
    out = piped(relay.Streamed(way), [wire])
    assert RUN[client](out) == ([] if client == "openai" else [("whole", {"x": 1})])
    read = relay.fold(decoded(relay.DIALECTS[client], [out]))
    assert isinstance(read, relay.Response)
    assert read.finish == "length"
