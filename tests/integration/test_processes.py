"""Several processes at one port, and how one of them leaves without anybody being refused."""

import asyncio
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, FakeUpstream
from relay_process import PROGRAM, RelayProcess, Start, environment, free_port, place, run, served
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
    assert "stopped" not in ran.stderr  # it never ran


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


# ---- Started as a script


async def start_script(
    upstream: FakeUpstream, folder: Path, env: dict[str, str]
) -> tuple[asyncio.subprocess.Process, RelayProcess]:
    shutil.copy(PROGRAM, folder)
    file = folder / "with a space.yaml"
    listen = place(file, config(upstream))
    command = (sys.executable, "-W", "error", "relay.py", "-c", file.name)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment(env), stdout=pipe, stderr=pipe
    )
    return process, RelayProcess(f"http://{listen}", file, process)


def status_of(pid: int, name: str) -> int:
    """A number of /proc/PID/status: hexadecimal for signals, kB for memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    value = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(value, 16 if name.startswith("Sig") else 10)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")
async def test_a_script_goes_on_as_a_module_and_hears_what_came_meanwhile(
    upstream: FakeUpstream, http: ClientSession, tmp_path: Path
) -> None:
    for _ in range(2):  # the first start compiles the module, the second finds it
        process, server = await start_script(upstream, tmp_path, {})
        try:
            while not status_of(process.pid, "SigBlk") & 1 << signal.SIGHUP - 1:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            process.send_signal(signal.SIGHUP)  # before it could act on it
            await served(server)
            assert "reloaded" in await server.says("reloaded")
            assert (await ask(http, server)).said.text == TEXT
            seen = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")  # noqa: ASYNC240
            assert seen[1:4] == [b"-W", b"error", b"-c"]
            assert seen[-3:-1] == [b"-c", b"with a space.yaml"]
            memory = status_of(process.pid, "VmRSS")
            assert await server.stop() == 0
        finally:
            await server.end()
    assert memory < 80_000


async def test_where_no_bytecode_can_be_kept_the_script_serves_itself(
    upstream: FakeUpstream, http: ClientSession, tmp_path: Path
) -> None:
    process, server = await start_script(upstream, tmp_path, {"PYTHONDONTWRITEBYTECODE": "1"})
    try:
        await served(server)
        assert (await ask(http, server)).said.text == TEXT
        assert b"relay.py" in Path(f"/proc/{process.pid}/cmdline").read_bytes()  # noqa: ASYNC240
        assert await server.stop() == 0
    finally:
        await server.end()
