"""A log that nobody reads, or that cannot be written, holds up neither requests nor the stop."""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession
from fake_upstream import TEXT, FakeUpstream
from relay_process import PROGRAM, STARTED, RelayProcess, environment, place
from talk import ask, config

SMALLEST = 4096  # bytes that a pipe holds at least

Unread = Callable[[FakeUpstream], Awaitable[tuple[RelayProcess, int]]]


class Deaf(RelayProcess):
    """A relay whose stderr is not ours to read: /healthz tells that it serves."""

    def __init__(self, url: str, file: Path, process: asyncio.subprocess.Process) -> None:
        self.url, self.file, self.process, self.pid = url, file, process, process.pid
        self._readers = []
        self._written = {"out": bytearray(), "err": bytearray()}

    async def ready(self) -> None:
        async with asyncio.timeout(STARTED), ClientSession() as http:
            while not await healthy(http, self.url):  # noqa: ASYNC110  # it is another process
                await asyncio.sleep(0.02)


async def healthy(http: ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/healthz") as response:
            return response.status == 200
    except ClientError:
        return False


@pytest.fixture
async def unread(tmp_path: Path) -> AsyncIterator[Unread]:
    """A relay that writes its log into a small pipe, and the pipe's other end."""
    async with AsyncExitStack() as stack:

        async def start(upstream: FakeUpstream) -> tuple[RelayProcess, int]:
            out, into = os.pipe()
            stack.callback(os.close, out)
            fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, SMALLEST)
            file = tmp_path / "config.yaml"
            listen = place(file, config(upstream))
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(PROGRAM),
                "-c",
                str(file),
                env=environment(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=into,
            )
            os.close(into)
            server = Deaf(f"http://{listen}", file, process)
            stack.push_async_callback(server.end)
            await server.ready()
            return server, out

        yield start


async def test_requests_are_answered_and_sigterm_is_heard(
    unread: Unread, upstream: FakeUpstream, http: ClientSession
) -> None:
    server, _ = await unread(upstream)
    for _ in range(40):  # each line has some 400 bytes
        assert (await ask(http, server)).said.text == TEXT
    assert await server.stop() == 0


async def test_a_log_that_is_read_again_goes_on(
    unread: Unread, upstream: FakeUpstream, http: ClientSession
) -> None:
    server, out = await unread(upstream)
    for _ in range(40):
        await ask(http, server)
    server.process.send_signal(signal.SIGTERM)
    loop, seen = asyncio.get_running_loop(), b""
    while block := await loop.run_in_executor(None, os.read, out, 65536):
        seen += block
    assert await server.exited() == 0
    assert seen.count(b'"code":"OK"') == 40
    assert b"stopped" in seen.splitlines()[-1]


async def test_a_reader_that_is_gone_is_no_reason_to_stop(
    unread: Unread, upstream: FakeUpstream, http: ClientSession
) -> None:
    server, out = await unread(upstream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), out)  # the last reader's end is closed by that
    for _ in range(3):
        assert (await ask(http, server)).said.text == TEXT
    assert await server.stop() == 0
