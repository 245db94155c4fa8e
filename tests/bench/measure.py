"""Processes, their CPU time and memory, and one measurement.

CPU is what the scheduler has counted for every thread of a process and its children, in
nanoseconds: it does not matter what else the machine does, but for what that does to caches
and clock rates.  Hence interleaved rounds, and ratios within a run.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import wire
from peers import KEY, Peer, Place

OPEN = build_opener(ProxyHandler({})).open  # never by way of a proxy of the environment's


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def cpu_ns(pid: int) -> int:
    tasks = (task for one in family(pid) for task in Path(f"/proc/{one}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def memory_kb(pid: int) -> int:
    """Resident, shared pages counted in part."""
    rollups = (Path(f"/proc/{one}/smaps_rollup").read_text() for one in family(pid))
    return sum(int(re.findall(r"^Pss:\s+(\d+)", text, re.M)[0]) for text in rollups)


@dataclass
class Running:
    peer: Peer
    port: int
    pid: int
    started: float = 0.0  # seconds to the first answer

    def cpu(self) -> int:
        return cpu_ns(self.pid) if self.pid else 0


@contextmanager
def process(command: list[str], core: int | None, log: Path, env: dict[str, str]) -> Iterator[int]:
    """A process that ends with the block; on a core of its own where there are two."""
    pinned = core is not None and (os.cpu_count() or 1) > 1
    start = ["taskset", "-c", str(core), *command] if pinned else command
    with log.open("ab") as out:
        child = subprocess.Popen(
            start, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=os.environ | env
        )
        try:
            yield child.pid
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def running(peer: Peer, upstream: int, directory: Path) -> Iterator[Running]:
    if peer.command is None:
        yield Running(peer, upstream, 0)
        return
    place = Place(directory / re.sub(r"\W+", "-", peer.name), free_port(), upstream)
    place.directory.mkdir(exist_ok=True)
    began = time.monotonic()
    command = peer.command(place)
    with process(command, 1, place.directory / "log", peer.env) as pid:
        one = Running(peer, place.port, pid)
        wait_for(place.port)
        one.started = time.monotonic() - began
        yield one


def wait_for(port: int, patience: float = 90) -> None:
    for _ in range(int(patience / 0.01)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"nothing listens on port {port}")


@dataclass(frozen=True)
class Scenario:
    name: str
    kind: str
    stream: bool
    connections: int
    seconds: float = 1.5
    most: int = 10**9
    deltas: int = 0
    pause_us: int = 0


@dataclass
class Bench:
    """The tools: the provider, which runs, and the load generator."""

    directory: Path
    provider: int
    load: str

    def say(self, dialect: Any, scenario: Scenario) -> None:
        """Tell the provider what to answer from now on."""
        answers = wire.write_answers(dialect, self.directory / "answers" / dialect.name)
        query = f"stream={int(scenario.stream)}&deltas={scenario.deltas}"
        query += f"&pause={scenario.pause_us}&dir={answers}"
        with OPEN(f"http://127.0.0.1:{self.provider}/control?{query}") as answer:
            answer.read()

    def measure(
        self, one: Running, client: Any, provider: Any, scenario: Scenario
    ) -> dict[str, Any]:
        """One scenario, once."""
        self.say(provider, scenario)
        data = wire.body(client, scenario.kind, scenario.stream)
        model, where = b"bench", wire.path(client, scenario.stream)
        if one.peer.pairs and "LiteLLM" not in one.peer.name:
            model = b"to-" + provider.name.encode()
        data = data.replace(b'"bench"', b'"' + model + b'"')
        where = where.replace("bench", model.decode())
        headers = (f"authorization: Bearer {KEY}", "anthropic-version: 2023-06-01")
        file = self.directory / "request"
        file.write_bytes(wire.post(one.port, where, data, headers))
        numbers = (scenario.connections, scenario.most, scenario.seconds)
        ramp = scenario.pause_us // max(1, scenario.connections)
        before = one.cpu()
        command = [self.load, one.port, file, *numbers, ramp]
        done = subprocess.run(
            ["taskset", "-c", "0", *map(str, command)], capture_output=True, text=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
        found["cpu"] = (one.cpu() - before) / 1000 / max(1, found["good"])  # us per request
        if found["bad"] or not found["good"]:
            raise SystemExit(f"{one.peer.name}, {scenario.name}: {found['bad']} bad, {found}")
        return found
