"""SIGTERM and SIGINT: no new work, the running work ends well, status 0; the second ends all."""

import asyncio
import contextlib
import os
import pty
import signal
import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession
from fake_upstream import TEXT, Answer, FakeUpstream, chat_stream, chat_whole
from relay_process import SOON, RelayProcess, Start, place, run, served, spawn
from talk import DIALECTS, JSON, Cut, Wire, ask, config, dial, eventually

WORDS = "One two three."
BOTH = pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])


async def held_stream(upstream: FakeUpstream, wire: Wire, client: str = "openai") -> asyncio.Event:
    """A stream that has begun and goes on when the event is set."""
    go = asyncio.Event()
    upstream.script(chat_stream(text=WORDS).but(hold={2: go}))
    await wire.post(client)
    await wire.head()
    return go


async def refuses(http: ClientSession, server: RelayProcess) -> None:
    """Until no new connection is taken."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                async with http.get(f"{server.url}/healthz", headers={"connection": "close"}):
                    await asyncio.sleep(0.01)
            except aiohttp.ClientError:
                return


@BOTH
async def test_an_idle_relay_ends_at_once_with_status_0(
    by: signal.Signals, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream))
    assert await server.stop(by) == 0


@BOTH
@pytest.mark.parametrize("client", DIALECTS)
async def test_a_running_stream_is_finished_first(
    client: str, by: signal.Signals, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    async with dial(server) as wire:
        go = await held_stream(upstream, wire, client)
        server.process.send_signal(by)
        await refuses(http, server)
        assert server.process.returncode is None
        go.set()
        assert (await wire.reply()).said.text == WORDS
        assert await server.exited() == 0
    assert server.lines()[-1].code == "OK"


@pytest.mark.every_way
async def test_a_whole_request_is_finished_first(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    go = asyncio.Event()
    upstream.script(chat_whole(text=WORDS).but(hold={-1: go}))
    server = await relay(config(upstream))
    asked = asyncio.create_task(ask(http, server))
    await upstream.arrived()
    server.process.send_signal(signal.SIGTERM)
    async with aiohttp.ClientSession() as other:
        await refuses(other, server)
    go.set()
    assert (await asked).said.text == WORDS
    assert await server.exited() == 0


@pytest.mark.every_way
async def test_idle_connections_do_not_hold_it_up(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    assert (await ask(http, server)).said.text == TEXT  # `http` keeps its connection
    async with dial(server):  # and this one never says a word
        assert await server.stop() == 0


@pytest.mark.every_way
@BOTH
async def test_a_second_signal_ends_at_once(
    by: signal.Signals, upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    async with dial(server) as wire:
        await held_stream(upstream, wire)
        server.process.send_signal(by)
        await refuses(http, server)
        assert server.process.returncode is None
        await server.stop(by)
        reply = await wire.reply()
    assert not reply.clean
    await asyncio.wait_for(upstream.requests[0].left.wait(), SOON)


@pytest.mark.every_way
@BOTH
async def test_any_number_of_signals_ends_with_status_0(
    by: signal.Signals, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream))
    async with dial(server) as wire:
        await held_stream(upstream, wire)
        with contextlib.suppress(ProcessLookupError):
            while server.process.returncode is None:
                os.kill(server.pid, by)  # send_signal would reap it behind asyncio's back
                await asyncio.sleep(0.001)
        assert await server.exited() == 0


@pytest.mark.every_way
@pytest.mark.parametrize("client", DIALECTS)
async def test_after_the_grace_what_still_runs_is_ended_and_not_cleanly(
    client: str, upstream: FakeUpstream, relay: Start
) -> None:
    server = await relay(config(upstream) | {"server": {"grace": 0.5}})
    async with dial(server) as wire:
        await held_stream(upstream, wire, client)
        server.process.send_signal(signal.SIGTERM)
        reply = await wire.reply()
        assert await server.exited() == 0
    assert reply.final_error["message"]
    assert server.lines()[-1].code == "DR"


async def test_the_error_that_ends_a_stream_continues_it(
    upstream: FakeUpstream, relay: Start
) -> None:
    """In Responses every event has its number, and the answer one id."""
    server = await relay(config(upstream) | {"server": {"grace": 0.5}})
    async with dial(server) as wire:
        await held_stream(upstream, wire, "responses")
        server.process.send_signal(signal.SIGTERM)
        events = [event.json for event in (await wire.reply()).events]
        assert await server.exited() == 0
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.failed")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["id"] == events[0]["response"]["id"]


async def test_a_whole_request_beyond_the_grace_gets_an_answer(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    upstream.script(Answer(delay=3600))
    server = await relay(config(upstream) | {"server": {"grace": 0.5}})
    asked = asyncio.create_task(ask(http, server))
    await upstream.arrived()
    assert await server.stop() == 0
    reply = await asked
    assert reply.status == 503
    assert reply.error["message"]


async def test_the_lines_of_all_requests_are_written_before_the_end(
    upstream: FakeUpstream, relay: Start, http: ClientSession
) -> None:
    server = await relay(config(upstream))
    await asyncio.gather(*(ask(http, server) for _ in range(10)))
    assert await server.stop() == 0
    assert len(server.lines()) == 10


async def test_a_signal_during_a_reload_is_not_lost(upstream: FakeUpstream, relay: Start) -> None:
    server = await relay(config(upstream))
    server.process.send_signal(signal.SIGHUP)
    assert await server.stop() == 0


async def test_readiness_ends_before_service(upstream: FakeUpstream, relay: Start) -> None:
    """A balancer that still holds a connection is told to go elsewhere."""
    server = await relay(config(upstream))
    async with dial(server) as probe, dial(server) as wire:
        await held_stream(upstream, wire)
        await probe.send(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert await probe.head() == 200
        await probe.reply()
        server.process.send_signal(signal.SIGTERM)
        await probe_ends(probe)


async def probe_ends(probe: Wire) -> None:
    """The kept connection is closed, or answers 503 from now on."""
    with contextlib.suppress(Cut):
        async with asyncio.timeout(SOON):
            while True:
                await probe.send(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                if await probe.head() == 503:
                    return
                await probe.reply()
                await asyncio.sleep(0.02)


# ---- The terminal it was started from

OWN_TERMINAL = """import fcntl, os, signal, termios
os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_%s)
"""
# The tests themselves may have been started by nohup.
PLAIN, NOHUP = OWN_TERMINAL % "DFL", OWN_TERMINAL % "IGN"


@pytest.mark.parametrize(
    ("before", "ends"), [(PLAIN, True), (NOHUP, False)], ids=["plainly", "by nohup"]
)
async def test_closing_its_terminal_ends_it_unless_by_nohup(
    before: str, ends: bool, upstream: FakeUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    listen = place(file, config(upstream))
    ours, theirs = pty.openpty()
    process = await spawn("-c", file.name, cwd=tmp_path, before=before, stdin=theirs)
    os.close(theirs)
    server = await served(RelayProcess(f"http://{listen}", file, process))
    try:
        assert "reloaded" in await server.hup()  # while it is open
        os.close(ours)
        if ends:
            assert await server.exited() == 0
            assert "terminal" in server.stderr
        else:
            await server.says(r"(?s)reloaded.*reloaded")
    finally:
        await server.end()


# ---- Sockets of the file system


async def test_a_second_relay_at_a_socket_is_refused_and_the_first_serves_on(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    file, path = tmp_path / "config.yaml", tmp_path / "s"
    place(file, config(upstream) | {"listen": f"unix:{path}"})
    first = await served(RelayProcess("", file, await spawn("-c", file.name, cwd=tmp_path)))
    try:
        ran = await run("-c", file.name, cwd=tmp_path)
        assert (ran.status, "address already in use" in ran.stderr) == (2, True)
        await alive(path)
        path.unlink()  # by somebody who then starts another one there
        second = await served(RelayProcess("", file, await spawn("-c", file.name, cwd=tmp_path)))
        assert await first.stop() == 0
        await alive(path)
        assert await second.stop() == 0
        assert not path.exists()
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()  # as a process does that was killed
        third = await served(RelayProcess("", file, await spawn("-c", file.name, cwd=tmp_path)))
        await alive(path)
        assert await third.stop() == 0
    finally:
        await first.end()


async def alive(path: Path) -> None:
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get("http://localhost/healthz") as response,
    ):
        assert response.status == 200


# ---- Open files


async def limited(upstream: FakeUpstream, folder: Path, soft: int, hard: int) -> RelayProcess:
    file = folder / "config.yaml"
    listen = place(file, config(upstream))
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"
    process = await spawn("-c", file.name, cwd=folder, before=limit)
    return await served(RelayProcess(f"http://{listen}", file, process))


@pytest.mark.parametrize("hard", [1024, 200])
async def test_files_may_be_opened_up_to_the_hard_limit_and_beyond_it_is_said(
    hard: int, upstream: FakeUpstream, tmp_path: Path
) -> None:
    go = asyncio.Event()
    upstream.script(chat_stream(text=WORDS).but(hold={2: go}))
    server = await limited(upstream, tmp_path, 200, hard)
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as http:
            asked = [asyncio.create_task(ask(http, server, stream=True)) for _ in range(150)]

            async def all_are_answered_or_held() -> bool:
                return sum(each.done() for each in asked) + len(upstream.requests) >= 150

            await eventually(all_are_answered_or_held)
            go.set()
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        replies = [each for each in outcomes if not isinstance(each, BaseException)]
        good = [reply for reply in replies if reply.status == 200]
        assert {reply.said.text for reply in good} == {WORDS}
        statuses = [reply.status for reply in replies if reply not in good]
        lost = len(outcomes) - len(replies)  # closed at once: not even a 503 had room
        assert (len(good), statuses, lost) == (150, [], 0) if hard > 300 else 60 <= len(good) <= 75
        assert set(statuses) <= {503}
        assert len(statuses) > 10 or hard > 300
        said = [each for each in server.log() if "limit of open files" in each.get("message", "")]
        assert len(said) == (hard < 300)
        assert len(server.stderr.splitlines()) == len(server.log())  # no traceback
        await eventually(lambda: answers(server))  # once the files of the others are closed
        assert (await marks_of(server)) == []
        assert await server.stop() == 0
    finally:
        await server.end()


async def answers(server: RelayProcess) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"{server.url}/admin/health") as response:
        return response.status == 200


async def marks_of(server: RelayProcess) -> list[JSON]:
    async with aiohttp.ClientSession() as http, http.get(f"{server.url}/admin/health") as response:
        marks: list[JSON] = (await response.json())["marks"]
        return marks
