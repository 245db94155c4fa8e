"""What a burst has taken goes back to the system, and what a start need not do is not done."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

import relay

ROOT = Path(__file__).parents[2]
MB = 1 << 20


@pytest.fixture
def heap() -> relay.Heap:
    made = relay.Heap()
    if made._libc is None or not relay.resident():
        pytest.skip("not glibc on Linux")
    made.give_back(0)
    return made


def burst(megabytes: int) -> list[bytes]:
    """Blocks of a request's size, and what is left of them: one in a thousand, here and there."""
    blocks = [bytes([number % 251 + 1]) * 8192 for number in range(megabytes * 128)]
    return blocks[::1000]


def test_a_burst_is_given_back(heap: relay.Heap) -> None:
    before = relay.resident()
    kept = burst(200)
    assert relay.resident() > before + 100 * MB  # what the test is about: freed, and still there
    heap.give_back(0)
    assert relay.resident() < before + 32 * MB
    assert kept[1][:2] == b"\xf8\xf8"


def test_what_may_be_needed_at_once_stays(heap: relay.Heap) -> None:
    kept = burst(200)
    full = relay.resident()
    heap.give_back(running=1000)
    assert relay.resident() > full - 32 * MB
    assert kept


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.ctypes, "CDLL", lambda name: object())
    heap = relay.Heap()
    heap.give_back(0)
    assert heap._libc is None


def test_settling_leaves_nothing_to_look_through(heap: relay.Heap) -> None:
    thresholds = gc.get_threshold()
    try:
        heap.settle()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] == 50_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def loaded(code: str) -> set[str]:
    """The modules there are in a Python that has run this."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in ran.stdout.split()}


def test_relay_imports_little_that_aiohttp_does_not() -> None:
    """Each more is a millisecond of every start: what it is for stands here."""
    needed = loaded("import asyncio, aiohttp.web, orjson, yaml")
    more = {name for name in loaded("import relay") - needed if not name.startswith("_")}
    assert more <= {
        *("relay", "gc", "ctypes"),  # the heap
        *("hmac", "secrets"),  # keys
        *("sqlite3",),  # the state
        *("zoneinfo", "sysconfig"),  # budgets by the day
        *("difflib",),  # "did you mean"
        *("shlex",),  # commands to copy; aiohttp needs it, too, before Python 3.13
    }
