"""The index file while it is written: writers that are killed, readers meanwhile, several writers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_ops import GalleryIndex
from reid_ops.search import IndexConflictError
from tests.search.test_torch import features

# Every version g of the file holds 50 g items; item i is features(...)[i % 50] scaled by 1 + i // 50.
BATCH = 50


def save_for_ever(path: Path, kind: str = "flat") -> None:
    """A writer: adds a batch, saves, and so on from what is there."""
    index = GalleryIndex.load(path, device="cpu")
    batch = features(BATCH)
    while True:
        first = len(index) if len(index) < 40 * BATCH else 0
        if first == 0:
            index = GalleryIndex(16, metric="euclidean", device="cpu", kind=kind)
        index.add(batch * (1 + first // BATCH), ids=np.arange(first, first + BATCH))
        index.save(path)


def assert_whole(path: Path, **options: Any) -> int:
    """The file is one of the writer's versions."""
    index = GalleryIndex.load(path, device="cpu", **options)
    batches, rest = divmod(len(index), BATCH)
    assert rest == 0 and batches > 0
    np.testing.assert_array_equal(index.ids, np.arange(len(index)))
    expected = np.concatenate([features(BATCH) * (1 + batch) for batch in range(batches)])
    np.testing.assert_array_equal(index.features(index.ids), expected)
    return batches


def first_version(path: Path) -> None:
    index = GalleryIndex(16, metric="euclidean", device="cpu")
    index.add(features(BATCH))
    index.save(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_while_saving(tmp_path: Path) -> None:
    path = tmp_path / "gallery"
    first_version(path)
    chance = random.Random(0)
    left_behind, versions = 0, set()
    # On a busy machine, where a save takes longer, more kills are needed, and later ones.
    kills, latest, deadline = 0, 0.05, time.monotonic() + 300
    while kills < 60 or (time.monotonic() < deadline and not (len(versions) > 3 and left_behind)):
        kills += 1
        latest = latest if kills <= 60 else min(1.1 * latest, 2.0)
        child = os.fork()
        if child == 0:
            try:
                save_for_ever(path)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.0, latest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the writer failed by itself"
        versions.add(assert_whole(path))
        left_behind += any(path.parent.glob(".gallery.*.partial"))
    assert len(versions) > 3, "the writer never got to write"
    assert left_behind > 0, "no kill hit a save"
    index = GalleryIndex.load(path)
    index.save(path)  # cleans up
    assert not list(path.parent.glob(".gallery.*.partial"))


def reader_and_writer_processes(path: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.search.test_writers import *\n"
        "path, role, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "if role == 'writer': save_for_ever(path)\n"
        "start, seen, loads = time.monotonic(), set(), 0\n"
        "def goes_on():\n"  # so long, or until it has seen enough where the machine is busy
        "    passed = time.monotonic() - start\n"
        "    return passed < seconds or (passed < 90 and not (loads > 5 and len(seen) > 1))\n"
        "while goes_on():\n"
        "    seen.add(assert_whole(path, mmap=loads % 2 == 1)); loads += 1\n"
        "print(loads, len(seen))\n"
    )
    for role in ("writer", "reader", "reader", "reader"):
        yield subprocess.Popen(
            [sys.executable, "-c", code, str(path), role, str(seconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


def test_readers_while_one_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "gallery"
    first_version(path)
    processes = list(reader_and_writer_processes(path, 2.0))
    try:
        for process in processes:
            assert process.stdout is not None and process.stdin is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for reader in processes[1:]:
            output, _ = reader.communicate(timeout=180)
            assert reader.returncode == 0, "a reader met a file that was not whole"
            loads, versions = map(int, output.split())
            assert loads > 5 and versions > 1
        assert processes[0].poll() is None, "the writer failed"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """The second one is told, and :meth:`edit` takes turns."""
    path = tmp_path / "gallery"
    first_version(path)
    one, two = (GalleryIndex.load(path) for _ in range(2))
    one.add(features(1), ids=[100])
    two.add(features(1), ids=[200])
    one.save(path)
    before = path.read_bytes()
    with pytest.raises(IndexConflictError, match="gallery was replaced by another writer since"):
        two.save(path)
    assert path.read_bytes() == before and 200 in two.ids
    one.add(features(1), ids=[101])
    one.save(path)  # its own last version is no conflict
    two.save(tmp_path / "elsewhere")
    assert two.generation == 2
    two.save(path)  # it is "elsewhere" that it keeps up with now
    assert 101 not in GalleryIndex.load(path).ids
    assert one.refresh() and 200 in one.ids and not one.refresh()
    two.save(path)
    with pytest.raises(IndexConflictError):
        one.save(path)
    one.save(path, overwrite=True)
    with pytest.raises(KeyError), GalleryIndex.edit(path) as index:
        index.add(features(1), ids=[300])
        raise KeyError
    assert 300 not in GalleryIndex.load(path).ids


def test_saving_within_an_edit_is_refused(tmp_path: Path) -> None:
    """It waited for itself. In a process of its own, so that waiting again would end."""
    first_version(tmp_path / "gallery")
    (tmp_path / "link").symlink_to("gallery")
    code = (
        "import sys; from tests.search.test_writers import *\n"
        "path = Path(sys.argv[1])\n"
        "with GalleryIndex.edit(path) as index:\n"
        "    index.add(features(1), ids=[100])\n"
        "    for name in ('gallery', 'link'):\n"
        "        with pytest.raises(RuntimeError, match='gallery is being edited here'):\n"
        "            index.save(path.with_name(name))\n"
        "    with pytest.raises(RuntimeError, match='being edited'), GalleryIndex.edit(path):\n"
        "        pass\n"
        "    index.save(path.with_name('copy'))\n"
        "index = GalleryIndex.load(path)\n"
        "index.save(path)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "gallery")], check=True, timeout=180)
    for name in ("gallery", "copy"):
        assert 100 in GalleryIndex.load(tmp_path / name).ids


def test_threads_wait_for_each_other(tmp_path: Path) -> None:
    """What one thread holds is no error in another: it is saved there in turn."""
    path = tmp_path / "gallery"
    first_version(path)
    other = GalleryIndex.load(path)
    other.add(features(1), ids=[200])
    started = threading.Event()

    def save() -> None:
        started.set()
        other.save(path, overwrite=True)

    with GalleryIndex.edit(path) as index:
        index.add(features(1), ids=[100])
        writer = threading.Thread(target=save)
        writer.start()
        assert started.wait(60)
        writer.join(0.1)
        assert writer.is_alive()
    writer.join(60)
    assert not writer.is_alive()
    assert 200 in GalleryIndex.load(path).ids


def test_two_writers_at_once(tmp_path: Path) -> None:
    """Each adds to what the other has saved."""
    path = tmp_path / "gallery"
    first_version(path)
    code = (
        "import sys; from tests.search.test_writers import *\n"
        "path, first = Path(sys.argv[1]), int(sys.argv[2])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for turn in range(25):\n"
        "    with GalleryIndex.edit(path, device='cpu') as index:\n"
        "        index.add(features(1, seed=turn), ids=[first + turn])\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), first],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for first in ("1000", "2000", "3000")
    ]  # fmt: skip
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.communicate("go\n", timeout=300)
            assert writer.returncode == 0
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    index = GalleryIndex.load(path)
    expected = [first + turn for first in (1000, 2000, 3000) for turn in range(25)]
    assert set(index.ids) == {*range(BATCH), *expected} and len(index) == BATCH + 75
    np.testing.assert_array_equal(index.features([2007]), features(1, seed=7))


def test_what_is_no_file_is_never_replaced_and_links_are_not_followed(tmp_path: Path) -> None:
    index = GalleryIndex(4, device="cpu")
    index.add(np.ones((2, 4), np.float32))
    os.mkfifo(tmp_path / "pipe.index")
    (tmp_path / "null.index").symlink_to("/dev/null")
    for name in ("pipe.index", "null.index"):
        with pytest.raises(ValueError, match=r"must be a file, got .* a device, a pipe or a socket"):
            index.save(tmp_path / name)
    assert Path("/dev/null").is_char_device()
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / ".a.index.lock").symlink_to(precious)
    with pytest.raises(OSError):
        index.save(tmp_path / "a.index")
    assert precious.read_text() == "kept" and not (tmp_path / "a.index").exists()


def test_a_files_mode_stays(tmp_path: Path) -> None:
    index = GalleryIndex(4, device="cpu")
    index.add(np.ones((2, 4), np.float32))
    path = tmp_path / "a.index"
    index.save(path)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    path.chmod(0o600)
    index.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
