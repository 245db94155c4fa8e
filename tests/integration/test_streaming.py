"""Streams: when bytes arrive, what silence looks like, and how a stream ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from fake_upstream import (
    ANTHROPIC_PING,
    COMMENT,
    DONE,
    HEAD,
    TEXT,
    Answer,
    FakeUpstream,
    anthropic_block,
    anthropic_start,
    anthropic_stream,
    chat_chunk,
    chat_error,
    chat_error_event,
    chat_stream,
    stream,
)
from relay_process import SOON, RelayProcess, Start
from talk import (
    DIALECTS,
    OPENAI,
    PAIRS,
    UPSTREAM_KEY,
    Event,
    ask,
    config,
    dial,
    events_of,
    one,
    stalled,
    stream_of,
)

KEEPALIVE = {"RELAY_KEEPALIVE": "0.3"}  # seconds; 15 by contract
WORDS = "One two three four."
ODD = 'Grüße, 你好 🌍🌍 \u2028\u2029\u0085\x0b\x0c and \\u0041 \\n "quotes".'


def index_of(answer: Answer, mark: str) -> int:
    """The chunk that says `mark`."""
    return next(number for number, chunk in enumerate(answer.chunks) if mark.encode() in chunk)


def before(answer: Answer, mark: str) -> int:
    """The bytes before the chunk that says `mark`."""
    return sum(len(chunk) for chunk in answer.chunks[: index_of(answer, mark)])


# ---- Chunk by chunk ------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_chunk_reaches_the_client_while_the_next_is_held(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    answer, go = DIALECTS[provider].stream(text=WORDS), asyncio.Event()
    upstream.script(answer.but(hold={index_of(answer, "three"): go}))
    server = await relay(config(upstream, dialect=provider))
    async with dial(server) as wire:
        await wire.post(client)
        assert await wire.head() == 200
        early = await wire.until(b"two ")
        assert b"three" not in early
        go.set()
        assert (await wire.reply(early)).said.text == WORDS


async def test_a_client_of_http_1_0_gets_the_bytes_without_chunks(
    upstream: FakeUpstream, relay: Start
) -> None:
    answer = chat_stream(text=WORDS)
    upstream.script(answer)
    server = await relay(config(upstream))
    body = b'{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
    async with dial(server) as wire:
        await wire.send(
            b"POST /v1/chat/completions HTTP/1.0\r\nhost: localhost\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        async with asyncio.timeout(SOON):
            head, _, said = (await wire.reader.read(-1)).partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    assert b"transfer-encoding" not in head.lower()
    assert said == b"".join(answer.chunks)


async def test_the_head_comes_with_the_first_meaningful_event_and_not_after_it(
    upstream: FakeUpstream, relay: Start
) -> None:
    answer, go = chat_stream(text=WORDS), asyncio.Event()
    upstream.script(answer.but(hold={index_of(answer, "two"): go}))
    server = await relay(config(upstream))
    async with dial(server) as wire:
        await wire.post("openai")
        assert await asyncio.wait_for(wire.head(), SOON) == 200


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_tool_arguments_come_in_the_pieces_they_were_sent_in(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    answer = DIALECTS[provider].stream(calls=[("c1", "get_weather", '{"city": "Oslo, Norway"}')])
    go = asyncio.Event()
    upstream.script(answer.but(hold={index_of(answer, "Norway"): go}))
    server = await relay(config(upstream, dialect=provider))
    async with dial(server) as wire:
        await wire.post(client, tools=[DIALECTS[client].tool])
        await wire.head()
        early = await wire.until(b"city")
        go.set()
        said = (await wire.reply(early)).said
    assert said.calls == (("get_weather", {"city": "Oslo, Norway"}),)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_text_survives_any_cutting_of_the_bytes(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect=provider))
    for drip in (1, 7, 1000):
        upstream.script(DIALECTS[provider].stream(text=[ODD, " end"]).but(drip=drip))
        assert (await ask(http, server, client, stream=True)).said.text == ODD + " end"


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_lines_may_end_in_cr_lf(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer = DIALECTS[provider].stream(text=WORDS)
    crlf = [chunk.replace(b"\n", b"\r\n") for chunk in answer.chunks]
    upstream.script(stream(crlf, drip=5))
    server = await relay(config(upstream, dialect=provider))
    assert (await ask(http, server, client, stream=True)).said.text == WORDS


@pytest.mark.parametrize("client", DIALECTS)
async def test_comments_missing_spaces_and_other_fields_are_legal(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    chunks = [chunk.replace(b"data: ", b"data:") for chunk in chat_stream(text=WORDS).chunks]
    mixed = [b"retry: 100\n\n", *(COMMENT + b"id: 1\n" + chunk for chunk in chunks)]
    upstream.script(stream(mixed))
    server = await relay(config(upstream))
    assert (await ask(http, server, client, stream=True)).said.text == WORDS


async def test_a_stream_is_asked_for_uncompressed(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await ask(http, server, stream=True, headers={"accept-encoding": "gzip, br, zstd"})
    assert upstream.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("client", "provider"), [pair for pair in PAIRS if len({*pair}) == 2])
async def test_a_stream_compressed_unasked_is_read(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(DIALECTS[provider].stream(text=WORDS).but(compress="gzip"))
    server = await relay(config(upstream, dialect=provider))
    assert (await stream_of(server, client)).said.text == WORDS


@pytest.mark.every_way
async def test_a_client_that_does_not_read_stops_the_provider(
    upstream: FakeUpstream, relay: Start
) -> None:
    piece = chat_chunk({"content": "x" * 65536})
    upstream.script(stream([piece] * 3200, never_ends=True))  # 200 MB
    server = await relay(config(upstream))
    async with dial(server) as wire:
        await wire.post("openai")
        await wire.head()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stalled(upstream.requests[0])
        assert upstream.requests[0].sent < 120_000_000  # the systems' own buffers
        assert resident(server) < 200_000_000


def resident(server: RelayProcess) -> int:
    with open(f"/proc/{server.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


# ---- Silence -------------------------------------------------------------------------------


def is_keepalive(event: Event) -> bool:
    if event.name == "ping" or event.data == '{"type":"keepalive"}':
        return True
    choices = [] if event.data == "[DONE]" else event.json.get("choices") or []
    silent = [not any((choice.get("delta") or {}).values()) for choice in choices]
    return bool(choices) and all(silent) and not any(c.get("finish_reason") for c in choices)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_silence_between_words_is_filled_in_the_client_s_dialect(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    """Checklist 51; test_a_stall_is_an_error_although_keep_alives_were_sent is its end."""
    answer, go = DIALECTS[provider].stream(text=WORDS), asyncio.Event()
    upstream.script(answer.but(hold={index_of(answer, "three"): go}))
    server = await relay(config(upstream, dialect=provider), env=KEEPALIVE)
    async with dial(server) as wire:
        await wire.post(client)
        await wire.head()
        early = await wire.until(b"two ")
        events = await silence(wire.chunks(), 2)
        go.set()
        reply = await wire.reply(early + events)
    assert reply.said.text == WORDS
    assert sum(is_keepalive(event) for event in reply.events) >= 2
    assert not any(line.startswith(b":") for line in reply.body.splitlines())


async def silence(chunks: AsyncIterator[bytes], count: int) -> bytes:
    """The next `count` chunks, which come although the provider says nothing."""
    seen = b""
    async with asyncio.timeout(SOON):
        for _ in range(count):
            seen += await anext(chunks)
    return seen


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_after_the_gate_the_head_and_keep_alives_come_without_an_event(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    go = asyncio.Event()
    upstream.script(DIALECTS[provider].stream(text=WORDS).but(hold={HEAD: go}))
    early_head = config(upstream, dialect=provider, timeouts={"gate": 0.3})
    server = await relay(early_head, env=KEEPALIVE)
    async with dial(server) as wire:
        await wire.post(client)
        assert await asyncio.wait_for(wire.head(), SOON) == 200
        assert wire.headers["content-type"].startswith("text/event-stream")
        assert wire.headers["x-relay-request-id"]
        early = await silence(wire.chunks(), 2)
        go.set()
        reply = await wire.reply(early)
    assert reply.said.text == WORDS
    # Nothing comes before message_start but comments, which keep Claude Code's watchdog quiet, nor
    # before response.created, where the SDK takes no other event.
    begun = {"message_start"} if client == "anthropic" else set()
    assert all(is_keepalive(event) or event.name in begun for event in events_of(early))
    assert client != "openai" or b"\n:" not in b"\n" + early


async def test_a_whole_answer_waits_beyond_the_gate(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(OPENAI.whole(text=WORDS).but(delay=1))
    server = await relay(config(upstream, timeouts={"gate": 0.2}), env=KEEPALIVE)
    reply = await ask(http, server)
    assert not reply.streamed
    assert reply.said.text == WORDS


# not Responses: its events are numbered, and two streams cannot be sewn together
@pytest.mark.every_way
@pytest.mark.parametrize("provider", ["anthropic", "openai"])
async def test_no_keep_alive_falls_into_an_event(
    provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    answer, go = DIALECTS[provider].stream(text=[WORDS]), asyncio.Event()
    number = index_of(answer, "One")
    half = len(answer.chunks[number]) // 2
    first, second = answer.chunks[number][:half], answer.chunks[number][half:]
    start = DIALECTS[provider].stream(text=["Zero."]).chunks[: number + 1]
    rest = answer.chunks[number + 1 :]
    upstream.script(stream([*start, first, second, *rest], hold={number + 2: go}))
    server = await relay(config(upstream, dialect=provider), env=KEEPALIVE)
    async with dial(server) as wire:
        await wire.post(provider)
        await wire.head()
        early = await wire.until(b"Zero.")
        await asyncio.sleep(1)
        go.set()
        reply = await wire.reply(early)
    assert first + second in reply.body
    assert reply.said.text == "Zero." + WORDS


async def test_pings_of_the_provider_pass(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer = anthropic_stream(text=WORDS)
    upstream.script(stream([answer.chunks[0], *[ANTHROPIC_PING] * 5, *answer.chunks[2:]]))
    server = await relay(config(upstream, dialect="anthropic"))
    reply = await ask(http, server, "anthropic", stream=True)
    assert reply.body.count(ANTHROPIC_PING) == 5


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_stall_is_an_error_although_keep_alives_were_sent(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    answer = DIALECTS[provider].stream(text=WORDS)
    upstream.script(answer.but(hold={index_of(answer, "three"): asyncio.Event()}))
    stalls = config(upstream, dialect=provider, timeouts={"idle": 2})
    server = await relay(stalls, env=KEEPALIVE)
    reply = await stream_of(server, client)
    assert "first" in reply.final_error["message"]
    assert any(is_keepalive(event) for event in reply.events)
    assert (await server.logged()).code == "UI"
    await asyncio.wait_for(upstream.requests[0].left.wait(), SOON)


@pytest.mark.every_way
async def test_pings_of_the_provider_do_not_hide_a_stall_before_content(
    upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(stream([anthropic_start(), *[ANTHROPIC_PING] * 100], pause=0.1))
    server = await relay(config(upstream, dialect="anthropic", timeouts={"first_event": 1}))
    reply = await stream_of(server, "anthropic")
    assert reply.status == 504
    assert reply.error["message"]


@pytest.mark.every_way
async def test_the_total_time_of_a_request_is_bounded(upstream: FakeUpstream, relay: Start) -> None:
    upstream.script(stream([chat_chunk({"content": "x"})] * 1000, pause=0.05))
    server = await relay(config(upstream, timeouts={"total": 3}))
    assert (await stream_of(server, "openai")).final_error["message"]


async def test_a_provider_s_own_timeouts_go_before_the_general_ones(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(Answer(hold={HEAD: asyncio.Event()}))
    own = one(upstream, timeouts={"first_event": 0.3})
    server = await relay(own | {"timeouts": {"first_event": 60}})
    reply = await ask(http, server, stream=True)
    assert reply.status == 504
    assert (await server.logged()).code == "UT"


# ---- Ends ----------------------------------------------------------------------------------


@pytest.mark.every_way
@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_stream_cut_after_content_is_never_a_clean_end(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    answer, go = DIALECTS[provider].stream(text=WORDS), asyncio.Event()
    cut = {"cut_after": before(answer, "three"), "hold": {index_of(answer, "three"): go}}
    upstream.script(answer.but(**cut))
    server = await relay(config(upstream, dialect=provider))
    async with dial(server) as wire:
        await wire.post(client)
        await wire.head()
        early = await wire.until(b"two ")
        go.set()
        reply = await wire.reply(early)
    assert "first" in reply.final_error["message"]
    assert b"two " in reply.body
    assert (await server.logged()).code == "UR"


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_an_event_cut_in_half_is_dropped_before_the_error(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    answer, go = DIALECTS[provider].stream(text=WORDS), asyncio.Event()
    number = index_of(answer, "three")
    chunks = [*answer.chunks[:number], answer.chunks[number][:30], b""]
    upstream.script(stream(chunks, hold={number: go}, cut_after=len(b"".join(chunks))))
    server = await relay(config(upstream, dialect=provider))
    async with dial(server) as wire:
        await wire.post(client)
        await wire.head()
        early = await wire.until(b"two ")
        go.set()
        reply = await wire.reply(early)
    assert reply.final_error["message"]
    for event in reply.events:
        assert event.json


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_stream_that_ends_without_a_finish_is_a_truncation(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream, dialect=provider))
    for calls in ([], [("c1", "get_weather", '{"city": "Oslo"}')]):
        upstream.script(DIALECTS[provider].stream(text=WORDS, calls=calls, finish="", done=False))
        assert (await stream_of(server, client)).final_error["message"]


@pytest.mark.parametrize("client", DIALECTS)
async def test_a_finish_without_done_is_an_end(
    client: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(chat_stream(text=WORDS, done=False))
    server = await relay(config(upstream))
    reply = await ask(http, server, client, stream=True)
    assert reply.clean
    assert WORDS.split()[-1].encode() in reply.body
    assert b"error" not in reply.body.replace(b'"error":null', b"")
    assert (await server.logged()).code == "OK"


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_an_error_event_after_content_reaches_the_client_and_closes(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    speaks = DIALECTS[provider]
    chunks = speaks.stream(text=WORDS).chunks
    number = index_of(stream(chunks), "three")
    upstream.script(stream([*chunks[:number], speaks.error_event("capacity exceeded")]))
    server = await relay(config(upstream, dialect=provider))
    reply = await stream_of(server, client)
    assert "capacity exceeded" in reply.final_error["message"]
    assert (await server.logged()).code == "UE"


async def test_an_error_inside_a_chunk_is_seen(upstream: FakeUpstream, relay: Start) -> None:
    broken = chat_error_event("lost the GPU").replace(b'{"error"', b'{"choices": [], "error"')
    upstream.script(stream([chat_chunk({"content": "x"}), broken, DONE]))
    server = await relay(config(upstream))
    reply = await stream_of(server, "anthropic")
    assert "lost the GPU" in reply.final_error["message"]


@pytest.mark.parametrize("finish", ["network_error", "error"])
async def test_a_finish_that_means_failure_is_one(
    finish: str, upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(chat_stream(text=WORDS, finish=finish))
    server = await relay(config(upstream))
    assert (await stream_of(server, "anthropic")).final_error["message"]


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_failure_after_the_early_head_is_reported_in_the_stream(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    go = asyncio.Event()
    upstream.script(DIALECTS[provider].error(500, "out of luck").but(hold={HEAD: go}))
    server = await relay(config(upstream, dialect=provider, timeouts={"gate": 0.2}))
    async with dial(server) as wire:
        await wire.post(client)
        assert await wire.head() == 200
        go.set()
        reply = await wire.reply()
    assert "out of luck" in reply.final_error["message"]
    assert (await server.logged()).code != "OK"


@pytest.mark.every_way
async def test_failover_goes_on_behind_the_early_head(upstream: FakeUpstream, relay: Start) -> None:
    go = asyncio.Event()
    upstream.script(chat_error(500, "no").but(hold={HEAD: go}), path="/bad/v1/chat/completions")
    both = config(f"{upstream.url}/bad/v1", f"{upstream.url}/v1", timeouts={"gate": 0.2})
    server = await relay(both)
    async with dial(server) as wire:
        await wire.post("openai")
        assert await wire.head() == 200
        go.set()
        reply = await wire.reply()
    assert reply.said.text == TEXT
    assert (await server.logged()).provider == "second"


# ---- Not what was asked for ----------------------------------------------------------------


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_json_in_answer_to_a_streaming_request_becomes_a_stream(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(DIALECTS[provider].whole(text=WORDS))
    server = await relay(config(upstream, dialect=provider))
    reply = await ask(http, server, client, stream=True)
    assert reply.streamed
    assert reply.said.text == WORDS


LABELS = ("text/event-stream", "application/json", "text/plain", "application/octet-stream")


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_stream_in_answer_to_a_whole_request_is_gathered(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect=provider))
    for label in LABELS:
        upstream.script(DIALECTS[provider].stream(text=WORDS).but(content_type=label))
        reply = await ask(http, server, client, stream=False)
        assert reply.headers["content-type"].startswith("application/json")
        assert reply.said.text == WORDS, label


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_mislabelled_stream_is_a_stream(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream, dialect=provider))
    for label in LABELS:
        upstream.script(DIALECTS[provider].stream(text=WORDS).but(content_type=label))
        reply = await ask(http, server, client, stream=True)
        assert reply.streamed, label
        assert reply.said.text == WORDS


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_the_other_dialect_s_shape_is_recognised_by_what_it_says(
    client: str, provider: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    other = next(dialect for name, dialect in DIALECTS.items() if name != provider)
    calls = [("c1", "get_weather", '{"city": "Oslo"}')]
    server = await relay(config(upstream, dialect=provider))
    for streamed, builder in ((False, other.whole), (True, other.stream)):
        upstream.script(builder(text=WORDS, calls=calls))
        tools = [DIALECTS[client].tool]
        reply = await ask(http, server, client, stream=streamed, tools=tools)
        assert reply.said.text == WORDS
        assert reply.said.calls == (("get_weather", {"city": "Oslo"}),)


async def test_a_stream_without_the_names_of_events_is_understood(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    nameless = [chunk.partition(b"\n")[2] for chunk in anthropic_stream(text=WORDS).chunks]
    upstream.script(stream(nameless))
    server = await relay(config(upstream, dialect="anthropic"))
    assert (await ask(http, server, "openai", stream=True)).said.text == WORDS


async def test_a_stream_without_message_start_is_understood(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    block = anthropic_block(0, {"type": "text", "text": ""}, [{"type": "text_delta", "text": "Hi"}])
    upstream.script(stream([*block, *anthropic_stream().chunks[-2:]]))
    server = await relay(config(upstream, dialect="anthropic"))
    assert (await ask(http, server, "openai", stream=True)).said.text == "Hi"


async def test_no_secret_is_in_a_broken_stream(upstream: FakeUpstream, relay: Start) -> None:
    leak = chat_error_event(f"key {UPSTREAM_KEY} has no credit")
    upstream.script(stream([chat_chunk({"content": "x"}), leak]))
    server = await relay(config(upstream))
    for client in DIALECTS:
        reply = await stream_of(server, client)
        assert "has no credit" in reply.final_error["message"]
        assert UPSTREAM_KEY.encode() not in reply.body
