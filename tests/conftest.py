"""Fixtures: providers that do as told, relay as a process, a client that changes nothing."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import aiohttp
import pytest
import relay_process
from fake_upstream import FakeUpstream
from relay_process import Config, RelayProcess, Start


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as started:
        yield started


@pytest.fixture
async def upstreams() -> AsyncIterator[Callable[[int], Awaitable[list[FakeUpstream]]]]:
    """Several: `first, second = await upstreams(2)`."""
    async with AsyncExitStack() as stack:

        async def start(number: int) -> list[FakeUpstream]:
            return [await stack.enter_async_context(FakeUpstream()) for _ in range(number)]

        yield start


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Start]:
    """relay.py on a config: `server = await relay({...})`."""
    started: list[RelayProcess] = []
    numbers = count()

    async def start(
        config: Config, *, args: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> RelayProcess:
        home = tmp_path / f"relay{next(numbers)}"
        home.mkdir()
        server = await relay_process.launch(home / "config.yaml", config, args, env)
        started.append(server)
        return server

    yield start
    for server in started:
        await server.end()
    for server in started:
        assert not relay_process.complaints(server), server.stdout + server.stderr


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that shows bytes as they came."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as session:
        yield session


@pytest.fixture
def unused_port() -> int:
    return relay_process.free_port()


@pytest.fixture
def tool() -> Callable[[str], str]:
    """`tool("promtool")`: a program of the machine's, as `.ci/tools` installs it."""

    def find(name: str) -> str:
        if path := shutil.which(name):
            return path
        reason = f"there is no {name}; .ci/tools installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    return find
