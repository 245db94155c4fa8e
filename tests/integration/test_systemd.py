"""systemd's side played by the test: what relay tells it, the sockets it passes, its own checks."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import sysconfig
import time
import venv
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, FakeUpstream, chat_stream
from relay_process import (
    PROGRAM,
    SOON,
    STARTED,
    RelayProcess,
    Start,
    environment,
    free_port,
    run,
    served,
    spawn,
    text_of,
)
from talk import ask, config, dial

Tool = Callable[[str], str]


# ---- What relay says


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(address.replace("@", "\0", 1))

    async def hears(self, name: str, within: float = SOON) -> dict[str, str]:
        """The next message that has this name; others before it are passed over."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(within):
            while True:
                data = await loop.sock_recv(self._socket, 65536)
                pairs = (line.partition("=")[::2] for line in data.decode().split("\n"))
                if name in (message := dict(pairs)):
                    return message

    async def hears_on(self, name: str, within: float) -> None:
        """For as long as there is no longer silence."""
        while True:
            await self.hears(name, within)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = f"@relay-test-{os.getpid()}-{time.monotonic_ns()}"
    made = Manager(path if request.param == "abstract" else str(tmp_path / "notify"))
    yield made
    made.close()


def monotonic() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


async def test_it_says_what_it_does(
    manager: Manager, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream), env={"NOTIFY_SOCKET": manager.address})
    ready = await manager.hears("READY")
    assert (ready["READY"], ready["STATUS"]) == ("1", "serving 1 of 1 providers")

    before = monotonic()
    server.write(config(upstream, upstream))
    server.process.send_signal(signal.SIGHUP)
    reloading = await manager.hears("RELOADING")
    assert before <= int(reloading["MONOTONIC_USEC"]) <= monotonic()
    ready = await manager.hears("READY")
    assert ready["STATUS"].startswith("serving 2 of 2 providers; configuration 2 in force: ")
    assert "provider second: added" in ready["STATUS"]

    upstream.script(chat_stream(text="One two.").but(hold={1: (go := asyncio.Event())}))
    async with dial(server) as wire:
        await wire.post("openai")
        await upstream.arrived()
        server.process.send_signal(signal.SIGTERM)
        stopping = await manager.hears("STOPPING")
        assert stopping["STATUS"] == "finishing 1 requests"
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 30e6
        server.process.send_signal(signal.SIGHUP)  # no READY contradicts it
        go.set()
        assert (await wire.reply()).clean
    assert await server.exited() == 0
    with pytest.raises(TimeoutError):
        await manager.hears("READY", within=0.2)


async def test_a_reload_that_fails_is_shown_and_over(
    manager: Manager, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream), env={"NOTIFY_SOCKET": manager.address})
    await manager.hears("READY")
    server.write("providers:\n  x: {presett: zai}\n")
    server.process.send_signal(signal.SIGHUP)
    await manager.hears("RELOADING")
    status = (await manager.hears("READY"))["STATUS"]
    assert "RELOAD failed" in status
    assert "presett" in status
    server.write(config(upstream))
    server.process.send_signal(signal.SIGHUP)
    await manager.hears("RELOADING")
    assert "failed" not in (await manager.hears("READY"))["STATUS"]


async def test_without_a_file_a_reload_is_over_too(manager: Manager, tmp_path: Path) -> None:
    port = free_port()
    env = {"NOTIFY_SOCKET": manager.address}
    process = await spawn("--demo", "--listen", f"127.0.0.1:{port}", cwd=tmp_path, env=env)
    server = RelayProcess(f"http://127.0.0.1:{port}", tmp_path / "none", process)
    try:
        await manager.hears("READY", STARTED)
        process.send_signal(signal.SIGHUP)
        await manager.hears("RELOADING")
        await manager.hears("READY")
    finally:
        await server.end()


async def test_the_watchdog_hears_of_it_while_it_lives(
    manager: Manager, upstream: FakeUpstream, relay: Start
) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"}
    server = await relay(config(upstream), env=env)
    for _ in range(5):
        assert (await manager.hears("WATCHDOG"))["WATCHDOG"] == "1"
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        await manager.hears_on("WATCHDOG", within=0.5)
    server.process.send_signal(signal.SIGCONT)
    await manager.hears("WATCHDOG")


async def test_another_process_s_watchdog_is_not_ours(
    manager: Manager, upstream: FakeUpstream, relay: Start
) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "50000", "WATCHDOG_PID": "1"}
    await relay(config(upstream), env=env)
    await manager.hears("READY")
    with pytest.raises(TimeoutError):
        await manager.hears("WATCHDOG", within=0.3)


async def test_a_manager_that_is_gone_is_no_reason_to_stop(
    manager: Manager, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "50000"}
    server = await relay(config(upstream), env=env)
    manager.close()
    await server.hup()
    assert (await ask(http, server)).said.text == TEXT
    assert await server.stop() == 0


# ---- The sockets it is given

Pass = Callable[..., Awaitable[RelayProcess]]


@contextmanager
def listening(
    family: int = socket.AF_INET, at: object = ("127.0.0.1", 0)
) -> Iterator[socket.socket]:
    with socket.socket(family) as made:
        made.bind(at)
        made.listen(100)
        yield made


@pytest.fixture
async def passing(tmp_path: Path) -> AsyncIterator[Pass]:
    """relay as systemd starts it: descriptors from 3 on, and who they are meant for."""
    started: list[RelayProcess] = []

    async def start(
        *sockets: socket.socket, config: object, names: str = "", pid: str = "$$", args: str = ""
    ) -> RelayProcess:
        file = tmp_path / "config.yaml"
        file.write_text(text_of(config, "127.0.0.1:1"))  # type: ignore[arg-type]
        moves = "".join(f" {3 + i}<&{s.fileno()}" for i, s in enumerate(sockets))
        told = f"LISTEN_PID={pid} LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={names}"
        command = shlex.join([sys.executable, str(PROGRAM), "-c", str(file)])
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            f"exec{moves}; {told} exec {command} {args}",
            pass_fds=[s.fileno() for s in sockets],
            env=environment(),
            stdout=pipe,
            stderr=pipe,
        )
        host = sockets[0].getsockname()
        url = f"http://{host[0]}:{host[1]}" if isinstance(host, tuple) else "http://nowhere"
        started.append(RelayProcess(url, file, process))
        return started[-1]

    yield start
    for server in started:
        await server.end()


async def test_it_serves_on_what_is_passed(
    passing: Pass, upstream: FakeUpstream, http: ClientSession, tmp_path: Path
) -> None:
    path = str(tmp_path / "relay.sock")
    with listening() as tcp, listening(socket.AF_UNIX, path) as unix:
        server = await served(await passing(tcp, unix, config=config(upstream), names="web:local"))
        assert (await ask(http, server)).said.text == TEXT
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as near,
            near.get("http://localhost/healthz") as response,
        ):
            assert response.status == 200
        port = tcp.getsockname()[1]
        said = await server.says("is ready")
        assert f"127.0.0.1:{port} (web), unix:{path} (local)" in said
        assert await server.stop() == 0
        with socket.socket(socket.AF_UNIX) as late:  # the file is systemd's, and still there
            late.connect(path)


async def test_a_restart_refuses_no_connection(
    passing: Pass, upstream: FakeUpstream, http: ClientSession
) -> None:
    """The file's `listen` is a port that nobody may use: what is passed stands for it."""
    with listening() as tcp:
        first = await served(await passing(tcp, config=config(upstream)))
        asked: list[asyncio.Task[object]] = []
        asking = asyncio.Event()

        async def keep_asking() -> None:
            while not asking.is_set():
                headers = {"connection": "close"}
                asked.append(asyncio.create_task(ask(http, first, headers=headers)))
                await asyncio.sleep(0.05)

        clients = asyncio.create_task(keep_asking())
        await first.logged(5)
        assert await first.stop() == 0
        before = len(asked)
        await asyncio.sleep(0.2)  # nobody serves; connections wait in the socket
        second = await served(await passing(tcp, config=config(upstream)))
        await second.logged(10)
        asking.set()
        await clients
        replies = await asyncio.gather(*asked)
        assert [reply.status for reply in replies] == [200] * len(asked)  # type: ignore[attr-defined]
        assert len(asked) - before > 5


async def test_an_own_address_is_served_besides(
    passing: Pass, upstream: FakeUpstream, http: ClientSession
) -> None:
    port = free_port()
    with listening() as tcp:
        server = await served(
            await passing(tcp, config=config(upstream), args=f"--listen 127.0.0.1:{port}")
        )
        async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
            assert response.status == 200
        assert (await ask(http, server)).said.text == TEXT


async def test_sockets_for_another_process_are_not_taken(
    passing: Pass, upstream: FakeUpstream, http: ClientSession
) -> None:
    port = free_port()
    with listening() as tcp:
        mine = config(upstream) | {"listen": f"127.0.0.1:{port}"}
        server = await passing(tcp, config=mine, pid="1")
        server.url = f"http://127.0.0.1:{port}"
        await served(server)
        assert (await ask(http, server)).said.text == TEXT


async def test_what_does_not_listen_is_refused(passing: Pass, upstream: FakeUpstream) -> None:
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        server = await passing(idle, config=config(upstream), names="web")
        assert await server.exited(STARTED) == 2
        assert "descriptor 3 (web) was passed, but does not listen" in server.stderr


async def test_an_environment_that_names_nobody_changes_nothing(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    env = {"NOTIFY_SOCKET": "", "LISTEN_FDS": "3", "LISTEN_PID": "", "WATCHDOG_USEC": ""}
    server = await relay(config(upstream), env=env)
    assert (await ask(http, server)).said.text == TEXT


# ---- The units

VARIANTS = {
    "one process": ([], ["relay.socket", "relay.service"]),
    "several": (["--instances"], ["relay.socket", "relay@.service"]),
}
CONFIG = """\
listen: [127.0.0.1:8484, "[::1]:8484", localhost:9000, ":9001", unix:/run/relay/relay.sock]
allow_anonymous: true
server: {grace: 60, drain_delay: 15}
tls: {certificate: /etc/relay/cert.pem, key: /etc/relay/key.pem}
providers:
  zai: {preset: zai, api_key: "file:${CREDENTIALS_DIRECTORY}/zai_key"}
  deepseek: {preset: deepseek, api_key: "${DEEPSEEK_API_KEY}"}
"""


@pytest.mark.parametrize(("args", "names"), VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("text", ["", CONFIG], ids=["no configuration", "a configuration"])
async def test_systemd_finds_nothing_wrong_with_them(
    text: str, args: list[str], names: list[str], tool: Tool, tmp_path: Path
) -> None:
    if text:
        (tmp_path / "config.yaml").write_text(text)
    ran = await run("systemd", *args, "--output", str(tmp_path), cwd=tmp_path)
    assert (ran.status, ran.stderr) == (0, "")
    assert [Path(line).name for line in ran.stdout.splitlines()] == names
    printed = await run("systemd", *args, cwd=tmp_path)
    assert printed.stdout == "\n".join((tmp_path / name).read_text() for name in names)
    if args:
        (tmp_path / "relay@1.service").write_text((tmp_path / names[1]).read_text())
    files = [str(tmp_path / name.replace("@", "@1")) for name in names]
    pipe = asyncio.subprocess.PIPE
    verify = await asyncio.create_subprocess_exec(
        tool("systemd-analyze"), "verify", *files, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await verify.communicate()
    assert (verify.returncode, said.decode()) == (0, "")


async def test_the_units_say_what_the_configuration_does(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    text = (await run("systemd", "--systemd", "255", cwd=tmp_path)).stdout
    assert re.findall(r"^ListenStream=(.+)$", text, re.M) == [
        "127.0.0.1:8484",
        "[::1]:8484",
        "127.0.0.1:9000",
        "[::1]:9000",
        "9001",
        "/run/relay/relay.sock",
    ]
    lines = text.splitlines()
    assert "Type=notify-reload" in lines
    assert "LoadCredential=zai_key:/etc/relay/credentials/zai_key" in lines
    assert "TimeoutStopSec=85" in lines
    for hardened in ("DynamicUser=yes", "StateDirectory=relay", "WatchdogSec=30"):
        assert hardened in lines


async def test_an_installed_relay_is_started_as_a_module(tool: Tool, tmp_path: Path) -> None:
    """From a virtual environment of its own; where it is only a file, that is the script."""
    line = re.compile(r"^ExecStart=(.+) -c /etc/relay/config\.yaml$", re.M)
    found = line.search((await run("systemd", cwd=tmp_path)).stdout)
    assert found
    assert found[1] == f"{sys.executable} {PROGRAM}"

    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    folder = next(home.glob("lib/python*/site-packages"))
    (folder / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.copy(PROGRAM, folder)
    units = tmp_path / "units"
    units.mkdir()
    told = await said_by(python, "-P", "-m", "relay", "systemd", "--output", units, cwd=tmp_path)
    assert "relay.service" in told
    found = line.search((units / "relay.service").read_text())
    assert found
    assert found[1] == f"{python} -P -m relay"
    (tmp_path / "relay.py").write_text("raise SystemExit('another one')")
    assert "usage: relay" in await said_by(*found[1].split(), "--help", cwd=tmp_path)
    files = (units / "relay.socket", units / "relay.service")
    assert await said_by(tool("systemd-analyze"), "verify", *files, cwd=tmp_path) == ""


async def said_by(*command: str | Path, cwd: Path) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_an_older_systemd_gets_what_it_knows(tmp_path: Path) -> None:
    lines = (await run("systemd", "--systemd", "252", cwd=tmp_path)).stdout.splitlines()
    assert "Type=notify" in lines
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines


async def test_a_folder_for_units_that_is_none_is_said(tmp_path: Path) -> None:
    ran = await run("systemd", "--output", str(tmp_path / "nowhere"), cwd=tmp_path)
    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr.endswith("relay.socket: No such file or directory\n")


async def test_the_service_may_do_little(tool: Tool, tmp_path: Path) -> None:
    """By systemd's own judgement, from 0 (nothing) to 10 (anything)."""
    await run("systemd", "--output", str(tmp_path), cwd=tmp_path)
    file = str(tmp_path / "relay.service")
    command = [tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", file]
    judged = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await judged.communicate()
    assert judged.returncode == 0, said.decode()
