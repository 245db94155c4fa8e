"""A client that goes away: its upstream request ends, its line is written, nobody else notices."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from aiohttp import ClientSession
from fake_upstream import (
    HEAD,
    TEXT,
    Answer,
    FakeUpstream,
    Seen,
    anthropic_stream,
    chat_chunk,
    chat_error,
    chat_stream,
    stream,
)
from relay_process import SOON, Config, RelayProcess, Start
from talk import DIALECTS, PAIRS, ask, config, dial, stalled

FOREVER = Answer(delay=3600)


@pytest.fixture
def relay(relay: Start) -> Start:
    """One that sends no keep-alive, unless it is told otherwise."""

    async def start(
        config: Config, *, args: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> RelayProcess:
        return await relay(config, args=args, env={"RELAY_KEEPALIVE": "3600", **(env or {})})

    return start


async def left(seen: Seen) -> None:
    """At once: by what is said of the connection, and not by a keep-alive that cannot be sent."""
    await asyncio.wait_for(seen.left.wait(), SOON)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_gone_in_the_middle_of_a_stream(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    """Checklist 52."""
    answer = DIALECTS[provider].stream(text="One two three.")
    upstream.script(stream(answer.chunks[:-3], never_ends=True))
    server = await relay(config(upstream, dialect=provider))
    async with dial(server) as wire:
        await wire.post(client)
        await wire.head()
        await wire.until(b"One")
    await left(upstream.requests[0])
    line = await server.logged()
    assert (line.code, line.provider) == ("CD", "first")


@pytest.mark.every_way
@pytest.mark.parametrize("polite", [False, True], ids=["reset", "closed"])
async def test_gone_while_the_provider_talks(
    polite: bool, upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(stream([chat_chunk({"content": "word "})] * 10_000, pause=0.01))
    server = await relay(config(upstream))
    async with dial(server) as wire:
        await wire.post("openai")
        await wire.head()
        await wire.until(b"word")
        if polite:
            wire.writer.close()
    await left(upstream.requests[0])
    assert (await server.logged()).code == "CD"


@pytest.mark.every_way
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_gone_before_the_provider_answered(
    streamed: bool, upstream: FakeUpstream, relay: Start
) -> None:
    upstream.script(FOREVER)
    server = await relay(config(upstream))
    async with dial(server) as wire:
        await wire.post("anthropic", stream=streamed)
        seen = await upstream.arrived()
    await left(seen)
    assert (await server.logged()).code == "CD"


@pytest.mark.every_way
async def test_gone_before_the_first_meaningful_event(upstream: FakeUpstream, relay: Start) -> None:
    upstream.script(stream(anthropic_stream(text="x").chunks[:2], never_ends=True))
    server = await relay(config(upstream, dialect="anthropic"))
    async with dial(server) as wire:
        await wire.post("anthropic")
        seen = await upstream.arrived()
    await left(seen)


@pytest.mark.every_way
async def test_gone_behind_the_early_head(upstream: FakeUpstream, relay: Start) -> None:
    upstream.script(FOREVER)
    early = config(upstream, timeouts={"gate": 0.2})
    server = await relay(early, env={"RELAY_KEEPALIVE": "0.3"})
    async with dial(server) as wire:
        await wire.post("openai")
        assert await wire.head() == 200
    await left(upstream.requests[0])
    assert (await server.logged()).code == "CD"


@pytest.mark.every_way
async def test_gone_without_having_read_anything(upstream: FakeUpstream, relay: Start) -> None:
    # 200 MB: the systems' buffers on the way and the test's own take 64
    upstream.script(stream([chat_chunk({"content": "x" * 65536})] * 3000))
    server = await relay(config(upstream))
    async with dial(server) as wire:
        await wire.post("openai")
        await wire.head()
        await stalled(upstream.requests[0])
    await left(upstream.requests[0])


@pytest.mark.every_way
async def test_gone_while_the_second_target_is_asked(upstream: FakeUpstream, relay: Start) -> None:
    upstream.script(chat_error(500, "no"), FOREVER)
    server = await relay(config(upstream, upstream, upstream))
    async with dial(server) as wire:
        await wire.post("openai")
        seen = await upstream.arrived(2)
    await left(seen)
    line = await server.logged()
    assert (line.code, len(line.attempts)) == ("CD", 2)
    assert len(upstream.requests) == 2


async def test_gone_before_its_own_body_was_complete(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    async with dial(server) as wire:
        head = "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"
        await wire.send(head.encode())
    async with dial(server) as wire:
        await wire.post("openai")
        assert await wire.head() == 200
    assert len(upstream.requests) == 1


async def test_what_was_used_before_leaving_is_still_accounted(
    upstream: FakeUpstream, relay: Start
) -> None:
    answer = anthropic_stream(text="One two three.")
    upstream.script(stream(answer.chunks[:-3], never_ends=True))
    server = await relay(config(upstream, dialect="anthropic"))
    async with dial(server) as wire:
        await wire.post("anthropic")
        await wire.head()
        await wire.until(b"three")
    line = await server.logged()
    assert (line.tokens_in, line.cache_read) == (1045, 1024)


async def test_leaving_is_no_fault_of_the_target(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(FOREVER, path="/one/v1/chat/completions")
    server = await relay(config(f"{upstream.url}/one/v1", upstream))
    async with dial(server) as wire:
        await wire.post("openai")
        seen = await upstream.arrived()
    await left(seen)
    upstream.script(chat_stream(text="back"), path="/one/v1/chat/completions")
    assert (await ask(http, server, stream=True)).headers["x-relay-provider"] == "first"


@pytest.mark.every_way
async def test_the_others_notice_nothing(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    answer, go = chat_stream(text="One two three."), asyncio.Event()
    upstream.script(answer.but(hold={2: go}))
    server = await relay(config(upstream))
    async with dial(server) as stays, dial(server) as leaves:
        for wire in (stays, leaves):
            await wire.post("openai")
            await wire.head()
        leaves.hang_up()
        await left(await upstream.arrived(2))
        go.set()
        assert (await stays.reply()).said.text == "One two three."


@pytest.mark.every_way
async def test_fifty_that_leave_at_once_leave_nothing_behind(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(Answer(hold={HEAD: asyncio.Event()}), path="/messages")
    server = await relay(config(upstream, dialect="anthropic"))

    async def come_and_go() -> None:
        async with dial(server) as wire:
            await wire.post("openai")
            await upstream.arrived(50)

    await asyncio.gather(*(come_and_go() for _ in range(50)))
    await asyncio.gather(*(left(seen) for seen in upstream.requests))
    upstream.script(anthropic_stream(text=TEXT), path="/messages")
    assert (await ask(http, server, stream=True)).said.text == TEXT
    await server.logged(51)
    assert [line.code for line in server.lines()].count("CD") == 50


@pytest.mark.parametrize("provider", ["openai", "anthropic", "responses"])
@pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
async def test_gone_at_the_last_event(
    client: str, provider: str, upstream: FakeUpstream, relay: Start
) -> None:
    """Codex hangs up at `response.completed`: it has the whole answer, and so has the ledger."""
    answer = DIALECTS[provider].stream(text="Hello.")
    upstream.script(answer.but(never_ends=True))
    server = await relay(config(upstream, dialect=provider))
    last = {"openai": b"[DONE]", "anthropic": b"message_stop", "responses": b"response.completed"}
    async with dial(server) as wire:
        await wire.post(client)
        await wire.head()
        await wire.until(last[client])
    line = await server.logged()
    assert (line.code, line.tokens_out is not None) == ("OK", True)
