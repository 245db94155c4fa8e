"""How a configuration file is replaced: atomically, else in place, else with words about it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

import relay


def test_it_is_replaced_and_the_old_text_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("old")
    before = file.stat().st_ino
    relay.Source(file, "new").save()
    assert (file.read_text(), (tmp_path / "config.yaml.bak").read_text()) == ("new", "old")
    assert file.stat().st_ino != before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_mounted_file_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can replace what something is mounted on: rename gives EBUSY."""
    file = tmp_path / "config.yaml"
    file.write_text("an old and longer text")
    before = file.stat().st_ino

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    relay.Source(file, "new").save()
    assert (file.read_text(), file.stat().st_ino) == ("new", before)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config.yaml", "config.yaml.bak"]


@pytest.mark.parametrize(
    ("reason", "in_place"),
    [(errno.EROFS, True), (errno.EACCES, True), (errno.ENOSPC, False)],
)
def test_in_a_folder_that_takes_no_file_it_is_written_in_place(
    reason: int, in_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is another thing: it would lose the text it has."""
    file = tmp_path / "config.yaml"
    file.write_text("old")
    opened = os.open

    def refusing(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(reason, os.strerror(reason))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    if in_place:
        relay.Source(file, "new").save()
    else:
        with pytest.raises(relay.BadRequest, match="No space left on device; let relay write"):
            relay.Source(file, "new").save()
    assert file.read_text() == ("new" if in_place else "old")
    assert list(tmp_path.iterdir()) == [file]
