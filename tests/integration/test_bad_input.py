"""What clients get wrong, from broken JSON to broken HTTP; no provider is blamed for it."""

import asyncio
import contextlib
import gzip
import json

import pytest
import yarl
from aiohttp import ClientSession
from fake_upstream import TEXT, FakeUpstream, answer_well, chat_error, dump
from relay_process import RelayProcess, Start
from talk import (
    CLIENT_KEY,
    DIALECTS,
    JSON,
    PAIRS,
    Cut,
    ask,
    chat,
    config,
    dial,
    each,
    messages,
    one,
    request_head,
)

BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"model": "m", "messages": [',
    "words": b"hello",
    "null": b"null",
    "a number": b"7",
    "a list": b'[{"model": "m"}]',
    "two values": b'{"model": "m"} {"model": "m"}',
    "trailing comma": b'{"model": "m",}',
    "NaN": b'{"model": "m", "temperature": NaN}',
    "not UTF-8": b'{"model": "m", "messages": "\xff\xfe"}',
    "UTF-16": '{"model": "m", "messages": []}'.encode("utf-16"),
    "UTF-32 without a mark": '{"model": "m", "messages": []}'.encode("utf-32-le"),
    "an endless list": b'{"model": "m", "messages": ' + b"[" * 200_000,
}
MODELS: dict[str, bytes] = {
    "missing": b'{"messages": []}',
    "null": b'{"model": null, "messages": []}',
    "a number": b'{"model": 7, "messages": []}',
    "empty": b'{"model": "", "messages": []}',
    "nested only": b'{"metadata": {"model": "m"}, "messages": []}',
}


async def refused(http: ClientSession, server: RelayProcess, client: str, body: bytes) -> str:
    """The message of a 400."""
    reply = await ask(http, server, client, raw=body)
    assert reply.status == 400, reply.body
    if client == "anthropic":
        assert reply.error["type"] == "invalid_request_error"
    message: str = reply.error["message"]
    return message


# ---- Bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_body_that_is_no_json_object_is_400(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect=provider))

    async def is_refused(_name: str, body: bytes) -> None:
        await refused(http, server, client, body)

    await each(BROKEN, is_refused)
    assert upstream.requests == []
    assert (await ask(http, server, client)).said.text == TEXT


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_large_body_that_is_no_json_brings_no_provider_into_trouble(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Its ends look well, so it is not read before a provider has refused it, in whatever way."""
    server = await relay(one(upstream, client))
    begin = b'{"model":"m","messages":'
    broken = {
        "levels deep": begin + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "not JSON": begin + b"[" + b"1" * 99_000 + b",]}",
    }
    for why, body in broken.items():
        for status in (500, 400, 429, 401):
            upstream.script(chat_error(status, "what is this?"))
            assert why in await refused(http, server, client, body)
    async with http.get(f"{server.url}/admin/health") as response:
        assert (await response.json())["marks"] == []
    upstream.script(answer_well)
    assert (await ask(http, server, client)).said.text == TEXT


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_body_without_a_model_is_400_and_says_so(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))

    async def is_refused(_name: str, body: bytes) -> None:
        assert "model" in await refused(http, server, client, body)

    await each(MODELS, is_refused)
    assert upstream.requests == []


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": 5}}
WRONG: dict[str, tuple[str, JSON, str]] = {  # client, body, the place that is named
    "messages missing": ("anthropic", {"model": "m", "max_tokens": 5}, "messages"),
    "messages a string": ("anthropic", messages() | {"messages": "hi"}, "messages"),
    "message a string": ("anthropic", messages() | {"messages": ["hi"]}, "messages[0]"),
    "content a number": (
        "anthropic",
        messages() | {"messages": [{"role": "user", "content": 3}]},
        "messages[0].content",
    ),
    "text a number": (
        "anthropic",
        messages() | {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
        "messages[0].content[0].text",
    ),
    "image data a number": (
        "anthropic",
        messages() | {"messages": [{"role": "user", "content": [IMAGE]}]},
        "messages[0].content[0].source.data",
    ),
    "role unknown": (
        "anthropic",
        messages() | {"messages": [{"role": "wizard", "content": "x"}]},
        "messages[0].role",
    ),
    "tools an object": ("anthropic", messages(tools={}), "tools"),
    "tool without a name": ("anthropic", messages(tools=[{"input_schema": {}}]), "tools[0].name"),
    "chat messages missing": ("openai", {"model": "m"}, "messages"),
    "chat content a number": (
        "openai",
        chat() | {"messages": [{"role": "user", "content": 3}]},
        "messages[0].content",
    ),
    "chat call without a name": (
        "openai",
        chat() | {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]},
        "messages[0].tool_calls[0].function.name",
    ),
    "chat stream a word": ("openai", chat(stream="yes"), "stream"),
}


async def test_where_a_body_is_translated_what_is_wrong_is_named_with_its_place(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    other = {"anthropic": "openai", "openai": "anthropic"}
    servers = {client: await relay(config(upstream, dialect=other[client])) for client in other}

    async def is_named(_name: str, case: tuple[str, JSON, str]) -> None:
        client, body, place = case
        assert place in await refused(http, servers[client], client, dump(body))

    await each(WRONG, is_named)
    assert upstream.requests == []


async def test_a_block_of_an_unknown_kind_is_dropped_and_named(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    blocks = [{"type": "hologram", "data": "x"}, {"type": "text", "text": "Hi."}]
    asked = [{"role": "user", "content": blocks}]
    server = await relay(config(upstream))
    reply = await ask(http, server, "anthropic", messages=asked)
    assert reply.said.text == TEXT
    assert "hologram" in reply.headers["x-relay-dropped"]
    assert b"hologram" not in upstream.requests[0].body


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_lone_surrogate_does_no_harm(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    body = dump(DIALECTS[client].body(text="HERE")).replace(b"HERE", b"a\\ud83c b")
    server = await relay(config(upstream, dialect=provider))
    reply = await ask(http, server, client, raw=body)
    assert reply.status in (200, 400)
    assert (await ask(http, server, client)).said.text == TEXT


@pytest.mark.parametrize("name", ["m\r\nx-evil: 1", "m\x00", "m\u2028", "名前", "m" * 5000, "../m"])
async def test_an_odd_name_of_a_model_stays_a_name(
    name: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream))
    reply = await ask(http, server, model=name)
    assert reply.status in (200, 400, 404)
    assert "x-evil" not in reply.headers
    if upstream.requests:
        assert upstream.requests[0].json["model"] == name
    assert (await server.logged()).status == reply.status


# ---- Size and time -------------------------------------------------------------------------


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_body_above_the_limit_is_413(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream) | {"server": {"max_body": "10KB"}})
    assert (await ask(http, server, client, text="x" * 9000)).said.text == TEXT
    reply = await ask(http, server, client, text="x" * 11000)
    assert reply.status == 413
    assert "max_body" in reply.error["message"] or "10" in reply.error["message"]
    assert len(upstream.requests) == 1


@pytest.mark.every_way
async def test_a_chunked_body_above_the_limit_is_413_before_it_ends(
    upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream) | {"server": {"max_body": "10KB"}})
    async with dial(server) as wire:
        head = {"host": "localhost", "transfer-encoding": "chunked"}
        await wire.send(request_head("POST", "/v1/chat/completions", head))
        for _ in range(12):
            await wire.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert await wire.head() == 413


async def test_a_chunked_body_above_the_limit_that_comes_with_its_head_is_413(
    upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream) | {"server": {"max_body": "1KB"}})
    body = dump(chat(text="x" * 1024))
    async with dial(server) as wire:
        head = {"host": "localhost", "transfer-encoding": "chunked"}
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        await wire.send(request_head("POST", "/v1/chat/completions", head) + chunks)
        reply = await wire.reply()
    assert reply.status == 413
    assert reply.error["message"] == "the body is over server.max_body, 1KB"
    assert upstream.requests == []


async def test_a_declared_body_above_the_limit_is_413_before_it_is_sent(
    upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream) | {"server": {"max_body": "10KB"}})
    async with dial(server) as wire:
        head = {"host": "localhost", "content-length": "1000000000"}
        await wire.send(request_head("POST", "/v1/messages", head))
        assert await wire.head() == 413


GZIP = {"content-encoding": "gzip"}


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_body_that_inflates_above_the_limit_is_413(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream) | {"server": {"max_body": "10KB"}})
    for size in (11_000, 5_000_000):
        raw = gzip.compress(dump(DIALECTS[client].body(text="x" * size)))
        reply = await ask(http, server, client, raw=raw, headers=GZIP)
        assert (reply.status, "max_body" in reply.error["message"]) == (413, True)
    assert upstream.requests == []


async def test_only_a_client_of_http_1_1_is_told_to_send_its_body(
    upstream: FakeUpstream, relay: Start
) -> None:
    """An older one would take the interim answer for the answer (RFC 9110 10.1.1)."""
    server, body = await relay(config(upstream)), dump(chat())
    head = {"host": "localhost", "expect": "100-continue", "content-length": str(len(body))}
    text = request_head("POST", "/v1/chat/completions", head)
    async with dial(server) as wire:
        await wire.send(text)
        assert await wire.head() == 100
        await wire.send(body)
        assert await wire.head() == 200
    async with dial(server) as wire:
        await wire.send(text.replace(b"HTTP/1.1", b"HTTP/1.0") + body)
        assert await wire.head() == 200


async def test_a_compressed_body_of_two_members_is_read_to_its_end(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    body = dump(chat(text="Halves."))
    raw = gzip.compress(body[:40]) + gzip.compress(body[40:])
    assert (await ask(http, server, raw=raw, headers=GZIP)).said.text == TEXT
    assert "Halves." in upstream.requests[0].body.decode()


async def test_a_compressed_body_that_is_not_all_there_is_400(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    for raw in (gzip.compress(dump(chat()))[:-8], gzip.compress(dump(chat())) + b"more"):
        reply = await ask(http, server, raw=raw, headers=GZIP)
        assert (reply.status, "content coding" in reply.error["message"]) == (400, True)
    assert upstream.requests == []


@pytest.mark.every_way
@pytest.mark.parametrize("size", [20_000, 300_000])
async def test_headers_above_the_limit_are_431(
    size: int, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream) | {"server": {"max_header": "10KB"}})
    async with dial(server) as wire:
        await wire.post("anthropic", headers={"x-large": "x" * size})
        assert await wire.head() == 431
        wire_reply = await wire.reply()
    assert wire_reply.json["error"]["message"]
    assert upstream.requests == []


async def test_headers_below_the_limit_are_no_trouble(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    reply = await ask(http, server, headers={"x-large": "x" * 30_000})
    assert reply.said.text == TEXT
    assert upstream.requests[0].headers["x-large"] == "x" * 30_000


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_body_that_does_not_come_is_408(
    client: str, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream) | {"server": {"body_timeout": 0.5}})
    async with dial(server) as wire:
        wire.dialect = DIALECTS[client]
        head = {"host": "localhost", "content-length": "100", "content-type": "application/json"}
        await wire.send(request_head("POST", DIALECTS[client].path, head) + b'{"model"')
        reply = await wire.reply()
    assert reply.status == 408
    assert reply.headers["connection"] == "close"
    assert reply.error["message"] == "the request was not here within server.body_timeout, 0.5 s"
    assert upstream.requests == []


@pytest.mark.every_way
async def test_a_body_that_drips_is_408(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream) | {"server": {"body_timeout": 0.5}})
    async with dial(server) as wire:
        head = {"host": "localhost", "content-length": "1000"}
        await wire.send(request_head("POST", "/v1/messages", head))
        dripping = asyncio.create_task(drip(wire.send))
        assert await wire.head() == 408
        dripping.cancel()


async def drip(send: JSON) -> None:
    for _ in range(1000):
        await send(b" ")
        await asyncio.sleep(0.05)


async def test_headers_that_do_not_come_end_the_connection(
    upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream) | {"server": {"body_timeout": 0.5}})
    async with dial(server) as wire:
        await wire.send(b"POST /v1/messages HTTP/1.1\r\nhost: local")
        with contextlib.suppress(Cut):
            assert await wire.head() == 408


# ---- Paths and HTTP ------------------------------------------------------------------------


async def test_an_unknown_path_is_404_in_json(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    for path in ("/", "/v1", "/v1/nothing", "/v2/messages", "/v1/messages/x", "/%00", "/a%2Fb"):
        reply = await ask(http, server, path=path)
        assert reply.status in (404, 405), path
        assert json.loads(reply.body)["error"]["message"]
    assert upstream.requests == []


async def test_whatever_is_refused_has_its_line_in_the_log(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """Whose base URL is wrong looks there first; the id it was told leads to the line."""
    server = await relay(config(upstream))
    for count, (method, path, status) in enumerate(
        (("POST", "/v2/nothing", 404), ("GET", "/v1/messages", 404), ("POST", "/admin/reload", 403))
    ):
        async with http.request(method, server.url + path) as response:
            assert response.status == status
            line = await server.logged(count + 1)
            assert (line.id, line.status) == (response.headers["x-relay-request-id"], status)
    assert [line.code for line in server.lines()] == ["BR", "BR", "AU"]


@pytest.mark.parametrize("path", ["//v1/chat/completions", "//chat/completions", "/v1//models/"])
async def test_slashes_that_are_too_many_do_no_harm(
    path: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """As a base URL with a slash at its end makes them."""
    server = await relay(config(upstream))
    url, method = server.url + path, "GET" if "models" in path else "POST"
    async with http.request(method, yarl.URL(url, encoded=True), json=chat()) as response:
        assert response.status == 200


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_wrong_method_is_told(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    async with http.delete(server.url + DIALECTS[client].path) as response:
        assert response.status in (404, 405)
        assert "DELETE" in (await response.json())["error"]["message"]


POST = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n"
NOT_HTTP: dict[str, bytes] = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "garbage": b"GARBAGE\r\n\r\n",
    "length": POST + b"content-length: abc\r\n\r\n",
    "two lengths": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    "header": POST + b"bad header\r\n\r\n",
    "chunk": POST + b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
}


@pytest.mark.every_way
async def test_what_is_not_http_does_no_harm(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))

    async def is_refused(_name: str, raw: bytes) -> None:
        async with dial(server) as wire:
            await wire.send(raw)
            with contextlib.suppress(Cut):
                assert await wire.head() == 400

    await each(NOT_HTTP, is_refused)
    assert (await ask(http, server)).said.text == TEXT
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("client", DIALECTS)
async def test_unknown_query_parameters_are_ignored(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    path = f"{DIALECTS[client].path}?beta=true&x=%00"
    assert (await ask(http, server, client, path=path)).said.text == TEXT


async def test_a_body_without_a_content_type_is_read(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    body = dump(chat())
    async with dial(server) as wire:
        head = {"host": "localhost", "content-length": str(len(body))}
        await wire.send(request_head("POST", "/v1/chat/completions", head) + body)
        assert (await wire.reply()).said.text == TEXT


async def test_two_requests_may_be_sent_in_one_breath(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    async with dial(server) as wire:
        await wire.post("openai", stream=False)
        await wire.post("openai", stream=False)
        for _ in range(2):
            await wire.head()
            assert (await wire.reply()).said.text == TEXT


async def test_a_credential_for_a_model_is_refused_and_not_logged(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay({**one(upstream), "keys": {"a": {"key": CLIENT_KEY}}})
    said = await ask(http, server, model=CLIENT_KEY, headers={"x-api-key": CLIENT_KEY})
    assert said.status == 400
    await server.logged()
    assert CLIENT_KEY not in server.stderr
    assert upstream.requests == []
