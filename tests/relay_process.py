"""relay.py as its users have it: a process, a file, signals, and what it writes."""

import asyncio
import fcntl
import json
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "relay.py"
# What an installed `relay` does.  Python keeps the bytecode of a module, not of a script: this
# starts in half the time, and there are many starts.
ENTRY = f"import sys; sys.path[0] = {str(ROOT)!r}; from relay import main; sys.exit(main())"

# Python that every relay runs first, see tests/windows.py.
BEFORE = os.environ.get("RELAY_TEST_BEFORE", "")

# The names of a log line, in one place: field of `Line` -> key in the JSON.
LOG_KEYS = {
    "id": "id",
    "key": "key",
    "model": "model",
    "provider": "provider",
    "target": "target",
    "status": "status",
    "code": "code",
    "attempts": "attempts",
    "tokens_in": "tokens_in",
    "tokens_out": "tokens_out",
    "cache_read": "cache_read",
    "ms": "ms",
    "first_ms": "first_ms",
}
RELOADED = re.compile(r".*(\breloaded\b|reload failed|no configuration file to reload).*\n")
PROBES = ("/healthz", "/readyz")  # never a line of their own, as far as the tests count

SECRET = "sk-secret"  # what every secret of the tests begins with
# Seconds for what should happen at once: a busy machine's at once, and still less than relay's own
# patience (the gate and the grace, 30 s each), so that what only that would end is not waited for.
SOON = 20
STARTED = 60  # seconds for a Python of its own, which has more to do
NOISE = ("Traceback (most recent", "was never retrieved", "was never awaited", "Unclosed ")

Config = Mapping[str, Any] | str


@dataclass(frozen=True)
class Line:
    """One request's log line."""

    id: str
    key: str | None
    model: str | None
    provider: str | None
    target: str | None
    status: int
    code: str
    attempts: list[Any]
    tokens_in: int | None
    tokens_out: int | None
    cache_read: int | None
    ms: float
    first_ms: float | None


def line_of(record: Mapping[str, Any]) -> Line:
    values: dict[str, Any] = {name: record.get(key) for name, key in LOG_KEYS.items()}
    return Line(**values)


class RelayProcess:
    def __init__(self, url: str, file: Path, process: asyncio.subprocess.Process) -> None:
        self.url = url
        self.file = file
        self.process = process
        self.pid = process.pid
        self._written = {"out": bytearray(), "err": bytearray()}
        self._open = 2  # streams that more may come from
        self._fresh = asyncio.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._collect("out", process.stdout)),
            asyncio.create_task(self._collect("err", process.stderr)),
        ]

    # -- what it said

    @property
    def stderr(self) -> str:
        return self._written["err"].decode(errors="replace")

    @property
    def stdout(self) -> str:
        return self._written["out"].decode(errors="replace")

    def log(self) -> list[dict[str, Any]]:
        """The JSON lines of stderr so far."""
        complete = self.stderr.rpartition("\n")[0].split("\n")
        return [record for record in map(parsed, complete) if record is not None]

    def lines(self) -> list[Line]:
        """The lines of requests so far."""
        records = (record for record in self.log() if is_request(record))
        return [line_of(record) for record in records]

    async def logged(self, count: int = 1, within: float = SOON) -> Line:
        """The count-th request's line, once it is written."""
        await self.until(lambda: len(self.lines()) >= count, within)
        return self.lines()[count - 1]

    async def says(self, pattern: str, within: float = SOON) -> str:
        """All output, once something in it matches."""
        await self.until(lambda: re.search(pattern, self.stdout + self.stderr) is not None, within)
        return self.stdout + self.stderr

    async def until(self, holds: Callable[[], bool], within: float = SOON) -> None:
        """Once its output is such; at the end of all output it either is, or never will be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within), self._fresh:
                await self._fresh.wait_for(lambda: holds() or not self._open)
        end = self.stderr[-4000:]
        assert holds(), f"not seen within {within} s, or before its end; stderr:\n{end}"

    async def ready(self) -> None:
        """Once it listens at all its addresses and hears signals, which is when it says so."""
        await self.until(lambda: "is ready" in self.stderr or not self._open, STARTED)
        if "is ready" not in self.stderr:
            status = await self.exited()
            raise RuntimeError(f"relay ended with status {status}:\n{self.stdout}{self.stderr}")

    # -- what is done to it

    def write(self, config: Config) -> None:
        self.file.write_text(text_of(config, self.url.removeprefix("http://")))

    async def hup(self) -> str:
        """Reload; the line it wrote about that, when all is done."""
        before = len(self.stderr)
        self.process.send_signal(signal.SIGHUP)
        await self.until(lambda: RELOADED.search(self.stderr, before) is not None)
        found = RELOADED.search(self.stderr, before)
        assert found
        return found[0]

    async def stop(self, by: signal.Signals = signal.SIGTERM, within: float = SOON) -> int:
        """The exit status."""
        if self.process.returncode is None:
            self.process.send_signal(by)
        return await self.exited(within)

    async def exited(self, within: float = SOON) -> int:
        async with asyncio.timeout(within):
            # Shielded: who waits too short a time must not end the reading, or nobody could after.
            await asyncio.shield(asyncio.gather(*self._readers))
            return await self.process.wait()

    async def end(self) -> None:
        """The end of a test: whatever it takes."""
        if self.process.returncode is None:
            self.process.kill()
        await self.exited(STARTED)

    async def _collect(self, name: str, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(65536):
            async with self._fresh:
                self._written[name] += chunk
                self._fresh.notify_all()
        async with self._fresh:
            self._open -= 1
            self._fresh.notify_all()


class Start(Protocol):
    """The `relay` fixture."""

    def __call__(
        self, config: Config, *, args: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Awaitable[RelayProcess]: ...


def parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def is_request(record: Mapping[str, Any]) -> bool:
    named = LOG_KEYS["code"] in record and LOG_KEYS["status"] in record
    return named and record.get("path") not in PROBES


# ---- Starting ------------------------------------------------------------------------------


# Ports below those that the kernel gives to outgoing connections.  The processes of a run, and of
# other runs beside it, take them in turn from one file: none is anybody else's for a long time.
FIRST_PORT, PORTS = 10_000, 20_000
LAST_GIVEN = Path(tempfile.gettempdir()) / f"relay-tests-of-{os.getuid()}.port"


def free_port() -> int:
    while True:
        port = next_port()
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def next_port() -> int:
    with open(LAST_GIVEN, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = FIRST_PORT + (int(file.read() or 0) + 1 - FIRST_PORT) % PORTS
        file.truncate(0)
        file.write(str(port))
    return port


def text_of(config: Config, listen: str) -> str:
    """The YAML; `listen` is added at the end if it has none."""
    if isinstance(config, str):
        return config if re.search(r"(?m)^listen:", config) else f"{config}\nlisten: {listen}\n"
    return yaml.safe_dump({"listen": listen, **config}, sort_keys=False, allow_unicode=True)


def listen_of(config: Config, otherwise: str) -> str:
    listen = (yaml.safe_load(config) if isinstance(config, str) else config).get("listen")
    first = listen[0] if isinstance(listen, list) else listen
    return str(first or otherwise).replace("0.0.0.0", "127.0.0.1")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, less what would make relay find providers, proxies or state, or start slowly."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not re.search(
            r"(?i)_API_KEY$|_AUTH_TOKEN$|_proxy$|^RELAY_(?!UPSTREAM$)|^STATE_DIRECTORY$"
            r"|^PYTHONDONTWRITEBYTECODE$",
            name,
        )
    }
    return ours | {"PYTHONUNBUFFERED": "1"} | dict(extra or {})


def place(file: Path, config: Config) -> str:
    """Write the file; the address relay will listen on."""
    listen = listen_of(config, f"127.0.0.1:{free_port()}")
    file.write_text(text_of(config, listen))
    return listen


async def launch(
    file: Path,
    config: Config,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> RelayProcess:
    """Write the file, start relay on it, wait until it serves."""
    listen = place(file, config)
    process = await spawn("-c", file.name, *args, cwd=file.parent, env=env)
    return await served(RelayProcess(f"http://{listen}", file, process))


async def served(started: RelayProcess) -> RelayProcess:
    """Once it serves; if it never does, nothing of it is left."""
    try:
        await started.ready()
    except BaseException:
        await started.end()
        raise
    return started


async def spawn(
    *args: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    before: str = "",
    stdin: int | None = None,
) -> asyncio.subprocess.Process:
    """`before` is Python that the process runs first: to set its limits, or its terminal."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{BEFORE}\n{before}\n{ENTRY}", *args),
        cwd=cwd,
        env=environment(env),
        stdin=stdin,
        stdout=pipe,
        stderr=pipe,
    )


def complaints(started: RelayProcess) -> list[str]:
    """What no relay may write, whatever a test did to it."""
    written = started.stdout + started.stderr
    return [word for word in (*NOISE, SECRET) if word in written]


# ---- Commands ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


async def run(
    *args: str, cwd: Path, env: Mapping[str, str] | None = None, within: float = STARTED
) -> Ran:
    """A command that ends by itself."""
    process = await spawn(*args, cwd=cwd, env=env)
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())
