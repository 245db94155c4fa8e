"""Memory and the store in step, when something comes between."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

import relay

CALLER = relay.Caller("alice", limits=relay.LimitConfig(concurrent=1))


class Heard(relay.Log):
    """What was said, in one text."""

    def __init__(self) -> None:
        self.words = ""

    def event(self, level: str, message: str, **fields: object) -> None:
        self.words += f"{level}: {message} {fields}\n"


class SharedStore(relay.SQLiteStore):
    """A store that admits everybody, and notes whom it was asked about."""

    shares_limits = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.requests = 0

    def sync(self, batch: relay.Batch) -> relay.News:
        hours = (totals for row, totals in batch.usage.items() if row.span == relay.HOUR)
        self.requests += sum(totals.requests for totals in hours)
        self.ended += [end.id for end in batch.ended]
        self.asked += [permit.id for permit in batch.asked]
        return relay.News(admissions=[relay.Admission(None) for _ in batch.asked])


def keeper_of(store: relay.Store, limits: relay.Limits, heard: Heard | None = None) -> relay.Keeper:
    log, notebook = heard or Heard(), relay.Notebook(relay.Health())
    return relay.Keeper(store, relay.Ledger(), limits, notebook, list, lambda: log)


async def test_who_left_before_being_asked_about_is_not_asked_about() -> None:
    """What has ended is told first: a permit that came behind its end would stay out."""
    store, limits = SharedStore(), relay.Limits()
    keeper = keeper_of(store, limits)
    permit = limits.admit("1", CALLER, relay.Spend(), 0.0, 0.0)
    waiting = asyncio.create_task(keeper.admission(permit))
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    limits.settle(permit, relay.Spend(), 0.0)
    await keeper.sync()
    assert (store.ended, store.asked) == (["1"], [])


def test_a_store_that_is_down_for_long_costs_no_memory_without_end() -> None:
    limits = relay.Limits()
    for number in range(30_000):
        permit = limits.admit(f"{number}", CALLER, relay.Spend(), number, number)
        limits.settle(permit, relay.Spend(), number)
    _, ended = limits.collect()
    assert len(ended) == 10_000
    assert ended[-1].id == "29999"
    sticky = relay.Stickiness()
    for number in range(30_000):
        sticky.bind(f"{number}", "first/regular/1", number)
    assert len(sticky.collect()) == 10_000


class Garbled(SharedStore):
    """It answers, but not in words that this version knows."""

    def sync(self, batch: relay.Batch) -> relay.News:
        raise ValueError("not enough values to unpack")


async def test_a_store_that_cannot_be_understood_is_one_that_is_down() -> None:
    """Who waits for its word is let in by what is known here; nobody waits for ever."""
    limits = relay.Limits()
    keeper = keeper_of(Garbled(), limits)
    permit = limits.admit("1", CALLER, relay.Spend(), 0.0, 0.0)
    waiting = asyncio.create_task(keeper.admission(permit))
    await asyncio.sleep(0)
    await keeper.sync()
    assert await waiting is None
    assert keeper.trouble


class Capricious(SharedStore):
    """It stores, and then fails in ways that nobody thought of, once each."""

    def __init__(self, *faults: Exception) -> None:
        super().__init__()
        self.faults = list(faults)

    def sync(self, batch: relay.Batch) -> relay.News:
        if self.faults:
            raise self.faults.pop(0)
        return super().sync(batch)


async def test_nothing_ends_the_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised is said, with its place; nobody waits for ever; what was used is kept."""
    monkeypatch.setattr(relay.Keeper, "_EVERY", 0.01)
    store, limits, heard = Capricious(), relay.Limits(), Heard()
    keeper = keeper_of(store, limits, heard)
    await keeper.start()
    store.faults = [ZeroDivisionError("division by zero"), RuntimeError(), MemoryError("no more")]
    for number in range(4):
        permit = limits.admit(f"{number}", CALLER, relay.Spend(), 0.0, 0.0)
        judged = await keeper.admission(permit)
        assert (judged is None) == (number < 1)
        limits.settle(permit, relay.Spend(7), 0.0)
        while store.faults or keeper.trouble:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.01)
    await keeper.stop()
    assert store.ended == ["0", "1", "2", "3"]
    assert "relay goes on alone: division by zero" in heard.words
    assert "'where': [" in heard.words
    assert "info: the state store is back" in heard.words


class Picky(SharedStore):
    """It is there, and stores whatever has no requests in it."""

    def sync(self, batch: relay.Batch) -> relay.News:
        if batch.usage:
            raise relay.Unstorable("too large an integer")
        return relay.News()


async def test_what_can_never_be_stored_is_given_up_and_said() -> None:
    """Else one batch would keep all that come after it out of the store, for ever."""
    ledger, heard = relay.Ledger(), Heard()
    notebook = relay.Notebook(relay.Health())
    keeper = relay.Keeper(Picky(), ledger, relay.Limits(), notebook, list, lambda: heard)
    totals = ledger.totals(("alice", "p", "m"), time.time(), None)
    totals.requests, totals.tokens_in = 3, 70
    await keeper.sync()
    assert (
        "error: what was used cannot be stored and is given up {'requests': 3, 'tokens': 70, "
        in heard.words
    )
    await keeper.sync()
    assert not keeper.trouble
    assert "store is down" not in heard.words


async def test_what_is_used_while_the_store_is_away_for_long_is_stored_in_the_end() -> None:
    ledger, heard, store = relay.Ledger(), Heard(), Capricious()
    notebook = relay.Notebook(relay.Health())
    keeper = relay.Keeper(store, ledger, relay.Limits(), notebook, list, lambda: heard)
    ledger.totals(("alice", "p", "m"), time.time(), None).requests += 3
    store.faults = [OSError("away") for _ in range(30)]
    while store.faults:
        await keeper.sync()
    await keeper.sync()
    assert not keeper.trouble
    assert "given up" not in heard.words
    assert store.requests == 3


@pytest.mark.parametrize("how", ["full", "locked"])
async def test_a_disk_that_is_full_or_a_lock_costs_no_usage(how: str, tmp_path: Path) -> None:
    """An empty batch is read without either: that the store takes one is no reason to give up."""
    limits, ledger, heard = relay.Limits(), relay.Ledger(), Heard()
    store = relay.SQLiteStore(tmp_path / "state.db")
    notebook = relay.Notebook(relay.Health())
    keeper = relay.Keeper(store, ledger, limits, notebook, list, lambda: heard)
    await keeper.call(store.open)
    await keeper.call(store._data.execute, "PRAGMA busy_timeout = 1")
    await keeper.call(store._data.execute, "PRAGMA max_page_count = 1")  # those that there are
    other = sqlite3.connect(store.path or "", isolation_level=None)
    if how == "locked":
        other.execute("BEGIN IMMEDIATE")
    permit = limits.admit("1", CALLER, relay.Spend(), 0.0, 0.0)
    limits.settle(permit, relay.Spend(7, 8), time.time())
    for number in range(500):
        ledger.totals(("alice", "p", f"model-{number}"), time.time(), None).requests += 1
    for _ in range(20):
        await keeper.sync()
        assert keeper.trouble
    assert "given up" not in heard.words
    assert heard.words.count("the state store is down") == 1
    if how == "locked":
        other.execute("ROLLBACK")
    other.close()
    await keeper.call(store._data.execute, "PRAGMA max_page_count = 1000")
    await keeper.sync()
    assert not keeper.trouble
    rows = await keeper.call(store.usage, relay.DAY, 0)
    assert sum(totals.requests for totals in rows.values()) == 500
    await keeper.call(store.close)


async def test_a_store_that_forgets_a_permit_keeps_nobody_waiting() -> None:
    class Forgetful(SharedStore):
        def sync(self, batch: relay.Batch) -> relay.News:
            return relay.News()

    limits = relay.Limits()
    keeper = keeper_of(Forgetful(), limits)
    permit = limits.admit("1", CALLER, relay.Spend(), 0.0, 0.0)
    waiting = asyncio.create_task(keeper.admission(permit))
    await asyncio.sleep(0)
    await keeper.sync()
    assert await waiting is None
    assert keeper.trouble == "it judged 0 of 1 permits"


async def test_permits_are_renewed_though_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else they would end under those who hold them, and others would be let in."""
    renewed = list[tuple[str, ...]]()

    class Noting(SharedStore):
        def sync(self, batch: relay.Batch) -> relay.News:
            renewed.append(tuple(permit.id for permit in batch.running))
            return super().sync(batch)

    monkeypatch.setattr(relay.Keeper, "_RENEWED", 0.0)
    limits = relay.Limits()
    keeper = keeper_of(Noting(), limits)
    limits.admit("1", CALLER, relay.Spend(), 0.0, 0.0)
    await keeper.sync()
    long_ago = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: long_ago)
    await keeper.sync()
    assert renewed == [("1",), ("1",)]
