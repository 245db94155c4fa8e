"""Gemini's clients before every provider, and its provider behind every client, on real sockets.

The other integration tests run over the dialects that name the model in the body; here is what
the pairs with Gemini need to show of the same.
"""

import json
from collections.abc import Callable
from typing import Any

import aiohttp
import fake_upstream as fake
import pytest
from aiohttp import ClientSession
from fake_upstream import Answer, FakeUpstream, stream
from relay_process import RelayProcess, Start
from talk import DIALECTS, JSON, config, events_of, provider, stream_of

CALL = ("call_1", "get_weather", '{"city": "Paris"}')
BODY: JSON = {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}
PLAYS: dict[str, tuple[Callable[..., Answer], Callable[..., Answer]]] = {
    **{name: (speaks.whole, speaks.stream) for name, speaks in DIALECTS.items()},
    "gemini": (fake.gemini_whole, fake.gemini_stream),
}
ERRORS: dict[str, bytes] = {
    "anthropic": fake.anthropic_error_event("overloaded"),
    "openai": fake.chat_error_event("overloaded"),
    "responses": fake.responses_error_event("overloaded"),
    "gemini": fake.gemini_error_event("overloaded"),
}


def behind(upstream: FakeUpstream, dialect: str) -> JSON:
    return {
        "providers": {
            name: provider(f"{upstream.url}/{name}", dialect) for name in ("first", "second")
        },
        "routing_rules": {"m": ["first/m", "second/m"]},
    }


async def generate(
    http: ClientSession, server: RelayProcess, how: str = "generateContent", body: JSON = BODY
) -> tuple[int, bytes, bool]:
    """Status, body as far as it came, and whether it ended as HTTP says it must."""
    received = b""
    async with http.post(f"{server.url}/v1beta/models/m:{how}", json=body) as response:
        try:
            async for block in response.content.iter_any():
                received += block
        except aiohttp.ClientPayloadError:
            return response.status, received, False
        return response.status, received, True


def parts_of(chunks: list[JSON]) -> list[JSON]:
    return [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]


def chunks_of(body: bytes) -> list[Any]:
    return [event.json for event in events_of(body)]


def text_of(chunks: list[JSON]) -> str:
    return "".join(part.get("text", "") for part in parts_of(chunks))


def cut_before(answer: Answer, word: bytes) -> Answer:
    """Broken off just before a word."""
    return answer.but(cut_after=answer.wire.index(word) - 1)


@pytest.mark.parametrize("dialect", PLAYS)
async def test_a_client_gets_whole_answers_streams_and_arrays(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    whole, streamed = PLAYS[dialect]
    upstream.script(whole(text="Hello."), streamed(text=["Hel", "lo."]), streamed(text="Hello."))
    server = await relay(behind(upstream, dialect))
    _, body, _ = await generate(http, server)
    assert text_of([json.loads(body)]) == "Hello."
    _, body, clean = await generate(http, server, "streamGenerateContent?alt=sse")
    chunks = chunks_of(body)
    assert clean
    assert text_of(chunks) == "Hello."
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert chunks[-1]["usageMetadata"]["candidatesTokenCount"] == 57
    _, body, clean = await generate(http, server, "streamGenerateContent")
    assert clean
    assert text_of(json.loads(body)) == "Hello."


@pytest.mark.parametrize("dialect", PLAYS)
async def test_a_call_comes_whole_and_its_result_goes_back(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    _, streamed = PLAYS[dialect]
    upstream.script(streamed(calls=[CALL]), streamed(text="Sunny."))
    server = await relay(behind(upstream, dialect))
    declared = {"name": "get_weather", "parametersJsonSchema": {"type": "object"}}
    body = BODY | {"tools": [{"functionDeclarations": [declared]}]}
    _, said, _ = await generate(http, server, "streamGenerateContent?alt=sse", body)
    asked = [part for part in parts_of(chunks_of(said)) if "functionCall" in part]
    assert [(p["functionCall"]["name"], p["functionCall"]["args"]) for p in asked] == [
        ("get_weather", {"city": "Paris"})
    ]
    result = {"name": "get_weather", "response": {"output": "sun"}}
    if id := asked[0]["functionCall"].get("id"):
        result["id"] = id
    turns = [
        {"role": "model", "parts": asked},
        {"role": "user", "parts": [{"functionResponse": result}]},
    ]
    more = body | {"contents": [*BODY["contents"], *turns]}
    _, said, _ = await generate(http, server, "streamGenerateContent?alt=sse", more)
    assert text_of(chunks_of(said)) == "Sunny."
    assert b"sun" in upstream.requests[-1].body
    assert b"get_weather" in upstream.requests[-1].body


@pytest.mark.parametrize("dialect", PLAYS)
async def test_an_error_inside_a_200_goes_on_to_the_next_target(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    _, streamed = PLAYS[dialect]
    upstream.script(stream([ERRORS[dialect]]), streamed(text="Hello."))
    server = await relay(behind(upstream, dialect))
    status, body, _ = await generate(http, server, "streamGenerateContent?alt=sse")
    assert status == 200
    assert text_of(chunks_of(body)) == "Hello."
    assert [attempt["outcome"] for attempt in (await server.logged()).attempts] == [
        "overloaded",
        "ok",
    ]


@pytest.mark.parametrize("dialect", PLAYS)
async def test_a_break_behind_content_is_told_by_the_connection_alone(
    dialect: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer = PLAYS[dialect][1](text=["one ", "two ", "three "])
    upstream.script(cut_before(answer, b"three"))
    server = await relay(behind(upstream, dialect))
    _, body, clean = await generate(http, server, "streamGenerateContent?alt=sse")
    assert not clean
    assert b"one " in body
    assert b'"error"' not in body
    assert b"finishReason" not in body
    assert (await server.logged()).code == "UR"


async def test_the_total_time_is_told_by_the_connection_alone_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(stream([fake.chat_chunk({"content": "x"})] * 1000, pause=0.05))
    server = await relay(config(upstream, timeouts={"total": 3}))
    _, body, clean = await generate(http, server, "streamGenerateContent?alt=sse")
    assert not clean
    assert b'"x"' in body
    assert b'"error"' not in body


@pytest.mark.parametrize("client", DIALECTS)
async def test_every_client_is_served_by_a_gemini_provider(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(
        fake.gemini_stream(text=["Hel", "lo."], reasoning="Hm."),
        fake.gemini_stream(calls=[CALL]),
        stream([ERRORS["gemini"]]),
        fake.gemini_stream(text="Hello."),
        cut_before(fake.gemini_stream(text=["one ", "two "]), b"two"),
    )
    server = await relay(behind(upstream, "gemini"))
    usage = {"stream_options": {"include_usage": True}} if client == "openai" else {}
    said = (await stream_of(server, client, **usage)).said
    assert (said.text, said.finish, said.tokens_out) == ("Hello.", "stop", 57)
    speaks = DIALECTS[client]
    said = (await stream_of(server, client, tools=[speaks.tool])).said
    assert said.calls == (("get_weather", {"city": "Paris"}),)
    assert (await stream_of(server, client)).said.text == "Hello."
    reply = await stream_of(server, client)
    assert reply.final_error["message"]
    assert upstream.requests[0].path.endswith("/v1beta/models/m:streamGenerateContent")
    assert upstream.requests[0].query == "alt=sse"
