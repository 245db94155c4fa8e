"""The vendors' own SDKs and types, as judges of what relay says to clients.

    recorder = Recorder("anthropic")
    client = AsyncAnthropic(http_client=DefaultAsyncHttpxClient(transport=recorder), ...)
    recorder.judge()                    # every answer, event by event, is as the vendor has it

Validation is the types' own, strict, on the bytes the SDK was given: the SDKs construct their
objects without looking.  `Tee` does the same between relay and a client that is a program.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import anthropic.types
import google.genai.types as gemini
import httpx2
import openai.types
from aiohttp import web
from anthropic.types import MessageTokensCount, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import CompactedResponse, Response, ResponseStreamEvent
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter
from talk import Event, events_of

# One pixel, for requests with images.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@dataclass
class Heard:
    """One request of a client, and relay's answer to it, as they went over the wire."""

    dialect: str
    path: str
    sent_headers: Mapping[str, str]
    sent: bytes
    status: int
    headers: Mapping[str, str]
    body: bytearray = field(default_factory=bytearray)

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


class Recorder(httpx2.AsyncBaseTransport):
    """What an SDK sends and is given, kept on its way."""

    def __init__(self, dialect: str) -> None:
        self.heard: list[Heard] = []
        self._dialect = dialect
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sent = await request.aread()
        answer = await self._inner.handle_async_request(request)
        asked = (self._dialect, request.url.path, request.headers, sent)
        heard = Heard(*asked, answer.status_code, answer.headers)
        self.heard.append(heard)
        assert isinstance(answer.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            answer.status_code,
            headers=answer.headers,
            stream=Kept(answer.stream, heard.body),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()

    @property
    def last(self) -> Heard:
        return self.heard[-1]

    def judge(self) -> None:
        for heard in self.heard:
            judge(heard)


class Kept(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, body: bytearray) -> None:
        self._inner = inner
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._body += chunk
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class Tee:
    """A server in front of relay that hands everything on, and keeps it."""

    def __init__(self, dialect: str, url: str) -> None:
        self.heard: list[Heard] = []
        self._dialect = dialect
        self._target = url

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        sent = await request.read()
        asking = self._session.request(
            request.method, self._target + request.raw_path, headers=request.headers, data=sent
        )
        async with asking as answer:
            asked = (self._dialect, request.path, request.headers, sent)
            heard = Heard(*asked, answer.status, answer.headers)
            self.heard.append(heard)
            hop = ("transfer-encoding", "connection", "keep-alive")
            kept = {
                name: value for name, value in answer.headers.items() if name.lower() not in hop
            }
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                heard.body += chunk
                await response.write(chunk)
            return response

    def judge(self) -> None:
        for heard in self.heard:
            judge(heard)


# ---- Judging -------------------------------------------------------------------------------


class AnthropicModels(BaseModel):
    data: list[anthropic.types.ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None


class OpenAIModels(BaseModel):
    object: str
    data: list[openai.types.Model]


class OpenAIError(BaseModel):
    error: ErrorObject


class GeminiStatus(BaseModel, extra="forbid"):
    code: int
    message: str
    status: str
    details: list[dict[str, str]] = []


class GeminiError(BaseModel, extra="forbid"):
    error: GeminiStatus


class GeminiModel(BaseModel, extra="forbid"):
    name: str
    version: str
    displayName: str  # noqa: N815  # as it is on the wire
    supportedGenerationMethods: list[str]  # noqa: N815
    inputTokenLimit: int = 0  # noqa: N815
    outputTokenLimit: int = 0  # noqa: N815


class GeminiModels(BaseModel, extra="forbid"):
    models: list[GeminiModel]


class GeminiCount(BaseModel, extra="forbid"):
    totalTokens: int  # noqa: N815


class Ping(BaseModel, extra="forbid"):
    type: str


ERRORS = {
    "anthropic": TypeAdapter[Any](anthropic.types.ErrorResponse),
    "gemini": TypeAdapter[Any](GeminiError),
    "openai": TypeAdapter[Any](OpenAIError),
    "responses": TypeAdapter[Any](OpenAIError),
}
WHOLE = {
    ("anthropic", "/v1/messages"): TypeAdapter[Any](anthropic.types.Message),
    ("anthropic", "/v1/messages/count_tokens"): TypeAdapter[Any](MessageTokensCount),
    ("anthropic", "/v1/models"): TypeAdapter[Any](AnthropicModels),
    ("anthropic", "/v1/models/.+"): TypeAdapter[Any](anthropic.types.ModelInfo),
    ("gemini", "/v1.*/models/.+:generateContent"): TypeAdapter[Any](gemini.GenerateContentResponse),
    ("gemini", "/v1.*/models/.+:countTokens"): TypeAdapter[Any](GeminiCount),
    ("gemini", "/v1.*/models"): TypeAdapter[Any](GeminiModels),
    ("gemini", "/v1.*/models/.+"): TypeAdapter[Any](GeminiModel),
    ("openai", "/v1/chat/completions"): TypeAdapter[Any](ChatCompletion),
    ("responses", "/v1/responses"): TypeAdapter[Any](Response),
    ("responses", "/v1/responses/compact"): TypeAdapter[Any](CompactedResponse),
    ("responses", "/v1/responses/input_tokens"): TypeAdapter[Any](InputTokenCountResponse),
    ("openai", "/v1/models"): TypeAdapter[Any](OpenAIModels),
    ("openai", "/v1/models/.+"): TypeAdapter[Any](openai.types.Model),
}
PING = TypeAdapter[Any](Ping)
EVENT = TypeAdapter[Any](RawMessageStreamEvent)
CHUNK = TypeAdapter[Any](ChatCompletionChunk)
RESPONSE_EVENT = TypeAdapter[Any](ResponseStreamEvent)


def judge(heard: Heard) -> None:
    body = bytes(heard.body)
    if heard.status >= 400:
        valid(ERRORS[heard.dialect], body)
    elif heard.streamed:
        STREAMS[heard.dialect](list(events_of(body)))
    else:
        valid(whole_of(heard), body)


def whole_of(heard: Heard) -> TypeAdapter[Any]:
    """The type of a whole answer, by dialect and path."""
    ways = (way for way in WHOLE if way[0] == heard.dialect and re.fullmatch(way[1], heard.path))
    return WHOLE[next(ways)]


def valid(adapter: TypeAdapter[Any], text: str | bytes) -> None:
    adapter.validate_json(text, strict=True)


def judge_anthropic(events: list[Event]) -> None:
    for event in events:
        assert event.name == event.json["type"], event
        valid(KINDS.get(event.json["type"], EVENT), event.data)
    ends = [event.name for event in events if event.name in ("message_stop", "error")]
    assert ends == [events[-1].name], events[-1]


KINDS = {"ping": PING, "error": ERRORS["anthropic"]}


def judge_openai(events: list[Event]) -> None:
    assert not any(event.name for event in events)
    for event in events:
        if event.data != "[DONE]":
            valid(ERRORS["openai"] if "error" in event.json else CHUNK, event.data)
    ended = [event.data == "[DONE]" or "error" in event.json for event in events]
    assert ended.index(True) == len(events) - 1, events[-1]


def judge_responses(events: list[Event]) -> None:
    """Numbered without a gap, keep-alives aside, and with one last event."""
    told = [event for event in events if event.json["type"] != "keepalive"]
    for number, event in enumerate(told):
        assert event.name == event.json["type"], event
        if event.name == "response.failed":  # relay's own behind another's; with codes for Codex
            continue
        assert event.json["sequence_number"] == number, event
        valid(RESPONSE_EVENT, event.data)
    ends = ("response.completed", "response.incomplete", "response.failed")
    assert [event.name for event in told if event.name in ends] == [events[-1].name], events[-1]


def judge_gemini(events: list[Event]) -> None:
    """Whole chunks, of which the last says how it ended; nothing is named, nothing else is said."""
    chunk = TypeAdapter[Any](gemini.GenerateContentResponse)
    assert not any(event.name for event in events)
    for event in events:
        valid(ERRORS["gemini"] if "error" in event.json else chunk, event.data)
    ended = ["error" in e.json or "finishReason" in e.json["candidates"][0] for e in events]
    assert True not in ended[:-1], events[-1]  # a break is told by the connection alone


STREAMS: Mapping[str, Callable[[list[Event]], None]] = {
    "anthropic": judge_anthropic,
    "gemini": judge_gemini,
    "openai": judge_openai,
    "responses": judge_responses,
}
