"""A provider that does what a test tells it to.

    async with FakeUpstream() as upstream:
        upstream.script(chat_error(429, "slow down"), chat_stream(text="Hello."))
        ...                                 # the first request fails, later ones are answered
        assert upstream.requests[0].json["model"] == "m"

Faults are data: an `Answer` says what goes over the wire and how it goes wrong, builders make
well-formed ones, and `answer.but(cut_after=100)` spoils them.  Without a script every request
is answered well in the dialect of its path: a tool call when tools are offered and nothing has
been called yet, else a text.

Contents: answers, server-sent events, chat, anthropic, responses, errors, what is said without a
script, the server.
"""

import asyncio
import dataclasses
import gzip
import json
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from multidict import CIMultiDict
from relay_process import SOON

JSON = Any
Call = tuple[str, str, str]  # id, name, arguments as JSON text

HEAD = -1  # `hold` key: before the status line


# ---- Answers -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes over the wire, and how it goes wrong."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Sequence[bytes] = b""  # whole with a content-length, or chunk by chunk
    content_type: str | None = None  # None: by the kind of body
    delay: float = 0  # seconds before the head
    pause: float = 0  # seconds between chunks
    hold: Mapping[int, asyncio.Event] = field(default_factory=dict)  # wait before chunk n, or HEAD
    drip: int | None = None  # bytes per write
    compress: Literal["gzip"] | None = None
    cut_after: int | None = None  # bytes of body; where the next would go, a close
    reset: bool = False  # RST instead of an answer
    raw: bytes | None = None  # these bytes instead of HTTP, then a close
    never_ends: bool = False  # all said, and still open

    def but(self, **changes: Any) -> "Answer":
        return dataclasses.replace(self, **changes)

    @property
    def streams(self) -> bool:
        return not isinstance(self.body, bytes)

    @property
    def chunks(self) -> list[bytes]:
        return [self.body] if isinstance(self.body, bytes) else list(self.body)

    @property
    def wire(self) -> bytes:
        """The whole body as it was before compression."""
        return b"".join(self.chunks)

    @property
    def kind(self) -> str:
        if self.content_type is not None:
            return self.content_type
        return "text/event-stream" if self.streams else "application/json"


def whole(value: JSON, status: int = 200, **rest: Any) -> Answer:
    return Answer(status=status, body=dump(value), **rest)


def stream(chunks: Iterable[bytes], **rest: Any) -> Answer:
    return Answer(body=tuple(chunks), **rest)


def dump(value: JSON) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


# ---- Server-sent events --------------------------------------------------------------------


def data(value: JSON) -> bytes:
    """An event as the OpenAI dialects write it."""
    return b"data: " + dump(value) + b"\n\n"


def event(value: JSON) -> bytes:
    """An event as Anthropic and Responses write it: named by its type."""
    return f"event: {value['type']}\n".encode() + data(value)


DONE = b"data: [DONE]\n\n"
COMMENT = b": still here\n\n"


def pieces(text: str | Sequence[str]) -> list[str]:
    """A text in the pieces it is streamed in: as given, or cut after every space."""
    if not isinstance(text, str):
        return list(text)
    words = text.split(" ")
    return [word for word in [*(word + " " for word in words[:-1]), words[-1]] if word]


# ---- OpenAI Chat Completions ---------------------------------------------------------------

CHAT_USAGE = {
    "prompt_tokens": 1045,
    "completion_tokens": 57,
    "total_tokens": 1102,
    "prompt_tokens_details": {"cached_tokens": 1024},
}


def chat_stream(
    text: str | Sequence[str] = "",
    reasoning: str | Sequence[str] = "",
    calls: Sequence[Call] = (),
    usage: JSON = CHAT_USAGE,
    finish: str | None = None,
    done: bool = True,
    model: str = "upstream-model",
) -> Answer:
    """`finish=""` leaves the finish chunk out, `usage=None` the usage chunk, `done` the [DONE]."""
    finish = finish if finish is not None else "tool_calls" if calls else "stop"
    deltas: list[JSON] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in pieces(reasoning)]
    deltas += [{"content": piece} for piece in pieces(text)]
    deltas += [delta for index, call in enumerate(calls) for delta in chat_call(index, call)]
    chunks = [chat_chunk(delta, model=model) for delta in deltas]
    chunks += [chat_chunk({}, finish, model=model)] if finish else []
    chunks += [data(chat_frame(model) | {"choices": [], "usage": usage})] if usage else []
    return stream(chunks + [DONE] * done)


def chat_frame(model: str = "upstream-model") -> JSON:
    return {
        "id": "chatcmpl-7",
        "object": "chat.completion.chunk",
        "created": 1763600000,
        "model": model,
    }


def chat_chunk(delta: JSON, finish: str | None = None, model: str = "upstream-model") -> bytes:
    return data(
        chat_frame(model) | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    )


def chat_call(index: int, call: Call) -> list[JSON]:
    """A call's deltas: its name first, then its arguments in two halves."""
    ident, name, arguments = call
    head = {"id": ident, "type": "function", "function": {"name": name, "arguments": ""}}
    middle = len(arguments) // 2
    halves = [half for half in (arguments[:middle], arguments[middle:]) if half]
    parts: list[JSON] = [head, *({"function": {"arguments": half}} for half in halves)]
    return [{"tool_calls": [{"index": index, **part}]} for part in parts]


def chat_whole(
    text: str = "",
    reasoning: str = "",
    calls: Sequence[Call] = (),
    usage: JSON = CHAT_USAGE,
    finish: str | None = None,
    model: str = "upstream-model",
) -> Answer:
    message: JSON = {"role": "assistant", "content": text or None}
    message |= {"reasoning_content": reasoning} if reasoning else {}
    message |= {"tool_calls": [chat_whole_call(call) for call in calls]} if calls else {}
    finish = finish if finish is not None else "tool_calls" if calls else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    answer = chat_frame(model) | {"object": "chat.completion", "choices": [choice]}
    return whole(answer | ({"usage": usage} if usage else {}))


def chat_whole_call(call: Call) -> JSON:
    ident, name, arguments = call
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


# ---- Anthropic Messages --------------------------------------------------------------------

ANTHROPIC_USAGE = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 1024,
    "output_tokens": 57,
}
ANTHROPIC_PING = event({"type": "ping"})
SIGNATURE = "RmFrZVNpZ25hdHVyZQ=="


def anthropic_stream(
    text: str | Sequence[str] = "",
    reasoning: str | Sequence[str] = "",
    calls: Sequence[Call] = (),
    usage: JSON = ANTHROPIC_USAGE,
    finish: str | None = None,
    done: bool = True,
    model: str = "upstream-model",
    ping: bool = True,
) -> Answer:
    """`finish=""` leaves the message_delta out, `done=False` the message_stop."""
    finish = finish if finish is not None else "tool_use" if calls else "end_turn"
    blocks = [*anthropic_texts(text, reasoning), *(anthropic_call(call) for call in calls)]
    chunks = [anthropic_start(usage, model)] + [ANTHROPIC_PING] * ping
    for index, (start, deltas) in enumerate(blocks):
        chunks += anthropic_block(index, start, deltas)
    chunks += [anthropic_delta(finish, usage)] if finish else []
    return stream(chunks + [event({"type": "message_stop"})] * done)


def anthropic_message(model: str) -> JSON:
    return {
        "id": "msg_01Xy",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def anthropic_start(usage: JSON = ANTHROPIC_USAGE, model: str = "upstream-model") -> bytes:
    opening = {"usage": (usage or {"input_tokens": 0}) | {"output_tokens": 1}}
    return event({"type": "message_start", "message": anthropic_message(model) | opening})


def anthropic_block(index: int, start: JSON, deltas: Iterable[JSON]) -> list[bytes]:
    where = {"index": index}
    return [
        event({"type": "content_block_start"} | where | {"content_block": start}),
        *(event({"type": "content_block_delta"} | where | {"delta": delta}) for delta in deltas),
        event({"type": "content_block_stop"} | where),
    ]


def anthropic_delta(finish: str, usage: JSON = ANTHROPIC_USAGE) -> bytes:
    delta = {"stop_reason": finish, "stop_sequence": None}
    return event({"type": "message_delta", "delta": delta, "usage": usage or {"output_tokens": 0}})


def anthropic_texts(
    text: str | Sequence[str], reasoning: str | Sequence[str]
) -> list[tuple[JSON, list[JSON]]]:
    blocks: list[tuple[JSON, list[JSON]]] = []
    if reasoning:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(reasoning)]
        signed = [{"type": "signature_delta", "signature": SIGNATURE}]
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas + signed))
    if text:
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(text)]
        blocks.append(({"type": "text", "text": ""}, deltas))
    return blocks


def anthropic_call(call: Call) -> tuple[JSON, list[JSON]]:
    ident, name, arguments = call
    middle = len(arguments) // 2
    halves = (arguments[:middle], arguments[middle:])
    return (
        {"type": "tool_use", "id": ident, "name": name, "input": {}},
        [{"type": "input_json_delta", "partial_json": half} for half in halves],
    )


def anthropic_whole(
    text: str = "",
    reasoning: str = "",
    calls: Sequence[Call] = (),
    usage: JSON = ANTHROPIC_USAGE,
    finish: str | None = None,
    model: str = "upstream-model",
) -> Answer:
    content: list[JSON] = []
    if reasoning:
        content.append({"type": "thinking", "thinking": reasoning, "signature": SIGNATURE})
    if text:
        content.append({"type": "text", "text": text})
    for ident, name, arguments in calls:
        used = {"type": "tool_use", "id": ident, "name": name, "input": json.loads(arguments)}
        content.append(used)
    finish = finish if finish is not None else "tool_use" if calls else "end_turn"
    said = {"content": content, "stop_reason": finish}
    return whole(anthropic_message(model) | said | ({"usage": usage} if usage else {}))


# ---- OpenAI Responses ----------------------------------------------------------------------

RESPONSES_USAGE = {
    "input_tokens": 1045,
    "input_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 0},
    "output_tokens": 57,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 1102,
}
ENCRYPTED = "gAAAAFakeEncryptedContent=="


def responses_stream(
    text: str | Sequence[str] = "",
    reasoning: str | Sequence[str] = "",
    calls: Sequence[Call] = (),
    usage: JSON = RESPONSES_USAGE,
    finish: str | None = None,
    done: bool = True,
    model: str = "upstream-model",
) -> Answer:
    """`finish` is why it is incomplete; `done=False` leaves the last event out."""
    head = responses_answer([], "in_progress", None, model)
    said: list[JSON] = [
        {"type": "response.created", "response": head},
        {"type": "response.in_progress", "response": head},
    ]
    texts, thoughts = pieces(text), pieces(reasoning)
    items = responses_items("".join(texts), "".join(thoughts), calls)
    for index, item in enumerate(items):
        place = {"output_index": index}
        empty = {key: [] if key in ("content", "summary") else item[key] for key in item}
        empty |= {"arguments": ""} if "arguments" in item else {}
        empty.pop("encrypted_content", None)
        said.append({"type": "response.output_item.added", "item": empty} | place)
        said += (
            {"item_id": item["id"]} | place | event
            for event in responses_deltas(item, texts if item["type"] == "message" else thoughts)
        )
        said.append({"type": "response.output_item.done", "item": item} | place)
    if done:
        kind = "response.incomplete" if finish else "response.completed"
        said.append({"type": kind, "response": responses_answer(items, finish, usage, model)})
    return stream(event(each | {"sequence_number": n}) for n, each in enumerate(said))


def responses_deltas(item: JSON, said: Sequence[str]) -> list[JSON]:
    if item["type"] == "function_call":
        arguments, kind = item["arguments"], "response.function_call_arguments"
        halves = arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]
        deltas = [{"type": f"{kind}.delta", "delta": half} for half in halves]
        return [*deltas, {"type": f"{kind}.done", "arguments": arguments}]
    if item["type"] == "message":
        (part,) = item["content"]
        kind, place, more = "response.output_text", {"content_index": 0}, {"logprobs": []}
        around = "response.content_part"
    else:
        (part,) = item["summary"]
        kind, place, more = "response.reasoning_summary_text", {"summary_index": 0}, {}
        around = "response.reasoning_summary_part"
    deltas = [{"type": f"{kind}.delta", "delta": piece} | place | more for piece in said]
    return [
        {"type": f"{around}.added", "part": part | {"text": ""}} | place,
        *deltas,
        {"type": f"{kind}.done", "text": part["text"]} | place | more,
        {"type": f"{around}.done", "part": part} | place,
    ]


def responses_items(text: str, reasoning: str, calls: Sequence[Call]) -> list[JSON]:
    items: list[JSON] = []
    if reasoning:
        summary = [{"type": "summary_text", "text": reasoning}]
        thought = {"type": "reasoning", "id": "rs_1", "summary": summary}
        items.append(thought | {"encrypted_content": ENCRYPTED})
    if text:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
        items.append(said | {"content": [part]})
    for number, (ident, name, arguments) in enumerate(calls):
        call = {"type": "function_call", "id": f"fc_{number}", "call_id": ident, "name": name}
        items.append(call | {"arguments": arguments, "status": "completed"})
    return items


def responses_answer(items: Sequence[JSON], finish: str | None, usage: JSON, model: str) -> JSON:
    cut = finish if finish != "in_progress" else None
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1763600000,
        "status": finish if finish == "in_progress" else "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "model": model,
        "output": list(items),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def responses_whole(
    text: str = "",
    reasoning: str = "",
    calls: Sequence[Call] = (),
    usage: JSON = RESPONSES_USAGE,
    finish: str | None = None,
    model: str = "upstream-model",
) -> Answer:
    return whole(responses_answer(responses_items(text, reasoning, calls), finish, usage, model))


# ---- Gemini generateContent ----------------------------------------------------------------

GEMINI_USAGE = {
    "promptTokenCount": 1045,
    "cachedContentTokenCount": 1024,
    "candidatesTokenCount": 57,
    "totalTokenCount": 1102,
}


def gemini_stream(
    text: str | Sequence[str] = "",
    reasoning: str | Sequence[str] = "",
    calls: Sequence[Call] = (),
    usage: JSON = GEMINI_USAGE,
    finish: str | None = None,
    model: str = "upstream-model",
) -> Answer:
    """`finish=""` leaves the finish reason out; there is no other end."""
    finish = "STOP" if finish is None else finish
    parts = gemini_parts(pieces(text), pieces(reasoning), calls)
    chunks = [gemini_chunk([part], model=model) for part in parts[:-1]]
    last = gemini_chunk(parts[-1:], finish, model) | ({"usageMetadata": usage} if usage else {})
    return stream(map(data, [*chunks, last]))


def gemini_whole(
    text: str = "",
    reasoning: str = "",
    calls: Sequence[Call] = (),
    usage: JSON = GEMINI_USAGE,
    finish: str | None = None,
    model: str = "upstream-model",
) -> Answer:
    parts = gemini_parts([text] if text else [], [reasoning] if reasoning else [], calls)
    answer = gemini_chunk(parts, "STOP" if finish is None else finish, model)
    return whole(answer | ({"usageMetadata": usage} if usage else {}))


def gemini_parts(
    texts: Iterable[str], thoughts: Iterable[str], calls: Sequence[Call]
) -> list[JSON]:
    """As Gemini 3 says it: of parallel calls the first is signed."""
    said: list[JSON] = [{"text": thought, "thought": True} for thought in thoughts]
    said += [{"text": text} for text in texts]
    for number, (ident, name, arguments) in enumerate(calls):
        call = {"id": ident, "name": name, "args": json.loads(arguments)}
        said.append({"functionCall": call} | ({} if number else {"thoughtSignature": SIGNATURE}))
    return said


def gemini_chunk(parts: Sequence[JSON], finish: str = "", model: str = "upstream-model") -> JSON:
    candidate: JSON = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    candidate |= {"finishReason": finish} if finish else {}
    return {"candidates": [candidate], "modelVersion": model, "responseId": "r-7"}


# ---- Errors --------------------------------------------------------------------------------

GEMINI_KINDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
CHAT_KINDS = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("server_error", None),
}
ANTHROPIC_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
GLM_STATUS = {"1000": 401, "1001": 401, "1210": 400, "1211": 400, "1261": 400, "1301": 400}


def chat_error(
    status: int, message: str, type: str | None = None, code: str | None = None, **rest: Any
) -> Answer:
    kind, known = CHAT_KINDS.get(status, ("invalid_request_error", None))
    error = {"message": message, "type": type or kind, "param": None, "code": code or known}
    return whole({"error": error}, status, **rest)


def anthropic_error(status: int, message: str, type: str | None = None, **rest: Any) -> Answer:
    return whole(anthropic_error_body(status, message, type), status, **rest)


def anthropic_error_body(status: int, message: str, type: str | None = None) -> JSON:
    kind = type or ANTHROPIC_KINDS.get(
        status, "api_error" if status >= 500 else "invalid_request_error"
    )
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": "req_011"}


def gemini_error(status: int, message: str, **rest: Any) -> Answer:
    return whole(gemini_error_body(status, message), status, **rest)


def gemini_error_body(status: int, message: str) -> JSON:
    kind = GEMINI_KINDS.get(status, "INTERNAL")
    return {"error": {"code": status, "message": message, "status": kind}}


def gemini_error_event(message: str, status: int = 503) -> bytes:
    return data(gemini_error_body(status, message))


def glm_error(
    code: str, message: str, dialect: Literal["openai", "anthropic"] = "openai", **rest: Any
) -> Answer:
    """As GLM says it: the code is a string, and in brackets before the text for Anthropic."""
    status = GLM_STATUS.get(code, 429)
    if dialect == "anthropic":
        return anthropic_error(status, f"[{code}][{message}][2026112112]", **rest)
    return whole({"error": {"code": code, "message": message}}, status, **rest)


def chat_error_event(message: str, code: str | None = None) -> bytes:
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return data({"error": error})


def anthropic_error_event(message: str, status: int = 529) -> bytes:
    return event(anthropic_error_body(status, message))


def responses_error_event(message: str, code: str = "server_error") -> bytes:
    failed = responses_answer([], None, None, "upstream-model") | {"status": "failed"}
    failed["error"] = {"code": code, "message": message}
    return event({"type": "response.failed", "sequence_number": 99, "response": failed})


# ---- What is said without a script ---------------------------------------------------------

TEXT = "Hello from upstream."
FAVOURITES = ("bash", "shell", "get_weather")  # called before others, if offered
VALUES = {"command": "echo hello", "city": "Oslo", "file_path": "/etc/hostname"}
BLANKS: Mapping[str, JSON] = {
    "string": "x",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
}


def chat_speaks(body: JSON) -> Answer:
    tools = [tool["function"] for tool in body.get("tools") or [] if "function" in tool]
    results = called_since(body, lambda message: message["role"] == "tool")
    said = speech(body, tools, "parameters", "call_1", results)
    if not body.get("stream"):
        return chat_whole(**said)
    wants_usage = (body.get("stream_options") or {}).get("include_usage")
    return chat_stream(**said, usage=CHAT_USAGE if wants_usage else None)


def anthropic_speaks(body: JSON) -> Answer:
    tools = [tool for tool in body.get("tools") or [] if "input_schema" in tool]
    results = called_since(body, holds_tool_result)
    said = speech(body, tools, "input_schema", "toolu_01", results)
    return anthropic_stream(**said) if body.get("stream") else anthropic_whole(**said)


def responses_speaks(body: JSON) -> Answer:
    tools = [tool for tool in body.get("tools") or [] if tool["type"] == "function"]
    items = body["input"] if isinstance(body.get("input"), list) else []
    results = bool(items) and items[-1].get("type") == "function_call_output"
    said = speech(body, tools, "parameters", "call_1", results)
    return responses_stream(**said) if body.get("stream") else responses_whole(**said)


SCHEMAS = ("parametersJsonSchema", "parameters_json_schema", "parameters")


def gemini_says(body: JSON) -> Answer:
    return gemini_whole(**gemini_speech(body))


def gemini_streams(body: JSON) -> Answer:
    return gemini_stream(**gemini_speech(body))


def gemini_speech(body: JSON) -> JSON:
    entries = body.get("tools") or []
    tools = [
        {"name": tool["name"], "schema": next((tool[key] for key in SCHEMAS if key in tool), {})}
        for entry in entries
        for tool in entry.get("functionDeclarations", ())
    ]
    mode = body.get("toolConfig", {}).get("functionCallingConfig", {}).get("mode", "AUTO")
    last = body["contents"][-1]["parts"]
    results = mode == "NONE" or any("functionResponse" in part for part in last)
    return speech({}, tools, "schema", "fc-1", results)


def gemini_counts(body: JSON) -> Answer:
    return whole({"totalTokens": max(1, len(dump(body)) // 4)})


def speech(body: JSON, tools: Sequence[JSON], schema: str, ident: str, results: bool) -> JSON:
    model = body.get("model") or "upstream-model"
    if results or not tools or body.get("tool_choice") in ("none", {"type": "none"}):
        return {"model": model, "text": TEXT}
    tool = min(tools, key=lambda tool: favour(tool["name"]))
    return {"model": model, "calls": [(ident, tool["name"], json.dumps(fill(tool.get(schema))))]}


def favour(name: str) -> int:
    return FAVOURITES.index(name.lower()) if name.lower() in FAVOURITES else len(FAVOURITES)


def fill(schema: JSON) -> JSON:
    """Arguments that satisfy a simple schema."""
    schema = schema or {}
    properties = schema.get("properties") or {}
    return {name: value_of(name, properties.get(name)) for name in schema.get("required", ())}


def value_of(name: str, schema: JSON) -> JSON:
    if schema and "enum" in schema:
        return schema["enum"][0]
    kind = (schema or {}).get("type", "string")
    return VALUES.get(name) or BLANKS[kind if isinstance(kind, str) else kind[0]]


def called_since(body: JSON, is_result: Callable[[JSON], bool]) -> bool:
    """Has a tool answered since the assistant spoke last?"""
    for message in reversed(body.get("messages") or []):
        if message["role"] == "assistant":
            return False
        if is_result(message):
            return True
    return False


def holds_tool_result(message: JSON) -> bool:
    content = message["content"]
    return isinstance(content, list) and any(block["type"] == "tool_result" for block in content)


def counts(body: JSON) -> Answer:
    return whole({"input_tokens": max(1, len(dump(body)) // 4)})


def lists(body: JSON) -> Answer:
    return whole({"object": "list", "data": [{"id": "upstream-model", "object": "model"}]})


def is_lost(body: JSON) -> Answer:
    return chat_error(404, "no such path")


SPEAKERS: Mapping[str, Callable[[JSON], Answer]] = {
    "/messages": anthropic_speaks,
    "/messages/count_tokens": counts,
    "/chat/completions": chat_speaks,
    "/responses": responses_speaks,
    "/responses/input_tokens": counts,
    "/models": lists,
    ":generateContent": gemini_says,
    ":streamGenerateContent": gemini_streams,
    ":countTokens": gemini_counts,
}


def answer_well(seen: "Seen") -> Answer:
    speaks = next((SPEAKERS[end] for end in SPEAKERS if seen.path.endswith(end)), is_lost)
    return speaks(seen.json if seen.body else {})


# ---- The server ----------------------------------------------------------------------------


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: str
    headers: CIMultiDict[str]
    body: bytes = b""
    sent: int = 0  # bytes of body written so far
    left: asyncio.Event = field(default_factory=asyncio.Event)  # gone before the answer ended

    @property
    def json(self) -> JSON:
        return json.loads(self.body)


Scripted = Answer | Callable[[Seen], Answer]


class FakeUpstream:
    """One server on loopback that plays all providers."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self._scripts: dict[str, list[Scripted]] = {}
        self._arrival = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        options: JSON = {"auto_decompress": False, "max_field_size": 2**20, "max_line_size": 2**20}
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None, **options
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port: int = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    def script(self, *answers: Scripted, path: str | None = None) -> None:
        """Answers in order, the last one again and again; `path` is the end of the paths meant."""
        self._scripts[path or ""] = list(answers)

    async def arrived(self, count: int = 1) -> Seen:
        """The count-th request, once it is here."""
        async with asyncio.timeout(SOON), self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        seen = Seen(request.method, path, query, CIMultiDict(request.headers))
        seen.body = await request.read()
        async with self._arrival:
            self.requests.append(seen)
            self._arrival.notify_all()
        try:
            return await give(self._next(seen), request, seen)
        except (asyncio.CancelledError, ConnectionError):
            seen.left.set()
            raise

    def _next(self, seen: Seen) -> Answer:
        ends = sorted(self._scripts, key=len, reverse=True)
        found = (self._scripts[end] for end in ends if seen.path.endswith(end))
        script = next(found, [answer_well])
        scripted = script.pop(0) if len(script) > 1 else script[0]
        return scripted if isinstance(scripted, Answer) else scripted(seen)


async def give(answer: Answer, request: web.Request, seen: Seen) -> web.StreamResponse:
    await asyncio.sleep(answer.delay)
    await held(answer, HEAD)
    response = head(answer)
    if answer.reset or answer.raw is not None:
        return spoil(answer, request, response)
    await response.prepare(request)
    async for part in parts(answer):
        await response.write(part)
        seen.sent += len(part)
    if answer.cut_after is not None:
        return abort(request, response)
    if answer.never_ends:
        await asyncio.Event().wait()
    await response.write_eof()
    return response


def head(answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.headers["Content-Type"] = answer.kind
    if answer.compress:
        response.headers["Content-Encoding"] = answer.compress
    if not answer.streams:
        response.content_length = len(packed(answer)[0])
    return response


async def parts(answer: Answer) -> AsyncIterator[bytes]:
    """The body in the writes it is sent in, up to where it is cut."""
    room = answer.cut_after
    for index, chunk in enumerate(packed(answer)):
        await held(answer, index)
        for part in dripped(chunk[:room], answer.drip):
            yield part
            await asyncio.sleep(answer.pause)
        room = None if room is None else room - len(chunk)
        if room is not None and room < 0:
            return


async def held(answer: Answer, index: int) -> None:
    if index in answer.hold:
        await answer.hold[index].wait()


def packed(answer: Answer) -> list[bytes]:
    if not answer.compress:
        return answer.chunks
    if not answer.streams:
        return [gzip.compress(answer.wire, mtime=0)]
    packer = zlib.compressobj(wbits=31)
    chunks = [packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH) for chunk in answer.chunks]
    return [*chunks, packer.flush()]


def dripped(chunk: bytes, size: int | None) -> list[bytes]:
    size = size or max(1, len(chunk))
    return [chunk[start : start + size] for start in range(0, len(chunk), size)]


def spoil(answer: Answer, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """RST, or bytes that are not HTTP and a close."""
    assert request.transport is not None
    if answer.raw is not None:
        request.transport.write(answer.raw)
        request.transport.close()
        return response
    linger = struct.pack("ii", 1, 0)
    request.transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, linger
    )
    return abort(request, response)


def abort(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return response
