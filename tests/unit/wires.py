"""Clients' requests as they go out, and streams as clients read them, checked on the way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from laws.strategies import ASKED, carried, passage, piped

import relay

A, C, R, G = relay.ANTHROPIC, relay.CHAT, relay.RESPONSES, relay.GEMINI


def to_chat(quirks: relay.Quirks | None = None, **body: Any) -> relay.JSON:
    """An Anthropic client's request as a chat provider gets it."""
    return carried(anthropic(**body), A, C, quirks).body


def to_anthropic(quirks: relay.Quirks | None = None, **body: Any) -> relay.JSON:
    """A chat client's request as an Anthropic provider gets it."""
    return carried(chat(**body), C, A, quirks).body


def dropped(client: relay.Dialect, upstream: relay.Dialect, **body: Any) -> tuple[str, ...]:
    make = {A.name: anthropic, C.name: chat, R.name: responses}[client.name]
    return carried(make(**body), client, upstream, None).dropped


def anthropic(*messages: relay.JSON, **body: Any) -> relay.JSON:
    said = list(messages) or body.pop("messages", [{"role": "user", "content": "Hi"}])
    return {"model": "m", "max_tokens": 1000, "messages": said} | body


def chat(*messages: relay.JSON, **body: Any) -> relay.JSON:
    said = list(messages) or body.pop("messages", [{"role": "user", "content": "Hi"}])
    return {"model": "m", "messages": said} | body


def responses(*items: relay.JSON, **body: Any) -> relay.JSON:
    said = list(items) or body.pop("input", [{"role": "user", "content": "Hi"}])
    return {"model": "m", "input": said} | body


def user(*blocks: relay.JSON | str) -> relay.JSON:
    return {"role": "user", "content": [b if isinstance(b, dict) else text(b) for b in blocks]}


def assistant(*blocks: relay.JSON | str) -> relay.JSON:
    return user(*blocks) | {"role": "assistant"}


def text(said: str) -> relay.JSON:
    return {"type": "text", "text": said}


def use(id: str, name: str = "read", **arguments: Any) -> relay.JSON:
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def result(id: str, content: Any = "ok", **more: Any) -> relay.JSON:
    return {"type": "tool_result", "tool_use_id": id, "content": content} | more


def called(*ids: str, content: str | None = None, name: str = "read") -> relay.JSON:
    function = {"name": name, "arguments": "{}"}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def tool(id: str, content: Any = "ok") -> relay.JSON:
    return {"role": "tool", "tool_call_id": id, "content": content}


def roles(body: relay.JSON) -> list[str]:
    return [message["role"] for message in body["messages"]]


# Streams


def chat_stream(*deltas: relay.JSON | str, finish: str | None = "stop", usage: Any = None) -> bytes:
    """A chat provider's stream: deltas, a finish reason, the counts, [DONE]."""
    chunks = [
        {"index": 0, "delta": {"content": d} if isinstance(d, str) else d, "finish_reason": None}
        for d in deltas
    ]
    if finish:
        chunks.append({"index": 0, "delta": {}, "finish_reason": finish})
    head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "model": "m"}
    said = [head | {"choices": [chunk]} for chunk in chunks]
    said += [head | {"choices": [], "usage": usage}] if usage else []
    return b"".join(map(relay.sse, said)) + b"data: [DONE]\n\n"


def fragment(index: int, text: str, id: str = "", name: str = "") -> relay.JSON:
    function = {"arguments": text} | ({"name": name} if name else {})
    return {"index": index, "function": function} | ({"id": id} if id else {})


def calls(*fragments: relay.JSON) -> relay.JSON:
    return {"tool_calls": list(fragments)}


def anthropic_stream(*blocks: relay.JSON, stop: str = "end_turn", **delta: Any) -> bytes:
    """An Anthropic provider's stream of whole blocks."""
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(blocks),
        "stop_reason": stop,
        "usage": {"input_tokens": 9, "output_tokens": 5},
    } | delta
    encoder = A.encoder(ASKED)
    return b"".join(map(encoder.encode, A.decoder().whole(whole)))


def responses_stream(*items: relay.JSON, **answer: Any) -> bytes:
    """A Responses provider's stream of whole items."""
    whole = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "m",
        "output": list(items),
        "usage": {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14},
    } | answer
    encoder = R.encoder(ASKED)
    return b"".join(map(encoder.encode, R.decoder().whole(whole)))


def output_text(text: str) -> relay.JSON:
    return {"type": "message", "role": "assistant", "content": [output_part(text)]}


def output_part(text: str) -> relay.JSON:
    return {"type": "output_text", "text": text, "annotations": []}


def gemini_stream(*parts: relay.JSON | str, finish: str | None = "STOP", **last: Any) -> bytes:
    """A Gemini provider's stream, a chunk for every part; `last` goes into the last chunk."""
    said = [{"text": part} if isinstance(part, str) else part for part in parts]
    chunks: list[relay.JSON] = [candidate(part) for part in said]
    if finish:
        chunks.append(candidate(finishReason=finish) | last)
    head = {"modelVersion": "gemini-x", "responseId": "r1"}
    return b"".join(relay.sse(head | chunk) for chunk in chunks)


def candidate(*parts: relay.JSON, **more: Any) -> relay.JSON:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0} | more]}


def function_call(name: str = "read", id: str = "", **args: Any) -> relay.JSON:
    return {"functionCall": ({"id": id} if id else {}) | {"name": name, "args": args}}


def through(upstream: relay.Dialect, client: relay.Dialect, data: bytes, **asked: Any) -> bytes:
    """What a streaming client gets."""
    between = relay.replace(passage(upstream, client), context=ASKED._replace(**asked))
    return piped(relay.Streamed(between), [data])


def events(data: bytes) -> list[relay.JSON]:
    """The JSON events of a stream, whatever the dialect; `[DONE]` and comments left out."""
    seen = relay.SSEDecoder().feed(data)
    return [json.loads(event.data) for event in seen if event.data != b"[DONE]"]


def blocks_of(data: bytes) -> list[relay.JSON]:
    """The blocks of an Anthropic stream that must end well; every rule of it is checked.

    message_start first; indices from 0, rising by 1; one block open at a time; deltas only
    inside; one message_delta; message_stop last; the event line is the type.
    """
    for event in relay.SSEDecoder().feed(data):
        assert event.event == json.loads(event.data)["type"]
    first, *rest, last = [event for event in events(data) if event["type"] != "ping"]
    assert (first["type"], last) == ("message_start", {"type": "message_stop"})
    *inner, ended = rest
    assert ended["type"] == "message_delta"
    assert ended["delta"]["stop_reason"]
    return list(_blocks(inner))


def _blocks(inner: Iterable[relay.JSON]) -> Iterator[relay.JSON]:
    block, texts, index = None, list[str](), -1
    for event in inner:
        match event["type"]:
            case "content_block_start":
                assert block is None
                block, texts, index = event["content_block"], [], index + 1
            case "content_block_delta":
                assert block is not None
                delta = event["delta"]
                texts.append(delta.get("text") or delta.get("thinking") or "")
                texts.append(delta.get("partial_json") or "")
                block = block | {k: v for k, v in delta.items() if k == "signature"}
            case "content_block_stop":
                assert block is not None
                yield _closed(block, "".join(texts))
                block = None
            case other:
                raise AssertionError(other)
        assert event["index"] == index
    assert block is None


def _closed(block: relay.JSON, said: str) -> relay.JSON:
    match block["type"]:
        case "tool_use":
            assert block["input"] == {}
            return block | {"input": said}
        case "text":
            return block | {"text": said}
        case "thinking":
            return block | {"thinking": said}
        case _:
            return block


def stop_of(data: bytes) -> str:
    """The stop reason of an Anthropic stream, the finish reason of a chat stream."""
    for event in events(data):
        if event.get("type") == "message_delta":
            return str(event["delta"]["stop_reason"])
        for choice in event.get("choices", ()):
            if choice["finish_reason"]:
                return str(choice["finish_reason"])
    return ""


def message_of(data: bytes) -> relay.JSON:
    """The message of a chat stream that must end well, gathered as the openai SDK does it."""
    assert data.endswith(b"data: [DONE]\n\n")
    message: relay.JSON = {}
    tools: dict[int, relay.JSON] = {}
    for event in events(data):
        for choice in event["choices"]:
            for name, value in choice["delta"].items():
                if name == "tool_calls":
                    for part in value:
                        call = tools.setdefault(part["index"], {"arguments": ""} | part)
                        call["name"] = part["function"].get("name") or call["name"]
                        call["arguments"] += part["function"].get("arguments", "")
                elif isinstance(value, str) and name != "role":
                    message[name] = message.get(name, "") + value
                elif value is not None:
                    message[name] = value
    if tools:
        message["calls"] = [(c["id"], c["name"], c["arguments"]) for c in tools.values()]
    return message
