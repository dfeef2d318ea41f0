"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reid_models._output import DEAD, check_folder, replacing


def test_two_writers_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their processes may have one number, in two containers."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    file = tmp_path / "a.txt"
    with replacing(file) as first, replacing(file) as second:
        first.write_text("first")
        second.write_text("second")
        assert not file.exists()
    assert file.read_text() == "first"  # the last to end
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "a.txt", tmp_path / "a.txt"
    target.parent.mkdir()
    link.symlink_to(target)
    for text in ("new", "newer"):  # its target need not be there yet
        with replacing(link) as unfinished:
            unfinished.write_text(text)
        assert link.is_symlink() and target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


def test_what_killed_processes_left_goes(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in ("a.txt.0.part", "a.txt.1.part", "b.txt.0.part"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (time.time() - DEAD - 60,) * 2)
    with replacing(tmp_path / "a.txt") as unfinished:
        unfinished.touch()
    assert not old.exists() and new.exists() and other.exists()


def test_others_may_read_a_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "a.txt") as unfinished:
        unfinished.touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(file) as unfinished:
        unfinished.write_text("new")
        raise ZeroDivisionError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_what_can_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"--output must be in a folder that exists, got no/a\.txt"):
        check_folder("no/a.txt", "--output")
    with pytest.raises(IsADirectoryError, match="--output must be a file, got the folder"):
        check_folder(tmp_path, "--output")
    check_folder(tmp_path / "a.txt")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match="--output must be in a folder that can be written to"):
        check_folder(tmp_path / "a.txt", "--output")
