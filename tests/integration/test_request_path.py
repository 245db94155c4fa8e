"""Faults that lie between accept and settle, whatever the dialect: what passes, what is refused."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession
from fake_upstream import (
    TEXT,
    Answer,
    FakeUpstream,
    chat_stream,
    chat_whole,
    event,
    responses_stream,
    whole,
)
from relay_process import RelayProcess, Start
from talk import (
    CLIENT_KEY,
    JSON,
    UPSTREAM_KEY,
    ask,
    config,
    dial,
    events_of,
    one,
    provider,
    request_head,
    responses,
)

VECTORS = {"object": "list", "data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}}


@pytest.mark.parametrize("status", [201, 202, 203])
async def test_any_2xx_with_a_readable_answer_is_an_answer(
    status: int, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_whole(TEXT).but(status=status))
    server = await relay(one(upstream))
    for dialect in ("openai", "anthropic"):
        reply = await ask(http, server, dialect)
        assert (reply.status, reply.said.text) == (200, TEXT)
        upstream.script(chat_whole(TEXT).but(status=status))
    await server.logged(2)
    assert [line.attempts[0]["outcome"] for line in server.lines()] == ["ok", "ok"]


# ---- What a provider counts ----------------------------------------------------------------


@pytest.mark.parametrize("tokens", [10**18, int("9" * 400), 10**8])
async def test_absurd_counts_touch_no_budget(
    tokens: int, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    usage = {"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens}
    upstream.script(chat_whole(usage=usage))
    keys = {"alice": {"key": CLIENT_KEY, "limits": {"tokens_per_day": 10**6}}}
    server = await relay({**one(upstream), "keys": keys})
    for _ in range(2):
        reply = await ask(http, server, headers={"x-api-key": CLIENT_KEY})
        assert reply.status == 200
    await server.logged(2)
    first = next(line for line in server.log() if "code" in line)
    assert first["tokens_in"] is None
    assert first["estimated"]
    await server.says("absurd token counts")


# ---- Errors in the client's dialect --------------------------------------------------------

FOREIGN = [
    {"error": {"message": "no such field", "type": "invalid_request_error"}},
    {"error": "no such field"},
    {"object": "error", "message": "no such field"},
    {"detail": "no such field"},
]


@pytest.mark.parametrize("body", FOREIGN, ids=json.dumps)
async def test_an_error_of_another_shape_gets_the_dialects_envelope(
    body: JSON, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(whole(body, status=400))
    server = await relay(one(upstream, "anthropic"))
    reply = await ask(http, server, "anthropic")
    assert reply.status == 400
    assert reply.json["type"] == "error"
    assert "no such field" in reply.json["error"]["message"]


TURN = {"role": "user", "parts": [{"text": "Hi."}]}


async def test_an_anthropic_error_gets_gemini_s_envelope(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    error = {"type": "invalid_request_error", "message": "no such field"}
    upstream.script(whole({"type": "error", "error": error}, status=400))
    server = await relay(one(upstream, "gemini"))
    url, body = f"{server.url}/v1beta/models/m:generateContent", {"contents": [TURN]}
    async with http.post(url, json=body) as response:
        refusal = (await response.json())["error"]
    assert (response.status, refusal["code"]) == (400, 400)
    assert "no such field" in refusal["message"]


# ---- Reasoning that a provider does not take -----------------------------------------------

REASONED = [
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A."}]},
    {"type": "message", "role": "user", "content": "More."},
]
UNVERIFIED = "The encrypted content gAAA could not be verified."


@pytest.mark.parametrize("inside", [True, False], ids=["inside a 200", "as a 400"])
async def test_reasoning_that_is_refused_is_left_out_once(
    inside: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    error = {"code": "invalid_encrypted_content", "message": UNVERIFIED}
    failed = {"type": "response.failed", "response": {"status": "failed", "error": error}}
    refusal = whole({"error": error}, status=400)
    if inside:
        refusal = Answer(body=[event(failed)], content_type="text/event-stream")
    upstream.script(refusal, responses_stream(TEXT))
    server = await relay(one(upstream, "responses"))
    body = responses(stream=True) | {"input": REASONED}
    async with http.post(f"{server.url}/v1/responses", json=body) as response:
        assert (response.status, response.headers["x-relay-attempts"]) == (200, "2")
        assert TEXT.encode().split()[0] in await response.read()
    assert [len(seen.json["input"]) for seen in upstream.requests] == [3, 2]
    async with http.get(f"{server.url}/admin/health") as response:
        assert (await response.json())["marks"] == []


# ---- Until something was sent ------------------------------------------------------------------


async def test_a_client_to_which_nothing_was_sent_is_served_by_another(
    upstreams: Callable[[int], Awaitable[list[FakeUpstream]]], relay: Start, http: ClientSession
) -> None:
    """Gemini sends a call only whole: one that breaks off has not been seen by its client."""
    first, second = await upstreams(2)
    call = ("call_1", "get_weather", '{"city": "Oslo", "text": "' + "word " * 40 + '"}')
    torn = chat_stream(calls=[call])
    first.script(torn.but(cut_after=len(torn.wire) // 2, pause=0.02))
    second.script(chat_stream(calls=[call]))
    server = await relay(config(first, second))
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}
    url = f"{server.url}/v1beta/models/m:streamGenerateContent?alt=sse"
    async with http.post(url, json=body) as response:
        events = list(events_of(await response.read()))
    parts = [p for e in events for c in e.json["candidates"] for p in c["content"].get("parts", [])]
    assert [part["functionCall"]["name"] for part in parts if "functionCall" in part] == [call[1]]
    outcomes = [each["outcome"] for each in (await server.logged()).attempts]
    assert outcomes == ["transient", "ok"]


# ---- Rings ---------------------------------------------------------------------------------


async def test_a_ring_ends_after_one_hop_too_many(
    relay: Start, http: ClientSession, unused_port: int
) -> None:
    """Two relays, each of which is the other's provider."""
    at = f"127.0.0.1:{unused_port}"
    first = await relay(one(f"http://{at}/v1"))
    await relay(one(f"{first.url}/v1") | {"listen": at})
    reply = await ask(http, first)
    assert reply.status in (502, 503)
    assert "has come through relay twice" in reply.json["error"]["message"]
    await first.logged(2)
    assert sorted((line.code, line.status) for line in first.lines()) == [("LP", 508), ("UE", 502)]


# ---- What a provider may say to a client ---------------------------------------------------

STEERING = {
    "X-Accel-Redirect": "/etc/passwd",
    "X-Sendfile": "/etc/passwd",
    "Refresh": "0; url=http://evil.example",
    "Location": "http://evil.example",
    "Clear-Site-Data": '"*"',
    "Set-Cookie2": "a=b",
    "Connection": "x-secret-hop",
    "X-Secret-Hop": "1",
    "Content-Security-Policy": "default-src *",
    "X-Relay-Provider": "nobody",
}
READ = {
    "x-request-id": "req_1",
    "openai-processing-ms": "7",
    "x-ratelimit-remaining-requests": "9",
    "x-codex-primary-used-percent": "3",
    "retry-after-ms": "5",
    "Cache-Control": "max-age=1",
    "ETag": '"v1"',
    "cf-ray": "8-FRA",
    "msh-request-id": "m",
}


@pytest.mark.parametrize("path", ["/p/first/v1/page", "/v1/embeddings", "/v1/chat/completions"])
async def test_only_headers_that_clients_read_pass(
    path: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer = chat_whole() if path.endswith("completions") else whole(VECTORS)
    upstream.script(answer.but(headers={**STEERING, **READ}))
    server = await relay(one(upstream))
    async with http.post(f"{server.url}{path}", json={"model": "m", "messages": []}) as response:
        assert response.status == 200
        sent = {name.lower(): value for name, value in response.headers.items()}
    assert {name.lower(): value for name, value in READ.items()}.items() <= sent.items()
    assert "evil.example" not in str(sent)
    assert sent.get("content-security-policy", "sandbox") == "sandbox"
    for name in ("x-accel-redirect", "x-sendfile", "refresh", "set-cookie2", "x-secret-hop"):
        assert name not in sent


@pytest.mark.parametrize("path", ["/p/first/v1/page", "/v1/audio/speech", "/v1/chat/completions"])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_providers_page_cannot_act_as_relays(
    path: str, status: int, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    page = Answer(status=status, body=b"<script>fetch('/admin/file')</script>")
    html = chat_whole(text="<script>") if path.endswith("completions") and status == 200 else page
    upstream.script(html.but(content_type="text/html", status=status))
    server = await relay(one(upstream))
    async with http.post(f"{server.url}{path}", json={"model": "m", "messages": []}) as response:
        assert response.status == status
        if response.content_type != "application/json":
            assert response.headers["Content-Security-Policy"] == "sandbox"
            assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("status", ["101 Switching", "99 Odd", "999 Odd"])
async def test_a_status_that_no_answer_has_is_not_passed_on(
    status: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(Answer(raw=f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()))
    server = await relay(one(upstream))
    async with http.get(f"{server.url}/p/first/v1/files") as response:
        assert response.status == 502


@pytest.mark.parametrize(
    "path",
    [
        *("..;/admin", "a/..;x=1/b", "..%3b/b", "a/%2e%2e;/b"),
        *("..%00/x", "%252e%252e/x", "a/.%20./x"),
    ],
)
async def test_p_does_not_climb_by_parameters(
    path: str, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(one(upstream))
    async with dial(server) as wire:
        await wire.send(f"GET /p/first/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert await wire.head() == 400
    assert upstream.requests == []


async def test_a_dead_provider_is_counted_and_marked_below_p_too(
    relay: Start, http: ClientSession, unused_port: int
) -> None:
    server = await relay(one(f"http://127.0.0.1:{unused_port}/v1"))
    async with http.get(f"{server.url}/p/first/v1/files") as response:
        assert response.status == 502
        assert response.headers["x-relay-attempts"] == "1"
        assert "first" in (await response.json())["error"]["message"]
    assert [each["outcome"] for each in (await server.logged()).attempts] == ["transient"]
    async with http.get(f"{server.url}/admin/health") as response:
        (mark,) = (await response.json())["marks"]
        assert (mark["scope"], mark["cause"]) == ("endpoint", "transient")


async def test_a_long_path_makes_a_short_line(relay: Start, http: ClientSession) -> None:
    server = await relay(one("http://127.0.0.1:9/v1"))
    async with http.get(f"{server.url}/{'x' * 60_000}") as response:
        assert response.status == 404
    await server.logged()
    line = next(line for line in server.log() if "code" in line)
    assert len(line["path"]) <= 200


def peak(server: RelayProcess) -> int:
    """The most memory that it has held so far, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) << 10


@pytest.mark.every_way
async def test_large_bodies_are_held_once(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Read into one buffer, sent in pieces around the model: not joined, not copied."""
    size, count = 32 << 20, 3
    server = await relay(one(upstream, models={"m": "their-m"}))

    text, before = "word " * (size // 5), peak(server)
    replies = await asyncio.gather(*(ask(http, server, text=text) for _ in range(count)))
    assert [reply.status for reply in replies] == [200] * count
    assert [len(seen.json["messages"][0]["content"]) for seen in upstream.requests] == [
        len(text)
    ] * count
    assert {seen.json["model"] for seen in upstream.requests} == {"their-m"}
    assert peak(server) - before < 1.7 * size * count


@pytest.mark.every_way
async def test_a_length_that_is_only_stated_costs_no_memory(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Who sends two hundred bytes shall not take sixty megabytes with each of its connections."""
    server, count, length = await relay(one(upstream)), 10, 60 << 20
    head = {"host": "localhost", "content-length": str(length), "expect": "100-continue"}

    before = peak(server)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            wire = await stack.enter_async_context(dial(server))
            await wire.send(request_head("POST", "/v1/chat/completions", head))
            assert await wire.head() == 100
            await wire.send(b'{"model"')
        assert (await ask(http, server)).status == 200  # by then all are being read
        assert peak(server) - before < length


@pytest.mark.every_way
@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        ("HEAD", Answer(body=b"abc", content_type="text/plain"), b""),
        ("DELETE", Answer(status=204), b""),
        ("GET", Answer(status=304), b""),
        ("GET", Answer(), b""),
        ("GET", Answer(body=b"x" * 300_000, content_type="audio/mpeg"), b"x" * 300_000),
    ],
    ids=["HEAD", "204", "304", "empty", "long"],
)
async def test_answers_without_a_body_have_none_below_p(
    method: str,
    answer: Answer,
    body: bytes,
    upstream: FakeUpstream,
    relay: Start,
    http: ClientSession,
) -> None:
    upstream.script(answer, Answer(body=b"next", content_type="text/plain"))
    server = await relay(one(upstream))
    url = f"{server.url}/p/first/v1/x"
    async with http.request(method, url) as response:
        assert (response.status, await response.read()) == (answer.status, body)
    async with http.get(url) as response:  # on the same connection
        assert await response.read() == b"next"


# ---- What the log shows of attempts at `debug` -----------------------------------------------


async def test_each_attempt_is_a_line_with_the_models_and_the_address(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(Answer(status=500), path="/first/v1/chat/completions")
    names = {"claude-opus-5-5": "qwen3-32b"}
    first = provider(f"{upstream.url}/first/v1", auth="query", models=names)
    second = provider(f"{upstream.url}/second/v1", auth="x-api-key", models=names)
    providers = {"first": first, "second": second}
    rules = {"claude-opus-5-5": ["first", "second"]}
    top = {"providers": providers, "routing_rules": rules, "log": {"level": "debug"}}
    server = await relay(top)
    reply = await ask(http, server, "anthropic", model="claude-opus-5-5")
    assert reply.status == 200, reply.body
    await server.logged(1)
    lines = [line["message"] for line in server.log() if "POST" in line.get("message", "")]
    assert [line.partition("?")[0] for line in lines] == [
        f"model claude-opus-5-5 -> qwen3-32b  POST {upstream.url}/first/v1/chat/completions",
        f"model claude-opus-5-5 -> qwen3-32b  POST {upstream.url}/second/v1/chat/completions",
    ]
    assert UPSTREAM_KEY not in server.stderr


async def test_attempts_have_no_line_of_their_own_otherwise(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream))
    await ask(http, server)
    await server.logged(1)
    assert "POST" not in server.stderr
