"""Fixtures: providers that do as told, relay as a process, a client that changes nothing.

And how deep laws look: the same examples every time, or more of them and random, by
RELAY_TEST_EXAMPLES=2000 pytest tests/laws
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import aiohttp
import pytest
import relay_process
import uvloop
from fake_upstream import FakeUpstream
from hypothesis import HealthCheck, Phase, settings
from relay_process import Config, RelayProcess, Start

DEEPER = os.environ.get("RELAY_TEST_EXAMPLES")

settings.register_profile(
    "relay",
    max_examples=int(DEEPER or 25),
    derandomize=DEEPER is None,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("relay")


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


LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# How relay.py may be run.  What depends on sockets is marked `every_way`; all else is run as users
# have it who installed everything, on uvloop.  All of it another way: RELAY_TEST_WAY=asyncio pytest
UNINSTALLED = {"PYTHONPATH": str(Path(__file__).parent / "without")}
WAYS: Mapping[str, Mapping[str, str]] = {
    "uvloop": {},
    "asyncio": UNINSTALLED,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("every_way"):
        metafunc.parametrize("way", WAYS, indirect=True)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """For parts of relay that run in the test itself."""
    loops: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("every_loop"):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", os.environ.get("RELAY_TEST_WAY", "uvloop")))


@pytest.fixture
async def relay(tmp_path: Path, way: str) -> AsyncIterator[Start]:
    """relay.py on a config: `server = await relay({...})`."""
    started: list[RelayProcess] = []
    numbers = count()

    async def start(
        config: Config, *, args: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> RelayProcess:
        home = tmp_path / f"relay{next(numbers)}"
        home.mkdir()
        server = await relay_process.launch(
            home / "config.yaml", config, args, {**WAYS[way], **(env or {})}
        )
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
