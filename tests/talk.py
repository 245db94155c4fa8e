"""What the tests say to relay, and how they read what it says.

`ask` sends a request and reads the answer to its end; `dial` gives the bare connection, for
tests about when bytes arrive, how a stream ends, and requests no HTTP library would send.
`Said` is what an answer means, so that all dialects, whole and streamed, can be compared.
"""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import fake_upstream as fake
import yarl
from fake_upstream import Answer, FakeUpstream, Seen
from multidict import CIMultiDict, CIMultiDictProxy
from relay_process import SECRET, SOON, RelayProcess

JSON = Any
Case = TypeVar("Case")

UPSTREAM_KEY = f"{SECRET}-of-the-provider"
CLIENT_KEY = f"{SECRET}-of-the-client"

# ---- Requests ------------------------------------------------------------------------------

TOOL = {"city": {"type": "string"}}
SCHEMA = {"type": "object", "properties": TOOL, "required": ["city"]}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
ANTHROPIC_TOOL = {"name": "get_weather", "input_schema": SCHEMA}
RESPONSES_TOOL = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}


def chat(model: str = "m", text: str = "Hi.", **extra: JSON) -> JSON:
    return {"model": model, "messages": [{"role": "user", "content": text}], **extra}


def messages(model: str = "m", text: str = "Hi.", max_tokens: int = 100, **extra: JSON) -> JSON:
    asked = [{"role": "user", "content": text}]
    return {"model": model, "max_tokens": max_tokens, "messages": asked, **extra}


def responses(model: str = "m", text: str = "Hi.", **extra: JSON) -> JSON:
    return {"model": model, "input": [{"role": "user", "content": text}], **extra}


@dataclass(frozen=True)
class Dialect:
    """What the tests need to know of a dialect, of both ends."""

    name: str
    path: str
    body: Callable[..., JSON]
    stream: Callable[..., Answer]
    whole: Callable[..., Answer]
    error: Callable[..., Answer]
    error_event: Callable[[str], bytes]
    tool: JSON
    end: bytes  # what only a good end has
    cut: str  # how it says that there was no more room
    turns: str = "messages"
    room: str = "max_tokens"


ANTHROPIC = Dialect(
    "anthropic",
    "/v1/messages",
    messages,
    fake.anthropic_stream,
    fake.anthropic_whole,
    fake.anthropic_error,
    fake.anthropic_error_event,
    ANTHROPIC_TOOL,
    b"message_stop",
    "max_tokens",
)
OPENAI = Dialect(
    "openai",
    "/v1/chat/completions",
    chat,
    fake.chat_stream,
    fake.chat_whole,
    fake.chat_error,
    fake.chat_error_event,
    CHAT_TOOL,
    b"[DONE]",
    "length",
)
RESPONSES = Dialect(
    "responses",
    "/v1/responses",
    responses,
    fake.responses_stream,
    fake.responses_whole,
    fake.chat_error,
    fake.responses_error_event,
    RESPONSES_TOOL,
    b"response.completed",
    "max_output_tokens",
    "input",
    "max_output_tokens",
)
DIALECTS = {dialect.name: dialect for dialect in (ANTHROPIC, OPENAI, RESPONSES)}
PAIRS = [(client, provider) for client in DIALECTS for provider in DIALECTS]

# ---- Configurations ------------------------------------------------------------------------

NAMES = ("first", "second", "third", "fourth")


def provider(upstream: FakeUpstream | str, dialect: str = "openai", **extra: JSON) -> JSON:
    endpoint = upstream if isinstance(upstream, str) else upstream.url
    return {"api_format": dialect, "endpoint": endpoint, "api_key": UPSTREAM_KEY, **extra}


def config(*upstreams: FakeUpstream | str, dialect: str = "openai", **top: JSON) -> JSON:
    """Providers `first`, `second`, ..., tried for the model `m` in this order."""
    named = dict(zip(NAMES, upstreams, strict=False))
    providers = {name: provider(upstream, dialect) for name, upstream in named.items()}
    return {"providers": providers, "routing_rules": {"m": list(providers)}, **top}


def noon() -> str:
    """A time zone in which no day and no month turns while a test runs."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


def slug(name: str) -> str:
    """A name as a provider or a path may have it."""
    return re.sub(r"\W+", "-", name).strip("-").lower()


def table(
    upstream: FakeUpstream, answers: Mapping[str, Answer], dialect: str = "openai", **extra: JSON
) -> JSON:
    """A provider for every named answer, so that none suffers from another's mark.

    The model is called as its provider; after `.../` comes the name of the answer.
    """
    for name, answer in answers.items():
        upstream.script(answer, path=f"/{slug(name)}{DIALECTS[dialect].path}")
    return {
        "providers": {
            slug(name): provider(f"{upstream.url}/{slug(name)}/v1", dialect, **extra)
            for name in answers
        },
        "routing_rules": {slug(name): slug(name) for name in answers},
    }


def one(upstream: FakeUpstream | str, dialect: str = "openai", **extra: JSON) -> JSON:
    """The provider `first` alone, with options of its own; it takes every model name."""
    return {"providers": {"first": provider(upstream, dialect, **extra)}}


# ---- Answers -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    name: str | None
    data: str

    @property
    def json(self) -> JSON:
        return json.loads(self.data)


@dataclass(frozen=True)
class Said:
    """What an answer means; finish reasons and usage in the words of chat."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, JSON], ...] = ()
    finish: str | None = None
    tokens_in: int = 0
    cache_read: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class Reply:
    """An answer read to its end, good or not."""

    dialect: Dialect
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    clean: bool = True  # the transfer ended as HTTP says it must

    @property
    def json(self) -> JSON:
        return json.loads(self.body)

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def events(self) -> list[Event]:
        return list(events_of(self.body))

    @property
    def said(self) -> Said:
        assert self.status == 200, self.body
        assert self.clean, self.body
        return READERS[self.dialect.name, self.streamed](self.body)

    @property
    def error(self) -> JSON:
        """The error object, of an answer that is one in the client's dialect."""
        assert self.headers["content-type"].startswith("application/json"), self.headers
        return checked_error(self.dialect, self.json)

    @property
    def final_error(self) -> JSON:
        """The error event a broken stream ends with."""
        assert not self.clean, self.body
        assert self.dialect.end not in self.body
        return checked_error(self.dialect, self.events[-1].json)


def checked_error(dialect: Dialect, body: JSON) -> JSON:
    if body.get("type") == "response.failed":
        error = body["response"]["error"]
        assert isinstance(error["message"], str)
        assert isinstance(error["code"], str)
        return error
    error = body["error"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    if dialect is ANTHROPIC:
        assert body["type"] == "error"
    else:
        assert {"message", "type", "param", "code"} <= error.keys()
    return error


def events_of(body: bytes) -> Iterator[Event]:
    text = body.decode().replace("\r\n", "\n")
    for block in filter(str.strip, text.split("\n\n")):
        lines = [line.partition(":")[::2] for line in block.split("\n") if not line.startswith(":")]
        fields = [(name, value.removeprefix(" ")) for name, value in lines]
        payload = "\n".join(value for name, value in fields if name == "data")
        if payload:
            yield Event(next((value for name, value in fields if name == "event"), None), payload)


def read_chat(body: bytes) -> Said:
    answer = json.loads(body)
    choice = answer["choices"][0]
    message = choice["message"]
    functions = [call["function"] for call in message.get("tool_calls") or []]
    return Said(
        text=message.get("content") or "",
        reasoning=message.get("reasoning_content") or "",
        calls=tuple((each["name"], json.loads(each["arguments"])) for each in functions),
        finish=choice["finish_reason"],
        **chat_usage(answer.get("usage")),
    )


def chat_usage(usage: JSON) -> JSON:
    cached = ((usage or {}).get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    read = {"tokens_in": "prompt_tokens", "tokens_out": "completion_tokens"}
    return {name: (usage or {}).get(key, 0) for name, key in read.items()} | {"cache_read": cached}


def read_chat_stream(body: bytes) -> Said:
    events = list(events_of(body))
    assert events[-1].data == "[DONE]", events[-1]
    chunks = [event.json for event in events[:-1]]
    assert not any("error" in chunk for chunk in chunks), body
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    deltas = [choice["delta"] for choice in choices]
    finishes = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert len(finishes) == 1, finishes
    return Said(
        text="".join(delta.get("content") or "" for delta in deltas),
        reasoning="".join(delta.get("reasoning_content") or "" for delta in deltas),
        calls=tuple(chat_calls(deltas)),
        finish=finishes[0],
        **chat_usage(usages[-1] if usages else None),
    )


def chat_calls(deltas: list[JSON]) -> Iterator[tuple[str, JSON]]:
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for fragment in (part for delta in deltas for part in delta.get("tool_calls") or []):
        index, function = fragment["index"], fragment["function"]
        names.setdefault(index, function.get("name") or "")
        arguments[index] = arguments.get(index, "") + (function.get("arguments") or "")
    yield from ((names[index], json.loads(arguments[index])) for index in names)


ANTHROPIC_FINISH = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}


def read_anthropic(body: bytes) -> Said:
    return anthropic_said(json.loads(body))


def anthropic_said(message: JSON) -> Said:
    kinds = ("text", "thinking", "redacted_thinking", "tool_use")
    blocks: dict[str, list[JSON]] = {kind: [] for kind in kinds}
    for block in message["content"]:
        blocks[block["type"]].append(block)
    usage = message["usage"]
    cached = usage.get("cache_read_input_tokens") or 0
    return Said(
        text="".join(block["text"] for block in blocks["text"]),
        reasoning="".join(block["thinking"] for block in blocks["thinking"]),
        calls=tuple((block["name"], block["input"]) for block in blocks["tool_use"]),
        finish=ANTHROPIC_FINISH[message["stop_reason"]],
        tokens_in=usage["input_tokens"] + cached + (usage.get("cache_creation_input_tokens") or 0),
        cache_read=cached,
        tokens_out=usage["output_tokens"],
    )


def read_anthropic_stream(body: bytes) -> Said:
    """Strict: an event out of order is an error."""
    events = [event.json for event in events_of(body) if event.name != "ping"]
    assert [event.name for event in events_of(body) if event.name != "ping"] == [
        event["type"] for event in events
    ]
    assert [events[0]["type"], events[-2]["type"], events[-1]["type"]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ], body
    message = events[0]["message"]
    assert message["content"] == []
    message["content"] = anthropic_blocks(events[1:-2])
    message["usage"] |= events[-2]["usage"]
    return anthropic_said(message | events[-2]["delta"])


def anthropic_blocks(events: list[JSON]) -> list[JSON]:
    blocks: list[JSON] = []
    open_block: JSON = None
    for event in events:
        if event["type"] == "content_block_start":
            assert open_block is None, event
            assert event["index"] == len(blocks), event
            open_block = event["content_block"] | {"json": ""}
            blocks.append(open_block)
        elif event["type"] == "content_block_delta":
            assert open_block is not None, event
            assert event["index"] == len(blocks) - 1, event
            extend(open_block, event["delta"])
        else:
            assert event["type"] == "content_block_stop", event
            open_block = None
    assert open_block is None
    return [closed(block) for block in blocks]


def read_responses(body: bytes) -> Said:
    return responses_said(json.loads(body))


def responses_said(answer: JSON) -> Said:
    items: dict[str, list[JSON]] = {"message": [], "reasoning": [], "function_call": []}
    for item in answer["output"]:
        items[item["type"]].append(item)
    cut = (answer["incomplete_details"] or {}).get("reason")
    assert answer["status"] == ("incomplete" if cut else "completed")
    whole = "tool_calls" if items["function_call"] else "stop"
    usage = answer["usage"]
    return Said(
        text="".join(part["text"] for item in items["message"] for part in item["content"]),
        reasoning="".join(part["text"] for item in items["reasoning"] for part in item["summary"]),
        calls=tuple((i["name"], json.loads(i["arguments"])) for i in items["function_call"]),
        finish=RESPONSES_FINISH.get(cut, whole),
        tokens_in=usage["input_tokens"],
        cache_read=usage["input_tokens_details"]["cached_tokens"],
        tokens_out=usage["output_tokens"],
    )


RESPONSES_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def read_responses_stream(body: bytes) -> Said:
    """Strict: numbered without a gap, and what was said in pieces is what is said at the end."""
    events = [event.json for event in events_of(body) if event.json["type"] != "keepalive"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:2] == ["created", "in_progress"]
    assert [kind for kind in kinds if kind in RESPONSES_ENDS] == [kinds[-1]]
    answer = events[-1]["response"]
    said = [event["item"] for event in events if event["type"].endswith("item.done")]
    assert answer["output"] == said
    read = responses_said(answer)
    for kind, text in (("output_text", read.text), ("reasoning_summary_text", read.reasoning)):
        deltas = (e["delta"] for e in events if e["type"] == f"response.{kind}.delta")
        assert "".join(deltas) == text
    return read


RESPONSES_ENDS = ("completed", "incomplete", "failed")


DELTAS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("partial_json", "json"),
}


def extend(block: JSON, delta: JSON) -> None:
    source, target = DELTAS[delta["type"]]
    block[target] = (block.get(target) or "") + delta[source]


def closed(block: JSON) -> JSON:
    arguments = block.pop("json")
    return block | ({"input": json.loads(arguments or "{}")} if block["type"] == "tool_use" else {})


READERS: Mapping[tuple[str, bool], Callable[[bytes], Said]] = {
    ("openai", False): read_chat,
    ("openai", True): read_chat_stream,
    ("anthropic", False): read_anthropic,
    ("anthropic", True): read_anthropic_stream,
    ("responses", False): read_responses,
    ("responses", True): read_responses_stream,
}

# ---- Asking --------------------------------------------------------------------------------


async def ask(
    http: aiohttp.ClientSession,
    server: RelayProcess,
    dialect: str | Dialect = "openai",
    *,
    headers: Mapping[str, str] | None = None,
    path: str | None = None,
    raw: bytes | None = None,
    **body: JSON,
) -> Reply:
    """One POST, read to its end.  `raw` is a body as it is, else one is made of the rest."""
    speaks = DIALECTS[dialect] if isinstance(dialect, str) else dialect
    content = fake.dump(speaks.body(**body)) if raw is None else raw
    url = yarl.URL(server.url + (path or speaks.path), encoded=True)
    sent = {"content-type": "application/json", **(headers or {})}
    async with http.post(url, data=io.BytesIO(content), headers=sent) as response:
        received = response.headers
        try:
            return Reply(speaks, response.status, received, await response.read())
        except aiohttp.ClientPayloadError:
            return Reply(speaks, response.status, received, b"", clean=False)


async def each(cases: Mapping[str, Case], check: Callable[[str, Case], Awaitable[None]]) -> None:
    """All cases of a table at once, and which of them do not hold."""
    checked = (check(name, case) for name, case in cases.items())
    results = await asyncio.gather(*checked, return_exceptions=True)
    wrong = {name: result for name, result in zip(cases, results, strict=True) if result}
    assert not wrong, "\n".join(f"{name}: {result!r}" for name, result in wrong.items())


async def eventually(
    holds: Callable[[], Awaitable[bool]], within: float = SOON, every: float = 0.05
) -> None:
    """For what only asking again can show."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(every)


async def stalled(seen: Seen) -> None:
    """Until every buffer on the way to the client is full, and the provider can write no more."""
    sent = -1
    while sent != seen.sent:
        sent = seen.sent
        await asyncio.sleep(0.5)


class Cut(Exception):
    """The connection ended before the answer did."""


class Reader(asyncio.StreamReader):
    """What came before a reset was said all the same: asyncio's own reader forgets it."""

    def set_exception(self, exc: BaseException) -> None:
        self.feed_eof()


class Wire:
    """One connection to relay, and one request on it, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.dialect = OPENAI
        self.status = 0
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())

    async def send(self, content: bytes) -> None:
        """As much of it as the other side takes: it may have answered already, and hung up."""
        with suppress(ConnectionError):
            self.writer.write(content)
            await self.writer.drain()

    async def post(
        self, dialect: str, headers: Mapping[str, str] | None = None, **body: JSON
    ) -> None:
        """Send a request; streamed unless said otherwise."""
        self.dialect = DIALECTS[dialect]
        content = fake.dump(self.dialect.body(**{"stream": True, **body}))
        head = {"host": "localhost", "content-type": "application/json", **(headers or {})}
        head["content-length"] = str(len(content))
        await self.send(request_head("POST", self.dialect.path, head) + content)

    async def head(self) -> int:
        """The status, once the head is here."""
        try:
            async with asyncio.timeout(SOON):
                head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise Cut from error
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        pairs = [line.partition(":")[::2] for line in lines[1:] if line]
        self.headers = CIMultiDictProxy(CIMultiDict((k, v.strip()) for k, v in pairs))
        return self.status

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, until its proper end; `Cut` if there is none."""
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    yield (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            else:
                yield await self.reader.readexactly(int(self.headers["content-length"]))
        except asyncio.IncompleteReadError as error:
            raise Cut from error

    async def until(self, mark: bytes) -> bytes:
        """The body up to the chunk in which `mark` has come."""
        seen = b""
        async with asyncio.timeout(SOON):
            async for chunk in self.chunks():
                seen += chunk
                if mark in seen:
                    return seen
        raise AssertionError(f"{mark!r} never came: {seen!r}")

    async def reply(self, before: bytes = b"") -> Reply:
        """All of it, whether it ends well or not."""
        if not self.status:
            await self.head()
        body, clean = bytearray(before), True
        try:
            async for chunk in self.chunks():
                body += chunk
        except Cut:
            clean = False
        return Reply(self.dialect, self.status, self.headers, bytes(body), clean)

    async def closed(self) -> bool:
        """Has the other side hung up?"""
        async with asyncio.timeout(SOON):
            return await self.reader.read() is not None

    def hang_up(self) -> None:
        if not self.writer.is_closing():  # asyncio before 3.12 aborts a closed one badly
            self.writer.transport.abort()


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    fields = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *fields, "", ""]).encode()


@asynccontextmanager
async def dial(server: RelayProcess) -> AsyncIterator[Wire]:
    at = urlsplit(server.url)
    loop = asyncio.get_running_loop()
    reader = Reader(limit=2**24, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, at.hostname, at.port)
    wire = Wire(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
    try:
        yield wire
    finally:
        wire.hang_up()


async def stream_of(server: RelayProcess, dialect: str, **body: JSON) -> Reply:
    """A streamed request whose answer may end badly, read to its end."""
    async with dial(server) as wire:
        await wire.post(dialect, **body)
        return await wire.reply()
