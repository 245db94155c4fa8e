"""Memory over many requests, with many open streams, and with clients that read nothing."""

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import wire
from measure import Bench, Running, Scenario, cpu_ns, memory_kb, running
from peers import KEY, Peer

import relay

Table = tuple[list[str], list[list[str]]]
STEPS = 10
STREAMS = 1000


def tables(tools: Bench, peer: Peer, requests: int) -> Iterator[Table]:
    with running(peer, tools.provider, tools.directory) as one:
        warm = Scenario("warm", "tiny", False, 8, 0.5)
        tools.measure(one, relay.CHAT, relay.CHAT, warm)
        yield mixed(tools, one, requests)
        yield opened(tools, one)
        yield stalled(tools, one)


def mixed(tools: Bench, one: Running, requests: int) -> Table:
    """Tiny and large, whole and streamed, of every pair of dialects in turns."""
    dialects = list(relay.DIALECTS.values())
    turns = [(c, p) for c in dialects for p in dialects]
    each, rows = max(1, requests // STEPS // len(turns) // 20), []
    rows.append(["0", f"{memory_kb(one.pid) / 1024:.1f}"])
    done = 0
    for _ in range(STEPS):
        for client, provider in turns:
            for share, kind, stream in ((12, "tiny", False), (6, "tiny", True), (2, "agent", True)):
                wanted = Scenario("mixed", kind, stream, 32, 60, each * share, deltas=20)
                done += tools.measure(one, client, provider, wanted)["good"]
        rows.append([f"{done:,}", f"{memory_kb(one.pid) / 1024:.1f}"])
    return ["requests so far", "memory"], rows


def opened(tools: Bench, one: Running) -> Table:
    """Streams that say something once a second."""
    before, most = memory_kb(one.pid), 0
    slow = Scenario("open", "tiny", True, STREAMS, 30, STREAMS, deltas=8, pause_us=1_000_000)
    tools.say(relay.CHAT, slow)
    data = wire.body(relay.CHAT, "tiny", True).replace(b'"bench"', b'"to-openai"')
    file = tools.directory / "request"
    headers = (f"authorization: Bearer {KEY}",)
    file.write_bytes(wire.post(one.port, wire.path(relay.CHAT, True), data, headers))
    command = [tools.load, one.port, file, STREAMS, STREAMS, 30, 3000]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as child:
        while child.poll() is None:
            most = max(most, memory_kb(one.pid))
            time.sleep(0.3)
    after = memory_kb(one.pid)
    figures = [f"{kb / 1024:.1f}" for kb in (before, most, after)]
    row = [f"{STREAMS}", *figures, f"{(most - before) / STREAMS:.1f}"]
    return ["open streams", "before", "at the most", "after", "KB a stream"], [row]


def stalled(tools: Bench, one: Running) -> Table:
    """Clients that ask for long streams and read nothing, and one that reads all the while."""
    before = memory_kb(one.pid)
    tools.say(relay.CHAT, Scenario("long", "tiny", True, 1, deltas=20_000, pause_us=0))
    data = wire.body(relay.CHAT, "tiny", True).replace(b'"bench"', b'"to-openai"')
    headers = (f"authorization: Bearer {KEY}",)
    asked = wire.post(one.port, wire.path(relay.CHAT, True), data, headers)
    silent = [silent_client(one.port, asked) for _ in range(STREAMS)]
    time.sleep(3)
    most, cpu = memory_kb(one.pid), cpu_ns(one.pid)
    time.sleep(2)
    idle = (cpu_ns(one.pid) - cpu) / 2e9
    quick = Scenario("beside", "tiny", True, 8, 2, 8, deltas=200, pause_us=10_000)
    beside = tools.measure(one, relay.CHAT, relay.CHAT, quick)
    most = max(most, memory_kb(one.pid))
    for client in silent:
        client.close()
    time.sleep(3)
    after = memory_kb(one.pid)
    figures = [f"{kb / 1024:.1f}" for kb in (before, most, after)]
    delays = f"{beside['chunk']['p50']:.0f} / {beside['chunk']['p99']:.0f}"
    kb = f"{(most - before) / STREAMS:.0f}"
    head = ["clients that read nothing", "before", "at the most", "after", "KB a client"]
    head += ["cores in use", "delay of a chunk of others, us p50 / p99"]
    return head, [[f"{STREAMS}", *figures, kb, f"{idle:.2f}", delays]]


def silent_client(port: int, asked: bytes) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(asked)
    return client


def start_row(tools: Bench, peer: Peer) -> list[str]:
    """From the command to the first good answer, the least of five after one for the caches."""
    found: list[tuple[float, float, int]] = []
    for _ in range(6):
        began = time.monotonic()
        with running(peer, tools.provider, tools.directory) as one:
            answer(tools, one)
            seconds = time.monotonic() - began
            found.append((seconds, one.cpu() / 1e9, memory_kb(one.pid)))
    seconds, cpu, kb = map(min, zip(*found[1:], strict=True))
    return [re.sub(r"\s+", " ", peer.name), f"{seconds:.2f}", f"{cpu:.2f}", f"{kb / 1024:.1f}"]


def answer(tools: Bench, one: Running) -> Any:
    wanted = Scenario("first", "tiny", False, 1, 5, 1)
    return tools.measure(one, relay.CHAT, relay.CHAT, wanted)
