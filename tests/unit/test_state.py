"""The store in a file, as the one thread sees it that uses it."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import relay

NOON = 1_800_000_000.0
TODAY = ("2027-01-15",)
SEVEN = relay.Spend(7)


def batch(tokens: int = 7) -> relay.Batch:
    row = relay.Row(relay.HOUR, int(NOON), "alice", "p", "m")
    spent = {("alice", TODAY[0]): relay.Spend(tokens)}
    usage = {row: relay.Totals(requests=1, tokens_in=tokens)}
    return relay.Batch(usage=usage, spent=spent, labels=TODAY)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """It is noon, until a test says otherwise."""
    moments = [NOON]
    monkeypatch.setattr(time, "time", lambda: moments[-1])
    return moments.append


@pytest.fixture
def file(tmp_path: Path) -> Iterator[relay.SQLiteStore]:
    file = relay.SQLiteStore(tmp_path / "state.db")
    file.open()
    yield file
    file.close()


def other(file: relay.SQLiteStore, *statement: object) -> None:
    """Another process's doing."""
    data = sqlite3.connect(file.path)
    try:
        with data:
            data.execute(*statement)  # type: ignore[arg-type]
    finally:
        data.close()


def requests(file: relay.SQLiteStore) -> int:
    return sum(totals.requests for totals in file.usage(relay.HOUR, 0).values())


NOTE = "INSERT INTO notes (kind, name, line, until, by) VALUES ('mark', ?, ?, 1e12, 'another')"


def test_what_cannot_be_read_back_is_not_stored_again_and_again(file: relay.SQLiteStore) -> None:
    """All of it or nothing: the batch comes once more, and must not have been there before."""
    other(file, "DROP TABLE notes")
    for _ in range(3):
        with pytest.raises(relay.StateTrouble, match="no such table: notes"):
            file.sync(batch())
    assert requests(file) == 0
    other(
        file,
        "CREATE TABLE notes (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind, name, line, until, by)",
    )
    assert file.sync(batch()).spent == {("alice", TODAY[0]): SEVEN}
    assert requests(file) == 1


def test_a_note_in_words_of_another_version_is_passed_over(file: relay.SQLiteStore) -> None:
    file.sync(batch())
    other(file, NOTE, ("odd", "{not JSON"))
    other(file, NOTE, ("fine", '{"gone": 1}'))
    news = file.sync(batch())
    assert [note.name for note in news.notes] == ["fine"]
    assert requests(file) == 2
    assert file.sync(relay.Batch(labels=TODAY)).notes == []


def test_news_that_was_lost_with_a_batch_comes_again(
    file: relay.SQLiteStore, now: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.sync(batch())
    other(file, NOTE, ("fine", '{"gone": 1}'))
    now(NOON + 3600)
    with monkeypatch.context() as patch:
        patch.setattr(relay, "_TRIM", "SELECT disk_is_full()")
        with pytest.raises(relay.StateTrouble, match="no such function: disk_is_full"):
            file.sync(batch())
    assert [note.name for note in file.sync(batch()).notes] == ["fine"]
    assert requests(file) == 2


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_file_that_was_moved_away_while_relay_runs_is_begun_anew(
    how: str, file: relay.SQLiteStore
) -> None:
    """Else all that comes would go where nobody finds it."""
    file.sync(batch())
    if how == "removed":
        file.path.unlink()
    else:
        file.path.rename(file.path.with_suffix(".old"))
    if how == "replaced":
        there = relay.SQLiteStore(file.path)
        there.open()
        there.sync(batch())
        there.close()
    with pytest.raises(relay.StateTrouble, match="moved or replaced"):
        file.sync(batch())
    written = 2 if how == "replaced" else 1
    assert file.sync(batch()).spent == {("alice", TODAY[0]): relay.Spend(7 * written)}
    assert requests(file) == written
    assert file.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_those_who_share_a_file_begin_the_same_new_one(how: str, file: relay.SQLiteStore) -> None:
    """What SQLite keeps beside a file has its name: of the old one, it would damage the new one."""
    stores, path = [file, *(relay.SQLiteStore(file.path) for _ in range(2))], file.path
    for store in stores[1:]:
        store.open()
    for store in stores:
        store.sync(batch())
    if how == "removed":
        path.unlink()
    else:
        path.rename(path.with_suffix(".old"))
    for store in stores:
        with pytest.raises(relay.StateTrouble, match="it is opened anew"):
            store.sync(batch())
    for _ in range(2):
        for store in stores:
            store.sync(batch())
    assert [requests(store) for store in stores] == [6, 6, 6]
    for store in stores[1:]:
        store.close()
    if how == "moved":
        old = sqlite3.connect(path.with_suffix(".old"))
        assert old.execute("SELECT sum(requests) FROM usage").fetchone() == (3,)
        old.close()


def test_a_folder_that_is_gone_for_a_while_is_trouble_for_a_while(
    file: relay.SQLiteStore, tmp_path: Path
) -> None:
    file.sync(batch())
    away = tmp_path / "away"
    away.mkdir()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (tmp_path / name).rename(away / name)
    (tmp_path / "state.db").mkdir()
    for _ in range(2):
        with pytest.raises(relay.StateTrouble):
            file.sync(batch())
    (tmp_path / "state.db").rmdir()
    for name in ("state.db-wal", "state.db-shm", "state.db"):
        (away / name).rename(tmp_path / name)
    with pytest.raises(relay.StateTrouble, match="moved or replaced"):
        file.sync(batch())
    file.sync(batch())
    assert requests(file) == 2


def test_what_is_old_goes_also_after_the_clock_was_set_back(
    file: relay.SQLiteStore, now: Callable[[float], None]
) -> None:
    now(NOON + 30 * relay.DAY)
    file.sync(batch())
    now(NOON)
    row = relay.Row(relay.HOUR, int(NOON) - 40 * relay.DAY, "alice", "p", "m")
    file.sync(relay.Batch(usage={row: relay.Totals(requests=1)}))
    assert requests(file) == 1


def test_who_starts_waits_for_no_writer(file: relay.SQLiteStore) -> None:
    """Another process may be writing, or checking a large file, for longer than one waits."""
    file.sync(batch())
    holder = sqlite3.connect(file.path, isolation_level=None)
    second = relay.SQLiteStore(file.path)
    try:
        holder.execute("BEGIN IMMEDIATE")
        second.open()
        assert second.sync(relay.Batch(labels=TODAY)).spent == {("alice", TODAY[0]): SEVEN}
        holder.execute("ROLLBACK")
        second.sync(batch())
    finally:
        holder.close()
        second.close()
    assert requests(file) == 2


def test_an_old_note_stays_however_often_another_one_changes(
    file: relay.SQLiteStore, now: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there is room for stay, the latest: a plan may be used up for days."""
    monkeypatch.setattr(relay, "MOST_NOTES_STORED", 5)

    def note(name: str) -> relay.Batch:
        return relay.Batch(notes=[relay.Note("mark", name, {"gone": 1}, NOON + 90 * relay.DAY)])

    file.sync(note("a plan"))
    for _ in range(50):
        file.sync(note("a ratio"))
    now(NOON + 3600)
    file.sync(note("a ratio"))
    names = "SELECT name FROM notes ORDER BY seq"
    assert [name for (name,) in file._data.execute(names)] == ["a plan", "a ratio"]
    for number in range(9):
        file.sync(note(f"mark {number}"))
    now(NOON + 7200)
    file.sync(note("the last"))
    assert len(file._data.execute(names).fetchall()) == 5
