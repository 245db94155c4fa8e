"""The log's way out: in order, never in the way, and honest about what was lost."""

import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import pytest
from relay_process import SOON

import relay


class Pipe:
    """A pipe that is read when the test says so."""

    def __init__(self, out: int, stream: TextIO) -> None:
        self.out = out
        self.stream = stream

    def read(self, size: int = 1 << 20) -> bytes:
        return os.read(self.out, size)

    def read_until(self, mark: bytes) -> bytes:
        seen = b""
        while mark not in seen:
            seen += self.read()
        return seen


@contextmanager
def pipe() -> Iterator[Pipe]:
    out, into = os.pipe()
    with os.fdopen(into, "w") as stream:
        try:
            yield Pipe(out, stream)
        finally:
            os.close(out)


def log_to(sink: relay.Sink, format: str = "json") -> relay.Log:
    return relay.Log(relay.LogConfig(format=format), None, sink)


def messages(data: bytes) -> list[str]:
    return [json.loads(line)["message"] for line in data.splitlines()]


def test_lines_are_written_in_their_order() -> None:
    with pipe() as reader:
        log = log_to(relay.Sink(reader.stream))
        for number in range(500):
            log.event("info", f"line {number}")
        assert log.sink.flush(SOON)
        assert messages(reader.read()) == [f"line {n}" for n in range(500)]


def test_lines_that_come_while_the_thread_rests_are_written_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first at once, and who waits for all of them does not wait for the rest."""
    monkeypatch.setattr(relay.Sink, "_REST", 3600.0)
    written = list[int]()

    def write(descriptor: int, data: bytes) -> int:
        written.append(data.count(b"\n"))
        return os_write(descriptor, data)

    os_write = os.write
    monkeypatch.setattr(relay.os, "write", write)
    with pipe() as reader:
        log = log_to(relay.Sink(reader.stream))
        log.event("info", "the first")
        assert messages(reader.read()) == ["the first"]
        for number in range(100):
            log.event("info", f"line {number}")
        assert log.sink.flush(SOON)
        assert messages(reader.read()) == [f"line {n}" for n in range(100)]
    assert written == [1, 100]


def test_a_time_is_said_to_the_millisecond() -> None:
    moments = list[str]()
    log = log_to(relay.Sink(None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log.sink, "put", lambda line, lost: moments.append(json.loads(line)["time"]))
        for now in (0.0, 1_798_761_599.9996, 1_798_761_599.0, 1_798_761_600.25):
            log.request({"time": now, "level": "info"})
    assert moments == [
        "1970-01-01T00:00:00.000+00:00",
        "2026-12-31T23:59:59.999+00:00",
        "2026-12-31T23:59:59.000+00:00",
        "2027-01-01T00:00:00.250+00:00",
    ]


def read_all(reader: Pipe, log: relay.Log) -> list[dict[str, Any]]:
    """Every record that is on its way, and one more that says that it is the last."""
    drained, end = bytearray(), threading.Event()

    def drain() -> None:
        while not (end.is_set() and drained.endswith(b'"last"}\n')):
            drained.extend(reader.read())

    thread = threading.Thread(target=drain)
    thread.start()
    assert log.sink.flush(SOON)
    end.set()
    log.event("info", "last")
    thread.join(SOON)
    return [json.loads(line) for line in drained.splitlines()]


def test_a_reader_that_sleeps_holds_nobody_up_and_the_lost_lines_are_counted() -> None:
    with pipe() as reader:
        log = log_to(relay.Sink(reader.stream, most=300_000))
        for number in range(5000):  # far more than the pipe and the queue hold
            log.event("info", f"line {number}", text="x" * 100)
        assert not log.sink.flush(0.05)
        *records, last = read_all(reader, log)
    told = [record["lines"] for record in records if "lines" in record]
    kept = [int(r["message"].split()[1]) for r in records if "lines" not in r]
    assert kept == sorted(kept)
    assert 0 < sum(told) == 5000 - len(kept) == log.sink.dropped
    assert last["message"] == "last"


def test_the_count_is_told_once() -> None:
    with pipe() as reader:
        log = log_to(relay.Sink(reader.stream, most=100_000))
        for number in range(5000):
            log.event("info", f"line {number}")
        read_all(reader, log)
        log.event("info", "one more")
        assert messages(reader.read_until(b"one more")) == ["one more"]


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_count_has_the_form_of_the_log(format: str) -> None:
    with pipe() as reader:
        log = log_to(relay.Sink(reader.stream, most=120), format)
        log.event("info", "x" * 200)
        log.event("info", "y")
        log.sink.flush(SOON)
        log = log_to(relay.Sink(reader.stream), format)
        log.sink.put(b"last", lambda count: b"")
        said = reader.read_until(b"last").decode()
    assert ("lines=1" in said) is (format == "text") or '"lines":1' in said


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    """Who shares it may have made it so; nothing is lost by that."""
    with pipe() as reader:
        os.set_blocking(reader.stream.fileno(), False)
        log = log_to(relay.Sink(reader.stream))
        for number in range(3000):
            log.event("info", f"line {number}", text="x" * 100)
        seen = reader.read_until(b"line 2999")
        assert log.sink.flush(SOON)
    assert seen.count(b"\n") == 3000
    assert log.sink.dropped == 0


def test_a_reader_that_is_gone_costs_lines_but_not_the_service() -> None:
    out, into = os.pipe()
    os.close(out)
    with os.fdopen(into, "w") as stream:
        log = log_to(relay.Sink(stream))
        log.event("info", "into the void")
        assert log.sink.flush(SOON)
        assert log.sink.dropped == 1


def test_without_a_stream_nothing_is_written_anywhere() -> None:
    """Where stderr was closed, its number may be a client's connection by now."""
    before = threading.active_count()
    sink = relay.Sink(None)
    sink.put(b"line", lambda count: b"")
    assert sink.flush(0)
    assert threading.active_count() == before


def test_a_terminal_gets_text_and_all_else_json() -> None:
    with pipe() as reader:
        assert not log_to(relay.Sink(reader.stream), "json").text
        sink = relay.Sink(reader.stream)
        assert not relay.Log(relay.LogConfig(), None, sink).text
        sink.terminal = True
        assert relay.Log(relay.LogConfig(), None, sink).text


def test_text_that_is_no_text_is_written_all_the_same() -> None:
    with pipe() as reader:
        log_to(relay.Sink(reader.stream), "text").event("info", "half a pair \ud800")
        assert reader.read_until(b"\n").endswith(b"half a pair ?\n")
    assert isinstance(reader.stream, io.TextIOWrapper)
