"""What is passed on unread: embeddings, images, audio, rerank, moderations, completions, /p/."""

import asyncio
import gzip
import io
import json
from typing import Literal

import aiohttp
import pytest
from aiohttp import ClientSession, FormData
from fake_upstream import TEXT, Answer, FakeUpstream, chat_error, data, stream, whole
from relay_process import Start
from talk import CLIENT_KEY, JSON, UPSTREAM_KEY, ask, config, one

VECTORS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -1]}],
    "model": "upstream-model",
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}
PATHS = ("embeddings", "images/generations", "audio/speech", "rerank", "moderations", "completions")


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_goes_to_the_provider_of_its_model_and_back_as_it_is(
    path: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(whole(VECTORS, headers={"openai-processing-ms": "7"}))
    server = await relay(one(upstream, models={"embed": "their/embed"}))
    raw = b'{ "model" : "embed", "input": ["a", "b"],  "n": 12345678901234567890123 }'
    async with http.post(f"{server.url}/v1/{path}", data=raw) as response:
        assert await response.json() == VECTORS
        assert response.headers["openai-processing-ms"] == "7"
        assert response.headers["x-relay-provider"] == "first"
        assert response.headers["x-relay-model"] == "their/embed"
        assert response.headers["x-relay-body"] == "edited"
    seen = upstream.requests[0]
    assert seen.path == f"/v1/{path}"
    assert seen.body == raw.replace(b'"embed"', b'"their/embed"')
    assert seen.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    line = await server.logged()
    assert (line.code, line.tokens_in) == ("OK", 7)


async def test_a_body_whose_model_stays_is_passed_on_byte_for_byte(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(whole(VECTORS))
    server = await relay(one(upstream))
    raw = b'{"input":"\\ud83d", "model":"m"}'
    async with http.post(f"{server.url}/v1/v1/embeddings", data=raw) as response:
        assert (response.status, response.headers["x-relay-body"]) == (200, "verbatim")
    assert upstream.requests[0].body == raw


async def test_the_next_target_is_tried_and_the_client_told_in_openais_words(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(
        chat_error(503, "out of order"), whole(VECTORS), chat_error(400, "no such input")
    )
    server = await relay(config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1"))
    async with http.post(
        f"{server.url}/v1/embeddings", json={"model": "m", "input": ""}
    ) as response:
        assert (response.status, response.headers["x-relay-attempts"]) == (200, "2")
        assert response.headers["x-relay-provider"] == "second"
    async with http.post(f"{server.url}/v1/embeddings", json={"model": "m"}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"] == "no such input"
    async with http.post(f"{server.url}/v1/embeddings", json={"input": ""}) as response:
        assert response.status == 400
        assert "model: required" in (await response.json())["error"]["message"]


async def test_a_provider_of_responses_alone_has_the_rest_of_openais_api_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(whole(VECTORS))
    server = await relay(one(upstream, "responses"))
    async with http.post(f"{server.url}/v1/embeddings", json={"model": "m"}) as response:
        assert await response.json() == VECTORS
    assert upstream.requests[0].headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"


async def test_a_provider_of_another_api_has_no_embeddings(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream, "anthropic"))
    async with http.post(f"{server.url}/v1/embeddings", json={"model": "m"}) as response:
        assert response.status == 404
        assert "none speaks OpenAI's API" in (await response.json())["error"]["message"]
    assert upstream.requests == []


def recording(model_first: bool, size: int = 300_000) -> FormData:
    form = FormData(quote_fields=False)
    fields = [("model", "whisper"), ("language", "en")]
    for name, value in fields if model_first else ():
        form.add_field(name, value)
    form.add_field(
        "file", b"RIFF\r\n--x\r\n" + bytes(size), filename="a.wav", content_type="audio/wav"
    )
    for name, value in () if model_first else fields:
        form.add_field(name, value)
    return form


@pytest.mark.parametrize("model_first", [True, False])
async def test_a_form_goes_to_the_provider_of_its_model(
    model_first: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(whole({"text": "Hello."}))
    server = await relay(one(upstream, models={"whisper": "whisper-large-v3"}))
    url = f"{server.url}/v1/audio/transcriptions"
    async with http.post(url, data=recording(model_first)) as response:
        assert await response.json() == {"text": "Hello."}
    seen = upstream.requests[0]
    sent = recording(model_first)
    payload = sent()
    boundary = seen.headers["Content-Type"].partition("boundary=")[2].encode()
    own = payload.headers["Content-Type"].partition("boundary=")[2].encode()
    plain = b"".join([part async for part in written(payload)]).replace(own, boundary)
    assert seen.body == plain.replace(b"\r\n\r\nwhisper\r\n", b"\r\n\r\nwhisper-large-v3\r\n")


async def written(payload: aiohttp.Payload):  # type: ignore[no-untyped-def]
    class Writer:
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        async def write(self, data: bytes) -> None:
            self.parts.append(bytes(data))

    writer = Writer()
    await payload.write(writer)  # type: ignore[arg-type]
    for part in writer.parts:
        yield part


@pytest.mark.every_way
async def test_a_form_is_on_its_way_before_all_of_it_is_here(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """The rest waits until the provider has the beginning: nothing holds the whole."""
    started = asyncio.Event()
    head = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--B\r\n'
    head += b'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\n'

    async def flow():  # type: ignore[no-untyped-def]
        yield head
        await started.wait()
        yield b"data\r\n--B--\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(head)
        started.set()
        await reader.readuntil(b"--B--\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    provider = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = provider.sockets[0].getsockname()[1]
    server = await relay(one(f"http://127.0.0.1:{port}/v1"))
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    async with provider:
        url = f"{server.url}/v1/audio/transcriptions"
        async with http.post(url, data=flow(), headers=kind) as response:
            assert (response.status, await response.read()) == (200, b"{}")


FORMS = {
    "twice": (
        b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n'
        b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nn\r\n--B--\r\n'
    ),
    "none": b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\nm\r\n--B--\r\n',
    "no form": b"hello",
}


@pytest.mark.parametrize("name", FORMS)
async def test_a_form_without_one_model_is_refused(
    name: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream))
    kind = {"Content-Type": 'multipart/form-data; boundary="B"'}
    url = f"{server.url}/v1/images/edits"
    async with http.post(url, data=FORMS[name], headers=kind) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"].startswith("model: ")
    assert upstream.requests == []


async def test_the_answer_flows_as_it_comes(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    hold = asyncio.Event()
    sound = Answer(body=(b"\xff\xf3one", b"two"), hold={1: hold}, content_type="audio/mpeg")
    upstream.script(sound)
    server = await relay(one(upstream))
    async with http.post(f"{server.url}/v1/audio/speech", json={"model": "tts"}) as response:
        assert response.headers["Content-Type"] == "audio/mpeg"
        assert await response.content.readany() == b"\xff\xf3one"
        hold.set()
        assert await response.content.read() == b"two"


@pytest.mark.parametrize("status", ["101 Switching Protocols", "099 Odd", "99 Odd", "20 OK"])
async def test_what_is_no_status_is_no_answer(
    status: str, relay: Start, http: ClientSession
) -> None:
    """A switch of protocols that nobody asked for would leave the client with another one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".encode())
        await writer.drain()
        await reader.read()
        writer.close()

    provider = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = provider.sockets[0].getsockname()[1]
    server = await relay(one(f"http://127.0.0.1:{port}/v1"))
    async with provider, http.get(f"{server.url}/p/first/files") as response:
        assert response.status == 502


@pytest.mark.every_way
async def test_an_answer_that_breaks_has_no_end(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(Answer(body=(b"one", b"two"), cut_after=3, content_type="audio/mpeg"))
    server = await relay(one(upstream))
    async with http.post(f"{server.url}/v1/audio/speech", json={"model": "tts"}) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert (await server.logged()).code == "UR"


KEYS = {
    "admin": {"key": CLIENT_KEY, "raw": True},
    "alice": {"key": f"{CLIENT_KEY}-of-alice", "models": ["embed-*"]},
}


async def test_keys_and_their_models_hold_here_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"keys": KEYS})
    url, alice = f"{server.url}/v1/embeddings", {"x-api-key": f"{CLIENT_KEY}-of-alice"}
    for headers, model, status in (
        ({}, "embed-1", 401),
        ({"x-api-key": "wrong"}, "embed-1", 401),
        (alice, "other", 403),
    ):
        async with http.post(url, json={"model": model}, headers=headers) as response:
            assert response.status == status
    assert upstream.requests == []
    upstream.script(whole(VECTORS))
    async with http.post(url, json={"model": "embed-1"}, headers=alice) as response:
        assert response.status == 200
    assert CLIENT_KEY not in str(upstream.requests[0].headers)


async def test_anything_else_is_asked_below_p(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(Answer(status=404, body=b"nothing here", content_type="text/plain"))
    server = await relay(one(f"{upstream.url}/v1") | {"keys": KEYS})
    headers = {"Authorization": f"Bearer {CLIENT_KEY}", "X-Own": "1"}
    url = f"{server.url}/p/FIRST/files/a%20b?limit=2&key={CLIENT_KEY}"
    async with http.request("DELETE", url, headers=headers) as response:
        assert (response.status, await response.read()) == (404, b"nothing here")
        assert response.headers["x-relay-provider"] == "first"
    seen = upstream.requests[0]
    assert (seen.method, seen.path, seen.query) == ("DELETE", "/v1/files/a%20b", "limit=2")
    assert seen.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert seen.headers["X-Own"] == "1"
    assert "Content-Type" not in seen.headers
    assert (await server.logged()).code == "OK"


async def test_p_needs_a_key_that_may_and_a_provider_that_is(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream) | {"keys": KEYS})
    alice, admin = f"{CLIENT_KEY}-of-alice", CLIENT_KEY
    for key, path, status, words in (
        (alice, "/p/first/files", 403, "raw: true"),
        ("", "/p/first/files", 401, "no API key"),
        (admin, "/p/nobody/files", 404, "there are first"),
    ):
        async with http.get(server.url + path, headers={"x-api-key": key}) as response:
            assert response.status == status
            assert words in (await response.json())["error"]["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    "path", ["../admin", "a/../../b", "%2e%2e/b", "a%2f..%2fb", "..%5cb", "a\\b"]
)
async def test_p_does_not_climb(path: str, upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(one(upstream))
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /p/first/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 40")
    assert upstream.requests == []


async def test_a_body_below_p_flows_and_keeps_its_type_and_coding(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(whole({"id": "file-1"}))
    server = await relay(one(upstream, "anthropic"))
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    url = f"{server.url}/p/first/v1/files"
    async with http.post(url, data=b"\x1f\x8bnot read", headers=headers) as response:
        assert await response.json() == {"id": "file-1"}
    seen = upstream.requests[0]
    assert (seen.path, seen.body) == ("/v1/files", b"\x1f\x8bnot read")
    assert {name: seen.headers[name] for name in headers} == headers
    assert seen.headers["x-api-key"] == UPSTREAM_KEY


async def test_a_websocket_is_answered_so_that_codex_falls_back_at_once(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(one(upstream))
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with http.get(f"{server.url}/v1/responses", headers=headers) as response:
        error: JSON = json.loads(await response.read())["error"]
        assert (response.status, "POST /v1/responses" in error["message"]) == (426, True)


# ---- Whose fault it is ---------------------------------------------------------------------

FORM_HEAD = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
FAULTS = {
    "too large": ([bytes(1 << 16)] * 20, 413),
    "model twice": ([b"z\r\n", FORM_HEAD], 400),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_client_that_sends_what_it_must_not_harms_no_provider(
    name: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """What is wrong shows only when the beginning is on its way already."""
    blocks, status = FAULTS[name]

    async def flow():  # type: ignore[no-untyped-def]
        yield FORM_HEAD + b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for block in blocks:
            await asyncio.sleep(0.01)
            yield block

    made = config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1")
    server = await relay(made | {"server": {"max_body": "1MB"}})
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    url = f"{server.url}/v1/audio/transcriptions"
    async with http.post(url, data=flow(), headers=kind) as response:
        assert response.status == status
    line = await server.logged()
    assert (line.code, [tried["outcome"] for tried in line.attempts]) == ("BR", ["cancelled"])
    async with http.get(f"{server.url}/admin/health") as response:
        assert (await response.json())["marks"] == []


@pytest.mark.every_way
async def test_a_kept_connection_that_was_just_closed_is_not_the_providers_fault(
    relay: Start, http: ClientSession
) -> None:
    """It says nothing of its idle timeout, and closes as the next request arrives."""
    asked = list[int]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for turn in (1, 2):
            await reader.readuntil(b"\r\n\r\n")
            asked.append(turn)
            if turn == 1:
                await reader.readuntil(b"}")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        writer.close()

    provider = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = provider.sockets[0].getsockname()[1]
    server = await relay(one(f"http://127.0.0.1:{port}/v1"))
    async with provider:
        for _ in range(2):
            url = f"{server.url}/v1/embeddings"
            async with http.post(url, json={"model": "m", "input": ""}) as response:
                assert (response.status, bool(await response.read())) == (200, True)
    assert asked == [1, 2, 1]


async def test_turns_are_taken_here_too(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    made = config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1")
    rule = {"balance": "round_robin", "to": list(made["providers"])}
    upstream.script(whole(VECTORS))
    server = await relay(made | {"routing_rules": {"m": rule}})
    for _ in range(4):
        async with http.post(f"{server.url}/v1/embeddings", json={"model": "m"}) as response:
            assert await response.json() == VECTORS
    assert [seen.path[:3] for seen in upstream.requests] == ["/a/", "/b/", "/a/", "/b/"]
    async with http.get(f"{server.url}/admin/status") as response:
        assert (await response.json())["busy"] == {}


async def test_p_leads_to_nobody_who_is_left_out_by_hand(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    admin = {"x-api-key": f"{CLIENT_KEY}-of-admin"}
    server = await relay(one(upstream) | {"admin_key": admin["x-api-key"]})
    out = {"provider": "FIRST", "disabled": True}
    async with http.post(f"{server.url}/admin/disable", json=out, headers=admin) as response:
        assert (await response.json())["disabled"] == ["first"]
    async with http.get(f"{server.url}/p/first/files") as response:
        assert response.status == 503
    assert upstream.requests == []


@pytest.mark.parametrize(
    "answer",
    [chat_error(404, "The model does not exist"), Answer(status=404), Answer(status=405)],
    ids=["model", "path", "method"],
)
async def test_what_is_not_to_be_had_there_leaves_conversations_alone(
    answer: Answer, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """An editor that asks a chat model's provider for embeddings, all day long."""
    upstream.script(answer, path="/embeddings")
    server = await relay(one(upstream))
    async with http.post(f"{server.url}/v1/embeddings", json={"model": "m"}) as response:
        assert response.status == 502
        assert "/v1/chat/completions" not in await response.text()
    assert (await ask(http, server)).said.text == TEXT
    async with http.get(f"{server.url}/admin/health") as response:
        assert (await response.json())["marks"] == []


async def test_a_refused_credential_is_not_the_clients_below_p_either(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(401, "who are you?"))
    server = await relay(one(upstream))
    async with http.get(f"{server.url}/p/first/files") as response:
        assert response.status == 502
        assert response.headers["x-should-retry"] == "false"
        assert "x-relay-model" not in response.headers  # it was asked for none
        assert "first refused relay's credential" in (await response.json())["error"]["message"]
    assert (await server.logged()).attempts[0]["outcome"] == "auth"


# ---- What it came to -----------------------------------------------------------------------

OPENAI = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
BEGUN = {"input_tokens": 10, "cache_read_input_tokens": 1000, "output_tokens": 1}
SAID = [
    pytest.param("embeddings", VECTORS, (7, 0), id="embeddings"),
    pytest.param("embeddings", {"usage": OPENAI, "data": [0.5] * 9000}, (30, 12), id="said first"),
    pytest.param("rerank", {"results": [], "usage": {"total_tokens": 9}}, (9, 0), id="the sum"),
    pytest.param(
        "rerank",
        {"results": [], "meta": {"tokens": {"input_tokens": 8, "output_tokens": 1}}},
        (8, 1),
        id="siliconflow",
    ),
    pytest.param(
        "images/generations",
        {
            "data": [],
            "usage": {
                "input_tokens": 50,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
                "output_tokens": 200,
                "total_tokens": 250,
            },
        },
        (50, 200),
        id="images",
    ),
    pytest.param("audio/transcriptions", {"text": "", "usage": {"seconds": 9}}, None, id="time"),
    pytest.param(
        "completions",
        [{"choices": [{"text": "a"}], "usage": None}, {"choices": [], "usage": OPENAI}],
        (30, 12),
        id="completions, streamed",
    ),
    pytest.param("completions", [{"choices": [{"text": "a"}]}] * 5, None, id="untold, streamed"),
]


@pytest.mark.parametrize("coding", [None, "gzip"])
@pytest.mark.parametrize(("path", "answer", "said"), SAID)
async def test_what_an_unread_answer_tells_is_counted_for_the_key(
    path: str,
    answer: JSON,
    said: tuple[int, int] | None,
    coding: Literal["gzip"] | None,
    upstream: FakeUpstream,
    relay: Start,
    http: ClientSession,
) -> None:
    made = stream(map(data, answer)) if isinstance(answer, list) else whole(answer)
    upstream.script(made.but(compress=coding, drip=None if isinstance(answer, list) else 5))
    keys = {"alice": {"key": CLIENT_KEY, "limits": {"tokens_per_day": 10**6}}}
    prices = {"m": {"input": 1000, "output": 2000}}
    server = await relay({**one(upstream, prices=prices), "keys": keys})
    body = {"model": "m", "input": "x" * 300, "stream": isinstance(answer, list)}
    asked = http.post(f"{server.url}/v1/{path}", json=body, headers={"x-api-key": CLIENT_KEY})
    async with asked as response:
        assert response.status == 200
        passed = await response.read()
        assert (gzip.decompress(passed) if coding else passed) == made.wire
    await server.logged()
    (line,) = [line for line in server.log() if "code" in line]
    if said:
        assert (line["tokens_in"], line["tokens_out"], line["estimated"]) == (*said, False)
        assert line["cost"] == pytest.approx((said[0] + 2 * said[1]) / 1000)
    else:  # about a third of the bytes, and an event each
        heard = len(answer) if isinstance(answer, list) else 0
        assert line["estimated"]
        assert line["cost"] == pytest.approx(0.11 + 0.002 * heard, abs=0.02)


RAW = [
    pytest.param(
        [
            {"type": "message_start", "message": {"usage": BEGUN}},
            {"type": "message_delta", "usage": {"output_tokens": 40}},
        ],
        (1010, 40, 1000),
        id="anthropic",
    ),
    pytest.param(
        [
            {"usageMetadata": {"promptTokenCount": 6, "totalTokenCount": 6}},
            {
                "usageMetadata": {
                    "promptTokenCount": 6,
                    "candidatesTokenCount": 3,
                    "totalTokenCount": 9,
                }
            },
        ],
        (6, 3, 0),
        id="gemini",
    ),
    pytest.param(
        [{"type": "response.completed", "response": {"usage": OPENAI, "tail": "x" * 3000}}],
        (30, 12, 0),
        id="far from the end",
    ),
]


@pytest.mark.parametrize(("events", "said"), RAW)
async def test_below_p_it_is_counted_too(
    events: list[JSON],
    said: tuple[int, int, int],
    upstream: FakeUpstream,
    relay: Start,
    http: ClientSession,
) -> None:
    upstream.script(stream(map(data, events)))
    server = await relay(one(upstream))
    async with http.post(f"{server.url}/p/first/v1/x", json={"prompt": "x" * 30}) as response:
        await response.read()
    await server.logged()
    (line,) = [line for line in server.log() if "code" in line]
    assert (line["tokens_in"], line["tokens_out"], line["cache_read"]) == said


async def test_what_is_only_looked_at_is_not_counted_again(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(whole({"id": "resp_1", "usage": OPENAI}))
    server = await relay(one(upstream))
    async with http.get(f"{server.url}/p/first/v1/responses/resp_1") as response:
        assert response.status == 200
    assert (await server.logged()).tokens_in is None


@pytest.mark.parametrize("packed", ["gzip", None])
async def test_a_refusal_below_p_is_the_providers_but_for_secrets(
    packed: Literal["gzip"] | None, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    said = chat_error(403, f"{UPSTREAM_KEY} may not do that").but(compress=packed)
    upstream.script(said)
    server = await relay(one(upstream))
    async with http.get(f"{server.url}/p/first/files") as response:
        assert response.status == 403
        expected = said.wire.replace(UPSTREAM_KEY.encode(), b"[secret]")
        assert await response.read() == expected


# ---- While all are cooling down --------------------------------------------------------------


async def test_a_mark_that_relay_guessed_does_not_keep_the_last_way_shut(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_error(503, "busy"), whole(VECTORS))
    server = await relay(one(upstream))
    for status in (503, 200):
        async with http.post(f"{server.url}/v1/embeddings", json={"model": "m"}) as response:
            assert response.status == status, await response.text()


@pytest.mark.parametrize(("rule", "status"), [({"wait": "20s"}, 200), ({}, 429)])
async def test_it_is_held_where_the_rule_says_so(
    rule: JSON, status: int, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    later = chat_error(429, "slow down", headers={"retry-after": "1"})
    upstream.script(later, whole(VECTORS))
    rules = {"m": {"to": ["first"], **rule}}
    server = await relay(one(upstream) | {"routing_rules": rules})
    async with http.post(f"{server.url}/v1/embeddings", json={"model": "m"}) as response:
        assert response.status == status, await response.text()


@pytest.mark.parametrize(("size", "status"), [(100, 200), (3_000_000, 503)])
async def test_a_form_goes_to_another_target_whole_or_not_at_all(
    size: int, status: int, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """What flowed to the first was not kept; the second would get the beginning alone."""
    upstream.script(chat_error(503, "busy"), whole({"text": "said"}))
    server = await relay(config(f"{upstream.url}/a/v1", f"{upstream.url}/b/v1"))
    form = FormData(default_to_multipart=True)
    form.add_field("model", "m")
    form.add_field("file", io.BytesIO(b"x" * size), filename="a.wav", content_type="audio/wav")
    async with http.post(f"{server.url}/v1/audio/transcriptions", data=form) as response:
        assert response.status == status, await response.text()
    bodies = [seen.body for seen in upstream.requests]
    assert len(bodies) == (2 if status == 200 else 1)
    assert all(b"x" * size in body for body in bodies)


async def test_a_form_that_was_sent_in_part_is_not_held(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    """It cannot be sent again, so waiting would be in vain."""
    upstream.script(chat_error(429, "slow down", headers={"retry-after": "1"}))
    rules = {"m": {"to": ["first"], "wait": "20s"}}
    server = await relay(one(upstream) | {"routing_rules": rules})
    form = FormData(default_to_multipart=True)
    form.add_field("model", "m")
    form.add_field("file", io.BytesIO(b"x" * 3_000_000), filename="a.wav", content_type="audio/wav")
    url = f"{server.url}/v1/audio/transcriptions"
    async with http.post(url, data=form) as response:
        assert response.status == 429
    await server.logged()
    (line,) = [line for line in server.log() if "held_ms" in line]
    assert line["held_ms"] is None
