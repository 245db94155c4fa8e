"""relay's own HTTP client against providers that misbehave on the wire."""

import asyncio
import os
import resource
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from relay_process import SOON, STARTED, free_port

import relay

pytestmark = pytest.mark.every_loop

Serve = Callable[["Wire"], Awaitable[None]]

FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b'{"model": "m"}'


@dataclass
class Wire:
    """One connection as the provider sees it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[bytes] = field(default_factory=list)
    task: asyncio.Task[None] = field(default_factory=asyncio.current_task)  # type: ignore[arg-type]

    async def request(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        self.requests.append(head + await self.reader.readexactly(length))
        return self.requests[-1]

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> None:
        """Until relay has gone."""
        async with asyncio.timeout(SOON):
            with suppress(ConnectionError):
                while await self.reader.read(1 << 16):
                    pass

    async def gone(self) -> None:
        """Relay has left, and whoever served it noticed."""
        async with asyncio.timeout(SOON):
            await asyncio.shield(self.task)


class Provider:
    def __init__(self, serve: Serve) -> None:
        self.wires: list[Wire] = []
        self._serve = serve

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(len(self.wires), reader, writer)
        self.wires.append(wire)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(wire)
        writer.close()
        with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            await writer.wait_closed()

    async def stop(self) -> None:
        for wire in self.wires:
            if not wire.writer.is_closing():  # asyncio before 3.12 aborts a closed one badly
                wire.writer.transport.abort()
            wire.task.cancel()
        await asyncio.gather(*(wire.task for wire in self.wires), return_exceptions=True)

    @property
    def requests(self) -> int:
        return sum(len(wire.requests) for wire in self.wires)


@asynccontextmanager
async def provider(
    serve: Serve, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Provider, str]]:
    one = Provider(serve)
    server = await asyncio.start_server(one.accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield one, f"{'https' if tls else 'http'}://localhost:{port}"
    finally:
        server.close()
        await one.stop()


@pytest.fixture
async def client() -> AsyncIterator[relay.Upstream]:
    """Closed at the end, with nothing left in it."""
    connections = relay.Upstream()
    yield connections
    await connections.close()
    assert connections._links == set()
    assert not any(connections._idle.values())


async def post(
    client: relay.Upstream, url: str, body: bytes = BODY, patience: float = SOON
) -> relay.LinkReply:
    async with asyncio.timeout(SOON):
        return await client.send("POST", f"{url}/v1/x?a=b", {"X-A": "1"}, body, patience)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(SOON):
        while not holds():  # noqa: ASYNC110  # nothing that could tell
            await asyncio.sleep(0.01)


async def rest(reply: relay.LinkReply) -> bytes:
    blocks = []
    async with asyncio.timeout(STARTED):
        while block := await reply.read():
            blocks.append(block)
    return b"".join(blocks)


def always(*answers: bytes) -> Serve:
    """Answer one request after the other on every connection, the last answer for ever."""

    async def serve(wire: Wire) -> None:
        for number in range(100):
            await wire.request()
            await wire.say(answers[min(number, len(answers) - 1)])

    return serve


# ---- One after the other


async def test_a_connection_serves_again(client: relay.Upstream) -> None:
    async with provider(always(FINE)) as (one, url):
        for _ in range(3):
            reply = await post(client, url)
            assert (reply.status, await rest(reply)) == (200, b"ok")
        assert [len(wire.requests) for wire in one.wires] == [3]
        assert one.wires[0].requests[0] == (
            b"POST /v1/x?a=b HTTP/1.1\r\nHost: " + url[7:].encode() + b"\r\nX-A: 1\r\n"
            b"Content-Length: 14\r\n\r\n" + BODY
        )


async def test_requests_at_the_same_time_have_connections_of_their_own(
    client: relay.Upstream,
) -> None:
    async with provider(always(FINE)) as (one, url):
        replies = await asyncio.gather(*(post(client, url) for _ in range(50)))
        assert [await rest(reply) for reply in replies] == [b"ok"] * 50
        assert len(one.wires) == 50
        await rest(await post(client, url))
        assert len(one.wires) == 50


NOT_KEPT = {
    "closed at the end": b"HTTP/1.1 200 OK\r\n\r\nok",
    "to be closed": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "of an old server": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "with bytes behind the end": FINE + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "for a moment only": b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("answer", NOT_KEPT.values(), ids=NOT_KEPT)
async def test_a_connection_is_not_used_again(client: relay.Upstream, answer: bytes) -> None:
    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(answer)
        if answer == NOT_KEPT["closed at the end"]:
            return
        await wire.closed()

    async with provider(serve) as (one, url):
        for _ in range(2):
            assert await rest(await post(client, url)) == b"ok"
        assert [len(wire.requests) for wire in one.wires] == [1, 1]


async def test_what_is_said_unasked_is_no_answer(client: relay.Upstream) -> None:
    answered = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(FINE)
        if wire.number == 0:
            await answered.wait()
            await wire.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await wire.closed()

    async with provider(serve) as (one, url):
        assert await rest(await post(client, url)) == b"ok"
        answered.set()
        await one.wires[0].gone()
        assert await rest(await post(client, url)) == b"ok"
        assert len(one.wires) == 2


async def test_an_idle_connection_grows_old(
    client: relay.Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_MOST_IDLE", 0.1)
    async with provider(always(FINE)) as (one, url):
        await rest(await post(client, url))
        await until(lambda: not client._links)
        await rest(await post(client, url))
        assert len(one.wires) == 2


# ---- Closed while a request is on its way


async def test_a_stale_connection_costs_nothing_but_another(client: relay.Upstream) -> None:
    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(FINE)
        if wire.number == 0:  # takes the next request, and goes
            await wire.request()

    async with provider(serve) as (one, url):
        assert await rest(await post(client, url)) == b"ok"
        assert await rest(await post(client, url)) == b"ok"
        assert [len(wire.requests) for wire in one.wires] == [2, 1]


async def test_a_request_is_said_again_only_once(client: relay.Upstream) -> None:
    async def serve(wire: Wire) -> None:
        await wire.request()
        if wire.number == 0:
            await wire.say(FINE)
            await wire.request()

    async with provider(serve) as (one, url):
        await rest(await post(client, url))
        with pytest.raises(relay.UpstreamError, match="without an answer") as caught:
            await post(client, url)
        assert caught.value.scope == "endpoint"
        assert one.requests == 3


async def test_a_request_that_was_heard_is_not_said_again(client: relay.Upstream) -> None:
    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(FINE)
        await wire.request()
        await wire.say(b"H")  # it has begun to answer: who knows what it has done

    async with provider(serve) as (one, url):
        await rest(await post(client, url))
        with pytest.raises(relay.UpstreamError):
            await post(client, url)
        assert one.requests == 2


async def test_a_new_connection_is_tried_once(client: relay.Upstream) -> None:
    async def serve(wire: Wire) -> None:
        await wire.request()

    async with provider(serve) as (one, url):
        with pytest.raises(relay.UpstreamError, match="without an answer"):
            await post(client, url)
        assert one.requests == 1


# ---- What comes


async def test_interim_heads_extensions_and_trailers_are_passed_over(
    client: relay.Upstream,
) -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" + CHUNKS + b"2;a=b\r\nok\r\n0\r\nc: d\r\n\r\n"
    async with provider(always(answer)) as (one, url):
        for _ in range(2):
            reply = await post(client, url)
            assert (reply.status, await rest(reply)) == (200, b"ok")
        assert len(one.wires) == 1


async def test_blocks_are_there_as_they_come(client: relay.Upstream) -> None:
    more = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(CHUNKS + b"2\r\nhe\r\n3\r\nl")
        await more.wait()
        await wire.say(b"lo\r\n0\r\n\r\n")

    async with provider(serve) as (_, url):
        reply = await post(client, url)
        assert await reply.read() == b"hel"
        more.set()
        assert await rest(reply) == b"lo"


BROKEN = {
    "cut off by its length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
    "cut off in a chunk": CHUNKS + b"9\r\nok",
    "cut off before the last chunk": CHUNKS + b"2\r\nok\r\n",
    "a broken chunk": CHUNKS + b"2\r\nok\r\nxyz\r\n",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_an_answer_that_breaks_is_no_whole_one(client: relay.Upstream, answer: bytes) -> None:
    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(answer)

    async with provider(serve) as (_, url):
        reply = await post(client, url)
        assert await reply.read() == b"ok"
        with pytest.raises(relay.UpstreamError):
            await reply.read()


async def test_a_reset_is_a_break(client: relay.Upstream) -> None:
    more = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(b"HTTP/1.1 200 OK\r\n\r\nok")  # by close: but a reset is none
        await more.wait()
        linger = b"\1\0\0\0\0\0\0\0"
        wire.writer.get_extra_info("socket").setsockopt(1, 13, linger)
        wire.writer.transport.abort()

    async with provider(serve) as (_, url):
        reply = await post(client, url)
        assert await reply.read() == b"ok"
        more.set()
        with pytest.raises(relay.UpstreamError, match="broke off"):
            await reply.read()


SHAPES = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a length and chunks": CHUNKS[:-2] + b"Content-Length: 2\r\n\r\n0\r\n\r\n",
    "no HTTP": b"220 mail.example.com ESMTP\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 30_000,
}


@pytest.mark.parametrize("answer", SHAPES.values(), ids=SHAPES)
async def test_an_ambiguous_answer_is_none(client: relay.Upstream, answer: bytes) -> None:
    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(answer)
        await wire.closed()  # relay goes, and does not wait for more

    async with provider(serve) as (_, url):
        with pytest.raises(relay.UpstreamError):
            await post(client, url)


async def test_an_early_answer_is_read_while_the_body_still_goes_out(
    client: relay.Upstream,
) -> None:
    read = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await read.wait()  # and not a byte more is

    async with provider(serve) as (one, url):
        reply = await post(client, url, b"x" * 30_000_000)
        assert (reply.status, await rest(reply)) == (413, b"no")
        read.set()
        assert client._links == set()  # of no more use: half a request stands in it
        assert len(one.wires) == 1


async def test_a_large_body_arrives_whole(client: relay.Upstream) -> None:
    body = bytes(range(256)) * 40_000
    async with provider(always(FINE)) as (one, url):
        await rest(await post(client, url, body))
        assert one.wires[0].requests[0].endswith(b"\r\n\r\n" + body)


# ---- Slow readers, and readers who leave


async def test_a_slow_reader_holds_up_the_provider(client: relay.Upstream) -> None:
    sent = 0

    async def serve(wire: Wire) -> None:
        nonlocal sent
        await wire.request()
        await wire.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            await wire.say(b"x" * 100_000)
            sent += 100_000

    async with provider(serve) as (_, url):
        reply = await post(client, url)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
        assert reply.unread < 1_000_000
        assert sent < 60_000_000  # the rest of it: the system's own buffers
        assert len(await rest(reply)) == 100_000_000


async def test_a_slow_reader_leaves_a_connection_that_reads(client: relay.Upstream) -> None:
    """The reading rests when the end comes in; the next answer must not wait for ever."""
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    async with provider(always(big, FINE)) as (one, url):
        reply = await post(client, url)
        await until(lambda: reply.unread > relay._MOST_UNREAD)
        assert len(await rest(reply)) == 1_000_000
        assert await rest(await post(client, url)) == b"ok"
        assert len(one.wires) == 1


async def test_a_reader_who_leaves_ends_the_connection(client: relay.Upstream) -> None:
    async with provider(always(CHUNKS + b"2\r\nok\r\n")) as (one, url):
        reply = await post(client, url)
        assert await reply.read() == b"ok"
        reply.close()
        reply.close()
        await one.wires[0].gone()
        assert client._links == set()


async def test_a_late_close_leaves_the_next_request_alone(client: relay.Upstream) -> None:
    async with provider(always(FINE, CHUNKS + b"2\r\nok\r\n0\r\n\r\n")) as (one, url):
        first = await post(client, url)
        await rest(first)
        second = await post(client, url)
        first.close()
        assert await rest(second) == b"ok"
        assert len(one.wires) == 1


async def silent(wire: Wire) -> None:
    await wire.closed()


async def half_a_head(wire: Wire) -> None:
    await wire.request()
    await wire.say(b"HTTP/1.1 200 OK\r\na")
    await wire.closed()


@pytest.mark.parametrize("serve", [silent, half_a_head])
async def test_who_waits_for_a_head_may_leave(client: relay.Upstream, serve: Serve) -> None:
    async with provider(serve) as (one, url):
        asking = asyncio.create_task(post(client, url))
        await until(lambda: one.wires and client._links)
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert client._links == set()
        await one.wires[0].gone()


async def test_who_waits_for_a_block_may_leave_and_come_back(client: relay.Upstream) -> None:
    """As an idle timeout does that finds the answer was over."""
    more = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.request()
        await wire.say(CHUNKS)
        await more.wait()
        await wire.say(b"2\r\nok\r\n0\r\n\r\n")

    async with provider(serve) as (_, url):
        reply = await post(client, url)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reply.read()
        more.set()
        assert await rest(reply) == b"ok"


async def test_nobody_is_left_waiting_when_all_is_closed(client: relay.Upstream) -> None:
    async with provider(silent) as (_, url):
        asking = asyncio.create_task(post(client, url))
        await until(lambda: client._links)
        await client.close()
        with pytest.raises(relay.UpstreamError):
            await asking


# ---- Getting there


async def test_nobody_listens(client: relay.Upstream) -> None:
    with pytest.raises(relay.UpstreamError, match=r"[Rr]efused"):
        await post(client, f"http://localhost:{free_port()}")


async def test_a_process_that_may_open_no_more_files_blames_nobody(client: relay.Upstream) -> None:
    """Neither the provider's address is marked, nor another one asked."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with provider(always(FINE)) as (_, url):
        spare = os.dup(0)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, most[1]))
        try:
            with pytest.raises(relay.NoDescriptors):
                await post(client, url)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, most)


async def test_a_name_is_looked_up_once_for_all(
    client: relay.Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, asked = asyncio.get_running_loop(), list[object]()
    lookup = loop.getaddrinfo

    async def counting(host: str, *args: object, **options: object) -> object:
        asked.append(host)
        if host == "nobody.invalid":  # some networks take long to say so, others lie
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await lookup(host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", counting)
    async with provider(always(FINE)) as (_, url):
        await asyncio.gather(*(post(client, url) for _ in range(20)))
        assert asked.count("localhost") == 1  # uvloop asks for addresses too, which costs nothing
    with pytest.raises(relay.UpstreamError, match=r"cannot be reached"):
        await post(client, "http://nobody.invalid")
    with pytest.raises(
        relay.UpstreamError, match=r"cannot be reached"
    ):  # that it failed is not remembered
        await post(client, "http://nobody.invalid")
    assert asked.count("nobody.invalid") == 2


@pytest.mark.parametrize("path", ["/a b", "/a\r\nb: c"])
async def test_an_address_stays_on_its_line(client: relay.Upstream, path: str) -> None:
    with pytest.raises(relay.UpstreamError, match=r"a malformed address"):
        await client.send("POST", f"http://localhost:1{path}", {}, b"", 1)


# ---- TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For localhost, signed by itself."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    make = (
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {key}"
    )
    make += f" -out {cert} -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([openssl, *make.split()], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_tls_speaks_http_1_and_keeps_its_connection(
    client: relay.Upstream,
    tls: ssl.SSLContext,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with provider(always(FINE, CHUNKS + b"2\r\nok\r\n0\r\n\r\n"), tls) as (one, url):
        for body in (BODY, b"x" * 1_000_000):
            assert await rest(await post(client, url, body)) == b"ok"
        [wire] = one.wires
        secured = wire.writer.get_extra_info("ssl_object")
        assert secured.selected_alpn_protocol() == "http/1.1"


async def test_a_stranger_is_not_believed(client: relay.Upstream, tls: ssl.SSLContext) -> None:
    async with provider(always(FINE), tls) as (one, url):
        with pytest.raises(relay.UpstreamError, match="certificate verify failed"):
            await post(client, url)
        assert one.requests == 0


async def test_another_name_is_not_believed(
    client: relay.Upstream,
    tls: ssl.SSLContext,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with provider(always(FINE), tls) as (one, url):
        with pytest.raises(relay.UpstreamError, match="certificate verify failed"):
            await post(client, url.replace("localhost", "127.0.0.1"))
        assert one.requests == 0


async def test_a_handshake_that_hangs_is_given_up(client: relay.Upstream) -> None:
    async with provider(silent) as (one, url):
        with pytest.raises(relay.UpstreamError, match="connected to in time") as caught:
            await post(client, url.replace("http:", "https:"), patience=1)
        assert (caught.value.failure.name, caught.value.scope) == ("timeout", "endpoint")
        await one.wires[0].gone()
