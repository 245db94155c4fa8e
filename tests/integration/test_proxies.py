"""The way out to a provider: through an HTTP proxy, a SOCKS5 server, or none."""

import asyncio
import base64
import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, Answer, FakeUpstream
from relay_process import SOON, Start, free_port, run, text_of
from talk import JSON, ask, config, one, provider

Upstreams = Callable[[int], Awaitable[list[FakeUpstream]]]
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

FOREVER = Answer(delay=3600)
USER, PASSWORD = "relay", "sk-secret-proxy"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode())


@dataclass
class Proxy:
    """An HTTP proxy and a SOCKS5 server on one port: the first byte tells which is meant.

    Every name leads to one port of this machine, so that a test's provider may have any.
    """

    to: int
    guarded: bool = False
    secure: ssl.SSLContext | None = None
    asked: list[str] = field(default_factory=list)  # "connect host:port", "get ...", "socks ..."
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.secure)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, scheme: str, password: str = "") -> str:
        credentials = f"{USER}:{password}@" if password else ""
        return f"{scheme}://{credentials}127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                first = await reader.readexactly(1)
                serve = self._socks if first == b"\x05" else self._http
                await serve(first, (reader, writer))
        finally:
            writer.close()

    async def _http(self, first: bytes, client: Pair) -> None:
        reader, writer = client
        head = first + await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        self.asked.append(f"{method.decode().lower()} {target.decode()}")
        if self.guarded and b"Basic " + BASIC not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            return
        upstream = await asyncio.open_connection("127.0.0.1", self.to)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = b"/" + target.split(b"/", 3)[3]
            kept = [n for n in head.split(b"\r\n") if not n.lower().startswith(b"proxy-")]
            upstream[1].write(b"\r\n".join(kept).replace(target, path, 1))
        await joined(client, upstream)

    async def _socks(self, first: bytes, client: Pair) -> None:
        """RFC 1928, and RFC 1929 for the password."""
        reader, writer = client
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        wanted = 2 if self.guarded else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            await writer.drain()
            return
        writer.write(bytes((5, wanted)))
        if self.guarded:
            await reader.readexactly(1)
            said = [await reader.readexactly((await reader.readexactly(1))[0]) for _ in range(2)]
            good = said == [USER.encode(), PASSWORD.encode()]
            writer.write(bytes((1, 0 if good else 1)))
            if not good:
                await writer.drain()
                return
        kind = (await reader.readexactly(4))[3]
        size = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        host = await reader.readexactly(size)
        port = int.from_bytes(await reader.readexactly(2), "big")
        name = host.decode() if kind == 3 else ".".join(map(str, host))
        self.asked.append(f"socks {name}:{port}")
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await joined(client, await asyncio.open_connection("127.0.0.1", self.to))


async def joined(one_side: Pair, other: Pair) -> None:
    """Bytes both ways until one side ends."""

    async def flow(source: asyncio.StreamReader, drain: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            drain.write(data)
            await drain.drain()

    ways = [
        asyncio.create_task(flow(one_side[0], other[1])),
        asyncio.create_task(flow(other[0], one_side[1])),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        other[1].close()


def certified(home: Path) -> ssl.SSLContext:
    """As provider.test; the certificate to trust is home/cert.pem."""
    openssl = shutil.which("openssl")
    if not openssl:
        assert "CI" not in os.environ, "openssl is not installed"
        pytest.skip("openssl is not installed")
    made = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -keyout key.pem -out cert.pem -subj /CN=provider.test"
        " -addext subjectAltName=DNS:provider.test,DNS:localhost"
    )
    if not (home / "cert.pem").exists():
        subprocess.run([openssl, *made.split()], cwd=home, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(home / "cert.pem", home / "key.pem")
    return context


@contextlib.asynccontextmanager
async def tls(upstream: FakeUpstream, home: Path) -> AsyncIterator[tuple[int, Path]]:
    """The provider behind TLS as provider.test: a port, and the certificate to trust."""
    context = certified(home)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            inner = await asyncio.open_connection("127.0.0.1", upstream.port)
            await joined((reader, writer), inner)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], home / "cert.pem"


def proxied(upstream: FakeUpstream, proxy: str | None) -> JSON:
    return one(upstream, proxy=proxy)


# ---- Through a proxy -----------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_requests_go_through_the_providers_proxy(
    scheme: str, streamed: bool, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    async with Proxy(upstream.port) as proxy:
        server = await relay(proxied(upstream, proxy.url(scheme)))
        for _ in range(2):
            reply = await ask(http, server, stream=streamed)
            assert (reply.status, reply.said.text) == (200, TEXT)
    kind = "socks" if "socks" in scheme else "post"
    assert proxy.asked
    assert all(asked.startswith(kind) for asked in proxy.asked)
    assert f"127.0.0.1:{upstream.port}" in proxy.asked[0]
    assert "proxy-authorization" not in upstream.requests[0].headers


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_proxy_may_want_credentials(
    scheme: str, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    async with Proxy(upstream.port, guarded=True) as proxy:
        server = await relay(proxied(upstream, proxy.url(scheme, PASSWORD)))
        assert (await ask(http, server)).status == 200
        refused = await relay(proxied(upstream, proxy.url(scheme, "sk-secret-wrong")))
        reply = await ask(http, refused)
    assert reply.status == 502
    assert b"proxy" in reply.body
    assert b"sk-secret" not in reply.body
    assert BASIC not in reply.body
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_https_goes_through_a_tunnel_and_names_are_the_proxys_to_find(
    scheme: str, upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    async with tls(upstream, tmp_path) as (port, certificate), Proxy(port) as proxy:
        made = one("https://provider.test/v1", proxy=proxy.url(scheme))
        server = await relay(made, env={"SSL_CERT_FILE": str(certificate)})
        reply = await ask(http, server)
        assert (reply.status, reply.said.text) == (200, TEXT)
    kind = "socks" if scheme == "socks5" else "connect"
    assert proxy.asked == [f"{kind} provider.test:443"]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "secure"])
async def test_the_way_to_the_proxy_may_be_secured_too(
    secure: bool, upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    """Then there is TLS within TLS, or a plain request within it."""
    async with (
        tls(upstream, tmp_path) as (port, certificate),
        Proxy(port if secure else upstream.port, secure=certified(tmp_path)) as proxy,
    ):
        way = proxy.url("https").replace("127.0.0.1", "localhost")
        address = "https://provider.test/v1" if secure else "http://provider.test/v1"
        trusted = {"SSL_CERT_FILE": str(certificate)}
        server = await relay(one(address, proxy=way), env=trusted)
        reply = await ask(http, server)
        assert (reply.status, reply.said.text) == (200, TEXT)
    kind = (
        "connect provider.test:443" if secure else "post http://provider.test/v1/chat/completions"
    )
    assert proxy.asked == [kind]


async def test_each_provider_has_its_own_way(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    async with Proxy(first.port) as one_proxy, Proxy(second.port) as other:
        providers = {
            "first": provider(first, proxy=one_proxy.url("http")),
            "second": provider(second, proxy=other.url("socks5")),
            "third": provider(second, proxy=None),
        }
        server = await relay({"providers": providers})
        for name in providers:
            reply = await ask(http, server, model=f"{name}/m")
            assert reply.headers["x-relay-provider"] == name
        assert (len(one_proxy.asked), len(other.asked)) == (1, 1)


async def test_a_client_that_leaves_ends_the_way_through_the_proxy(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(lambda seen: FOREVER)
    async with Proxy(upstream.port) as proxy:
        server = await relay(proxied(upstream, proxy.url("socks5")))
        asking = asyncio.create_task(ask(http, server))
        seen = await upstream.arrived()
        asking.cancel()
        await asyncio.wait_for(seen.left.wait(), SOON)
    assert (await server.logged()).code == "CD"


# ---- A dead one ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_a_dead_proxy_is_failed_over(
    scheme: str, upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    first, second = await upstreams(2)
    made = config(first, second)
    made["providers"]["first"]["proxy"] = f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{free_port()}"
    server = await relay(made)
    for _ in range(2):
        assert (await ask(http, server)).headers["x-relay-provider"] == "second"
    await server.logged(2)
    outcomes = [
        [attempt["outcome"] for attempt in line["attempts"]]
        for line in server.log()
        if "attempts" in line
    ]
    assert outcomes == [["transient", "ok"], ["ok"]]  # it is cooling down by then
    assert first.requests == []


async def test_the_error_names_the_proxy_and_not_its_password(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    port = free_port()
    server = await relay(proxied(upstream, f"socks5://{USER}:{PASSWORD}@127.0.0.1:{port}"))
    reply = await ask(http, server)
    assert reply.status == 502
    assert f"proxy socks5://127.0.0.1:{port}".encode() in reply.body
    assert PASSWORD.encode() not in reply.body


async def test_who_shares_a_dead_proxy_is_not_blamed_for_it(
    upstreams: Upstreams, relay: Start, http: ClientSession
) -> None:
    """The mark is the provider's: another may have its own way to the same host."""
    first, second = await upstreams(2)
    dead = f"http://127.0.0.1:{free_port()}"
    providers = {"first": provider(first, proxy=dead), "second": provider(first)}
    server = await relay({"providers": providers, "routing_rules": {"m": ["first", "second"]}})
    assert (await ask(http, server)).headers["x-relay-provider"] == "second"
    assert second.requests == []


# ---- The environment -----------------------------------------------------------------------


async def test_the_environments_proxy_is_the_default(
    upstream: FakeUpstream, relay: Start, http: ClientSession, tmp_path: Path
) -> None:
    async with tls(upstream, tmp_path) as (port, certificate), Proxy(port) as proxy:
        env = {"HTTPS_PROXY": proxy.url("http"), "SSL_CERT_FILE": str(certificate)}
        server = await relay(one("https://provider.test/v1"), env=env)
        assert (await ask(http, server)).status == 200
    assert proxy.asked == ["connect provider.test:443"]


async def test_this_machine_is_never_asked_through_the_environments_proxy(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    server = await relay(one(upstream), env={"HTTP_PROXY": dead, "http_proxy": dead})
    assert (await ask(http, server)).status == 200


@pytest.mark.parametrize("proxy", [None, "direct"], ids=["null", "direct"])
async def test_a_provider_may_go_without_the_environments_proxy(
    proxy: str | None, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    async with Proxy(upstream.port) as unwanted:
        made = one("http://provider.test/v1", proxy=proxy)
        server = await relay(made, env={"HTTP_PROXY": unwanted.url("http")})
        assert (await ask(http, server)).status == 502  # there is no such name
        assert unwanted.asked == []


async def test_check_says_by_way_of_what(tmp_path: Path) -> None:
    made = one("https://api.example.com/v1", proxy=f"http://{USER}:{PASSWORD}@10.0.0.1:3128")
    (tmp_path / "config.yaml").write_text(text_of(made, "127.0.0.1:8484"))
    ran = await run("check", "-c", "config.yaml", cwd=tmp_path)
    assert "by way of http://10.0.0.1:3128" in ran.stdout
    assert PASSWORD not in ran.output
