"""Several processes at one port, and how one of them leaves without anybody being refused."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, FakeUpstream
from relay_process import RelayProcess, Start, free_port, run
from talk import ask, config

SHARED = ("--reuse-port",)


async def test_two_processes_share_a_port(upstream: FakeUpstream, relay: Start) -> None:
    shared, own = free_port(), [free_port(), free_port()]
    content = config(upstream)
    started = [
        await relay(
            content | {"listen": f"127.0.0.1:{port}"},
            args=[*SHARED, "--listen", f"127.0.0.1:{shared}", "--listen", f"127.0.0.1:{port}"],
        )
        for port in own
    ]
    at_both = f"http://127.0.0.1:{shared}"
    for _ in range(40):
        async with ClientSession() as http:  # a connection of its own each time
            both = RelayProcess.__new__(RelayProcess)
            both.url = at_both
            assert (await ask(http, both)).said.text == TEXT
    for server in started:
        await server.logged()
    counts = Counter({server.pid: len(server.lines()) for server in started})
    await asyncio.gather(*(server.stop() for server in started))
    assert sum(len(server.lines()) for server in started) == 40
    assert min(counts.values()) > 0


async def test_without_the_option_the_second_is_told_so(
    upstream: FakeUpstream, relay: Start, tmp_path: Path
) -> None:
    server = await relay(config(upstream))
    ran = await run("-c", str(server.file), cwd=tmp_path)
    assert ran.status == 2
    assert "cannot listen on" in ran.stderr


async def test_what_is_left_serves_on(upstream: FakeUpstream, relay: Start) -> None:
    content = config(upstream) | {"listen": f"127.0.0.1:{free_port()}"}
    first, second = [await relay(content, args=SHARED) for _ in range(2)]
    assert await first.stop() == 0
    async with ClientSession() as http:
        for _ in range(5):
            assert (await ask(http, second)).said.text == TEXT


# ---- server.drain_delay: a balancer that polls is given time to look


async def readiness(http: ClientSession, server: RelayProcess) -> int:
    async with http.get(f"{server.url}/readyz", headers={"connection": "close"}) as response:
        return response.status


async def test_readiness_ends_a_while_before_connections_are_refused(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream) | {"server": {"drain_delay": 60}})
    assert await readiness(http, server) == 200
    server.process.send_signal(signal.SIGTERM)
    await server.says("stopping")
    assert await readiness(http, server) == 503
    reply = await ask(http, server, headers={"connection": "close"})
    assert reply.said.text == TEXT  # who comes all the same is served
    async with http.get(f"{server.url}/metrics") as response:
        assert "\nrelay_ready 0\n" in await response.text()
    assert await server.stop() == 0  # a second signal does not wait


async def test_when_it_is_over_connections_are_refused(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream) | {"server": {"drain_delay": 0.2}})
    assert await server.stop() == 0
    with pytest.raises(aiohttp.ClientConnectorError):
        await readiness(http, server)
