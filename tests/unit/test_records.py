"""The recorder's parts: a ring that stays within its size, tapes within theirs."""

import gzip
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from relay_process import SOON

import relay

SIZE = 1000


@pytest.fixture
def ring(tmp_path: Path) -> relay.Ring:
    ring = relay.Ring(tmp_path / "deep" / "records", 10 * SIZE)
    ring.open()
    return ring


def file(id: int, size: int = SIZE) -> tuple[str, bytes]:
    """A file's name, and a record of this size."""
    record = relay.Record({"id": f"{id:x}", "time": float(id)}, {})
    first, *rest = relay.record_lines(record, relay.Secrets(()))
    assert not first.startswith(b'{"kind":"end"')
    filler = b'{"kind":"note"'
    line = filler + b" " * (size - len(first) - len(b"".join(rest)) - len(filler) - 2) + b"}\n"
    return relay.record_name(float(id), f"{id:x}"), first + line + b"".join(rest)


def size_of(ring: relay.Ring) -> int:
    return sum(path.stat().st_size for path in ring.directory.iterdir())


def ids(ring: relay.Ring) -> list[int]:
    return [int(name.partition("-")[2].removesuffix(".jsonl"), 16) for name in ring.names()]


# ---- The ring


def test_the_ring_keeps_the_newest_within_its_size(ring: relay.Ring) -> None:
    for id in range(50):
        ring.put(*file(id))
        assert size_of(ring) <= ring.keep
    assert ids(ring) == list(range(49, 49 - len(ids(ring)), -1))
    assert len(ids(ring)) >= 7
    assert ring.read("31").summary == {"id": "31", "time": 49.0}


def test_a_ring_that_was_left_goes_on(ring: relay.Ring) -> None:
    for id in range(20):
        again = relay.Ring(ring.directory, ring.keep)
        again.put(*file(id))
        assert size_of(ring) <= ring.keep
    assert ids(ring)[0] == 19


@pytest.mark.parametrize("ledger", [b"", b"0\n", b"999999999999\n", b"nonsense", b"-5\n"])
def test_what_is_written_of_the_size_is_not_believed_at_the_start(
    ring: relay.Ring, ledger: bytes
) -> None:
    for id in range(9):
        ring.put(*file(id))
    (ring.directory / ".ring").write_bytes(ledger)
    again = relay.Ring(ring.directory, ring.keep)
    for id in range(9, 12):
        again.put(*file(id))
        assert size_of(ring) <= ring.keep
    assert ids(ring)[:3] == [11, 10, 9]
    assert len(ids(ring)) >= 7


def test_many_who_write_stay_within_the_size_together(ring: relay.Ring) -> None:
    rings = [relay.Ring(ring.directory, ring.keep) for _ in range(4)]
    seen = list[int]()

    def write(number: int) -> None:
        for id in range(number, 100, len(rings)):
            rings[number].put(*file(id))
            seen.append(len(list(ring.names())))

    with ThreadPoolExecutor(len(rings)) as pool:
        list(pool.map(write, range(len(rings))))
    assert len(seen) == 100
    assert max(seen) <= 10
    assert size_of(ring) <= ring.keep
    assert all(summary for _, summary, _ in ring.summaries())


def test_a_smaller_ring_lets_go(ring: relay.Ring) -> None:
    for id in range(9):
        ring.put(*file(id))
    smaller = relay.Ring(ring.directory, 4 * SIZE)
    smaller.put(*file(9))
    assert size_of(ring) <= smaller.keep


def test_what_is_longer_than_the_ring_is_refused(ring: relay.Ring) -> None:
    ring.put(*file(1))
    with pytest.raises(OSError, match="longer than"):
        ring.put(*file(2, 11 * SIZE))
    assert ids(ring) == [1]


def test_nobody_else_may_look(ring: relay.Ring) -> None:
    before = os.umask(0)
    try:
        ring.put(*file(1))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in ring.directory.iterdir()}
    assert (modes, ring.directory.stat().st_mode & 0o777) == ({0o600}, 0o700)
    ring.directory.chmod(0o755)
    with pytest.raises(relay.ConfigError, match="open to others"):
        ring.open()


def test_a_directory_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(relay.ConfigError, match=r"record\.directory"):
        relay.Ring(tmp_path / "file" / "records", SIZE).open()


def test_what_was_half_written_goes_with_the_next(ring: relay.Ring) -> None:
    torn = ring.directory / ".x.jsonl.part"
    torn.write_bytes(b"half")
    ring.put(*file(1))
    assert not torn.exists()


def test_what_is_no_record_is_left_alone_and_skipped(ring: relay.Ring) -> None:
    ring.put(*file(1))
    name, data = file(2)
    (ring.directory / name).write_bytes(data[:-5])
    (ring.directory / "notes.txt").write_text("mine")
    os.mkfifo(ring.directory / file(3)[0])
    (ring.directory / file(4)[0]).symlink_to(ring.directory / file(1)[0])
    (ring.directory / file(5)[0]).write_bytes(b"")
    wrong = [why for _, summary, why in ring.summaries() if summary is None]
    assert len(wrong) == 4
    assert "it is not a file" in wrong
    assert "it is not whole" in wrong
    for id in "2345":
        with pytest.raises(relay.RelayError, match="cannot be read"):
            ring.read(id)
    assert (ring.directory / "notes.txt").read_text() == "mine"


def test_an_id_may_be_cut_short_if_it_means_one(ring: relay.Ring) -> None:
    for id in (0xABC1, 0xABD2, 0x1234):
        ring.put(*file(id))
    assert ring.read("abc").id == "abc1"
    assert ring.read("last").id == "abd2"
    for said, why in {"ab": "several", "f": "no record begins", "": "no record"}.items():
        with pytest.raises(relay.RelayError, match=why):
            ring.read(said)


# ---- Tapes


def taped(recorder: relay.Recorder, **headers: str) -> relay.Tape | None:
    request = make_mocked_request("POST", "/v1/messages", headers=headers)
    return recorder.tape(relay.Secrets(()), request, time.monotonic(), time.time())


def kept(recorder: relay.Recorder, tape: relay.Tape, id: str = "a") -> relay.Record:
    tape.summary = {"id": id}
    recorder.take(tape)
    assert recorder.flush(SOON)
    return recorder.ring.read(id)


def test_a_tape_has_an_end_and_says_so(ring: relay.Ring) -> None:
    recorder = relay.Recorder(ring)
    tape = taped(recorder)
    assert tape
    for _ in range(5):
        tape.data("request", b"x" * 400)
    record = kept(recorder, tape)
    assert tape.size <= recorder.most_of_one == ring.keep // 8
    assert 0 < len(record.request.body) < 2000
    assert len(record.request.body) + record.cut["request"] == 2000


def test_behind_a_cut_nothing_is_kept(ring: relay.Ring) -> None:
    recorder = relay.Recorder(ring)
    tape = taped(recorder)
    assert tape
    tape.data("request", b"x" * 5000)
    tape.data("request", b"y")
    record = kept(recorder, tape)
    assert set(record.request.body) == {ord("x")}
    with pytest.raises(relay.RelayError, match=r"is not whole: its request lacks \d+ bytes"):
        relay.as_curl(record, None, "")


@pytest.mark.parametrize(
    ("coding", "data", "body", "cut"),
    [
        (
            "gzip",
            gzip.compress(b"said sk-secret-12345 and more", mtime=0),
            b"said [secret] and more",
            0,
        ),
        ("", b"said sk-secret-12345", b"said [secret]", 0),
        ("br", b"\x0b\x02\x80sk-secret-12345", b"", 18),
        ("gzip", b"no gzip at all", b"", 14),
    ],
)
def test_what_is_compressed_is_kept_plain_or_not_at_all(
    ring: relay.Ring, coding: str, data: bytes, body: bytes, cut: int
) -> None:
    recorder = relay.Recorder(ring)
    tape = taped(recorder, Authorization="Bearer sk-secret-12345")
    assert tape
    tape.received(data, coding)
    record = kept(recorder, tape)
    assert (record.request.body, record.cut) == (body, {"request": cut} if cut else {})
    assert record.request.headers == [("Authorization", "Bearer [secret]")]


class Stuck(relay.Ring):
    """A disk that answers when the test says so."""

    def __init__(self, ring: relay.Ring) -> None:
        super().__init__(ring.directory, ring.keep)
        self.free = threading.Event()

    def put(self, name: str, data: bytes) -> None:
        assert self.free.wait(SOON)
        super().put(name, data)


def test_a_disk_that_is_stuck_costs_records_and_not_memory(ring: relay.Ring) -> None:
    stuck = Stuck(ring)
    recorder = relay.Recorder(stuck, most=4 * SIZE)
    lost = 0
    for id in range(100):
        tape = taped(recorder)
        lost += tape is None
        if tape:
            tape.data("request", b"x" * 500)
            tape.summary = {"id": f"{id:x}"}
            recorder.take(tape)
        assert recorder.room >= 0
    assert 80 < lost == recorder.lost
    assert not recorder.flush(0.01)
    assert recorder.news(1000.0) == (lost, "what was recorded before is not written yet")
    assert taped(recorder) is None
    assert recorder.news(1001.0) is None  # it was said a moment ago
    assert recorder.news(1100.0) == (1, "what was recorded before is not written yet")
    stuck.free.set()
    assert recorder.flush(SOON)
    assert recorder.room == 4 * SIZE
    assert taped(recorder) is not None


def test_a_disk_that_is_full_is_told(ring: relay.Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str, data: bytes) -> Any:
        raise OSError(28, "No space left on device")

    recorder = relay.Recorder(ring)
    monkeypatch.setattr(ring, "put", full)
    tape = taped(recorder)
    assert tape
    tape.summary = {"id": "1"}
    recorder.take(tape)
    assert recorder.flush(SOON)
    assert recorder.news(0.0) == (1, "No space left on device")


def test_a_recorder_that_is_closed_writes_what_waits(ring: relay.Ring) -> None:
    stuck = Stuck(ring)
    recorder = relay.Recorder(stuck)
    for id in range(3):
        tape = taped(recorder)
        assert tape
        tape.summary = {"id": f"{id:x}"}
        recorder.take(tape)
    recorder.close()
    stuck.free.set()
    assert recorder.flush(SOON)
    assert len(ring.names()) == 3


# ---- What is made of records


def exchange(id: str, body: Any, answer: Any, **summary: Any) -> relay.Record:
    head = {"method": "POST", "path": "/v1/chat/completions", "headers": [["x-a", id]]}
    request = relay.Leg(0.0, head, [(0.0, json.dumps(body).encode())])
    response = relay.Leg(1.0, {"status": 200}, [(1.0, json.dumps(answer).encode())])
    known = {"id": id, "code": "OK", "status": 200} | summary
    return relay.Record(known, {"request": request, "response": response})


def completion(text: str) -> Any:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice]}


def test_two_records_are_compared_part_by_part() -> None:
    turns = [{"role": "user", "content": "a" * 100 + "one"}, {"role": "user", "content": "x"}]
    one = {"model": "m", "messages": turns, "temperature": 1}
    other = {"model": "m", "messages": [{"role": "user", "content": "a" * 100 + "two"}], "top_p": 1}
    first, second = completion("Hello there."), completion("Hello you.")
    a1 = exchange("a1", one, first, tokens_in=5, tokens_out=6, cache_read=2, ms=1500)
    b2 = exchange("b2", other, second, tokens_in=7, tokens_out=8, ms=20)
    assert relay.request_differences(a1, b2) == [
        "header x-a: 'a1' | 'b2'",
        "body.messages[0].content: alike for 100 characters, then 'one' | 'two'",
        "body.messages[1].role: 'user' | -",
        "body.messages[1].content: 'x' | -",
        "body.temperature: '1' | -",
        "body.top_p: - | '1'",
    ]
    said = relay.answer_table(a1, b2)
    rows = {line.split()[0]: re_spaced(line) for line in said if line[0] != " "}
    assert rows["usage"] == "usage|in 5 (2 cached) out 6|in 7 out 8"
    assert rows["total"] == "total|1.50 s|0.02 s"
    assert rows["text"] == "text|12 characters|10 characters"
    assert said[-1] == "text: 'Hello there.' | 'Hello you.'"


def re_spaced(line: str) -> str:
    return "|".join(part.strip() for part in line.split("  ") if part.strip())


def test_what_is_the_same_is_said_to_be() -> None:
    record = exchange("a", {"model": "m"}, completion("Hi."))
    assert relay.request_differences(record, record) == ["body: the same 14 bytes"]
    said = relay.answer_table(record, record)
    assert [line.split()[-2:] for line in said if line.startswith(("text", "calls"))] == [
        ["the", "same"],
        ["the", "same"],
    ]


def test_a_shell_gets_a_variable_in_the_credentials_place() -> None:
    head = {"method": "POST", "url": "https://host/v1?key=[secret]&a=$b", "target": "my-glm/x"}
    headers = [
        ["Authorization", "Bearer [secret]"],
        ["x-a", 'it\'s "$HOME"'],
        ["Cookie", "[secret]"],
    ]
    leg = relay.Leg(0.0, head | {"headers": headers}, [(0.0, b"it's $me\n")])
    record = relay.Record({"id": "a"}, {"attempt 1": leg})
    said = relay.as_curl(record, 1, "")
    assert said == (
        "printf %s 'it'\"'\"'s $me\n' | curl -sS --no-buffer \\\n  -X POST \\\n"
        '  "https://host/v1?key=${MY_GLM_API_KEY}&a=\\$b" \\\n'
        '  -H "Authorization: Bearer ${MY_GLM_API_KEY}" \\\n'
        "  -H 'x-a: it'\"'\"'s \"$HOME\"' \\\n  --data-binary @-"
    )
    with pytest.raises(relay.RelayError, match="has no attempt 2; of attempts it has 1"):
        relay.as_curl(record, 2, "")
