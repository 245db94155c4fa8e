"""HTTPS: `tls` with certificates of the test's own, taken anew by a reload, or not at all."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, FakeUpstream, chat_stream, chat_whole
from relay_process import RelayProcess, Start, free_port, served, spawn, text_of
from talk import JSON, ask, config

Tool = Callable[[str], str]
Pair = tuple[Path, Path]


@pytest.fixture
def pairs(tool: Tool, tmp_path: Path) -> Callable[[str], Pair]:
    """A certificate for 127.0.0.1 and its key, by name."""

    def make(name: str, *more: str) -> Pair:
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        command = f"""req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2
            -subj /CN={name} -addext subjectAltName=IP:127.0.0.1
            -keyout {key} -out {certificate}""".split()
        command += more or ["-nodes"]
        subprocess.run([tool("openssl"), *command], check=True, capture_output=True)
        return certificate, key

    return make


def tls(pair: Pair) -> JSON:
    return {"certificate": str(pair[0]), "key": str(pair[1])}


Serve = Callable[[JSON], Awaitable[RelayProcess]]


@pytest.fixture
async def https(tmp_path: Path) -> AsyncIterator[Serve]:
    """relay behind TLS, ready."""
    started: list[RelayProcess] = []

    async def start(content: JSON) -> RelayProcess:
        listen = f"127.0.0.1:{free_port()}"
        file = tmp_path / "config.yaml"
        file.write_text(text_of(content, listen))
        process = await spawn("-c", str(file), cwd=tmp_path)
        server = await served(RelayProcess(f"https://{listen}", file, process))
        started.append(server)
        return server

    yield start
    for server in started:
        await server.end()


def trusting(pair: Pair) -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(pair[0])))


async def asked(server: RelayProcess, pair: Pair) -> str:
    """What a new client that trusts only this certificate gets to read."""
    async with ClientSession(connector=trusting(pair)) as http:
        return (await ask(http, server)).said.text


def rewrite(server: RelayProcess, content: JSON) -> None:
    server.file.write_text(text_of(content, server.url.removeprefix("https://")))


async def test_clients_are_served_over_tls(
    https: Serve, pairs: Callable[[str], Pair], upstream: FakeUpstream
) -> None:
    one, other = pairs("one"), pairs("other")
    server = await https(config(upstream, tls=tls(one)))
    assert await asked(server, one) == TEXT
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await asked(server, other)
    async with ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):  # no plain HTTP beside it
            await http.get(server.url.replace("https:", "http:"))
    assert await server.stop() == 0


async def test_a_reload_takes_a_new_certificate_and_breaks_no_stream(
    https: Serve, pairs: Callable[[str], Pair], upstream: FakeUpstream
) -> None:
    """The same files with other content, as a renewal leaves them."""
    one, renewed = pairs("one"), pairs("renewed")
    server = await https(config(upstream, tls=tls(one)))
    go = asyncio.Event()
    upstream.script(chat_stream(text="One two three.").but(hold={2: go}), chat_whole(text=TEXT))
    old_trust = pairs("copy")[0]
    old_trust.write_bytes(one[0].read_bytes())
    async with ClientSession(connector=trusting((old_trust, one[1]))) as http:
        stream = asyncio.create_task(ask(http, server, stream=True))
        await upstream.arrived()
        for old, new in zip(one, renewed, strict=True):
            old.write_bytes(new.read_bytes())
        assert "reloaded" in await server.hup()
        assert await asked(server, renewed) == TEXT
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await asked(server, (old_trust, one[1]))
        go.set()
        assert (await stream).said.text == "One two three."


async def test_a_bad_pair_at_a_reload_keeps_the_old_one_and_says_so(
    https: Serve, pairs: Callable[[str], Pair], upstream: FakeUpstream, tmp_path: Path
) -> None:
    one, other = pairs("one"), pairs("other")
    content = config(upstream, tls=tls(one))
    server = await https(content)
    (tmp_path / "not.pem").write_text("not a certificate")
    bad = {
        "mismatch": (one[0], other[1]),
        "is not a PEM file": (tmp_path / "not.pem", one[1]),
        "No such file": (tmp_path / "missing.pem", one[1]),
    }
    for reason, pair in bad.items():
        rewrite(server, content | {"tls": tls(pair)})
        said = await server.hup()
        assert "reload failed, nothing changed" in said
        assert reason in said
        assert await asked(server, one) == TEXT
    rewrite(server, content | {"tls": tls(other)})
    await server.hup()
    assert await asked(server, other) == TEXT


async def test_tls_is_switched_on_and_off_by_a_restart_only(
    https: Serve, pairs: Callable[[str], Pair], upstream: FakeUpstream
) -> None:
    one = pairs("one")
    server = await https(config(upstream, tls=tls(one)))
    rewrite(server, config(upstream))
    assert "tls needs a restart" in await server.hup()
    assert await asked(server, one) == TEXT


async def test_a_bad_pair_at_the_start_is_a_problem_of_the_file(
    pairs: Callable[..., Pair], upstream: FakeUpstream, tmp_path: Path, relay: Start
) -> None:
    locked = pairs("locked", "-passout", "pass:secret")
    for pair, reason in ((locked, "key"), ((locked[0], tmp_path / "none"), "none")):
        with pytest.raises(
            RuntimeError, match=rf"(?s)status 2.*config.yaml:\d+:\d+: tls: .*{reason}"
        ):
            await relay(config(upstream, tls=tls(pair)))


async def test_a_connection_that_never_shakes_hands_is_no_trouble(
    https: Serve, pairs: Callable[[str], Pair], upstream: FakeUpstream
) -> None:
    one = pairs("one")
    server = await https(config(upstream, tls=tls(one)))
    host, _, port = server.url.removeprefix("https://").partition(":")
    _, idle = await asyncio.open_connection(host, int(port))
    _, rude = await asyncio.open_connection(host, int(port))
    rude.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await asked(server, one) == TEXT
    assert await server.stop() == 0
    assert "Traceback" not in server.stderr
    for writer in (idle, rude):
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
