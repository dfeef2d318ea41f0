"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reid_models._output import DEAD, check_folder, check_not_input, replacing

ROOT = Path(__file__).parents[2]


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


def test_what_a_killed_process_left_goes_at_once(tmp_path: Path) -> None:
    file, ready = tmp_path / "a.txt", tmp_path / "ready"
    program = f"""
import pathlib, time
from reid_models._output import replacing
with replacing({str(file)!r}) as unfinished:
    unfinished.write_text("half")
    pathlib.Path({str(ready)!r}).touch()
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": "models"}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=ROOT) as writer:
        while not ready.exists():
            assert writer.poll() is None
            time.sleep(0.01)
        with replacing(file) as other:  # the first is still at work
            other.write_text("whole")
        assert len(list(tmp_path.glob("*.part"))) == 1
        writer.kill()
    with replacing(file) as unfinished:
        unfinished.write_text("new")
    assert not list(tmp_path.glob("*.part"))


def test_a_files_mode_stays_and_new_files_follow_the_umask(tmp_path: Path) -> None:
    secret, new = tmp_path / "secret", tmp_path / "new"
    secret.touch(mode=0o600)
    before = os.umask(0o027)
    try:
        for path in (secret, new):
            with replacing(path) as unfinished:
                unfinished.unlink()  # as libraries that make a file of their own and rename it
                unfinished.touch(mode=0o604)
    finally:
        os.umask(before)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert new.stat().st_mode & 0o777 == 0o640


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.json", tmp_path / "null.json"
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    for path in (pipe, link, Path("/dev/null")):
        with pytest.raises(ValueError, match=r"--output must be a file, got .* device, a pipe or a socket"):
            check_folder(path, "--output")
        with pytest.raises(ValueError, match="must be a file"), replacing(path):
            pytest.fail("it went on")
    assert pipe.is_fifo() and link.is_char_device()


def test_an_input_is_no_output(tmp_path: Path) -> None:
    file, link = tmp_path / "a.safetensors", tmp_path / "link"
    file.write_text("model")
    link.symlink_to(file)
    for inputs in ([tmp_path / "gone", file], [tmp_path]):
        with pytest.raises(ValueError, match="--output must not be one of the files that are read"):
            check_not_input(link, "--output", inputs)
    check_not_input(file, "--output", [tmp_path / "gone"])
    check_not_input(tmp_path / "new.safetensors", "--output", [tmp_path])
