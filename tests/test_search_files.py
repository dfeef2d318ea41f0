"""The index file: what is saved is loaded, whatever kills the writer, damages the file or reads meanwhile."""

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
from reid_ops.search import IndexConflictError, IndexFileError, storage
from tests.test_search import APPROXIMATE
from tests.test_search_torch import features


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
@pytest.mark.parametrize("mmap", [False, True])
def test_save_and_load(kind: str, mmap: bool, tmp_path: Path) -> None:
    gallery, query = features(900, 16, identities=40), features(20, 16, 1, identities=40)
    index = GalleryIndex(16, metric="euclidean", kind=kind)
    index.add(gallery, ids=np.arange(900) * 3, cameras=np.arange(900) % 5)
    index.remove([30, 33])
    before = index.search(query, 8, cameras=[1] * 20)
    index.save(tmp_path / "gallery")
    loaded = GalleryIndex.load(tmp_path / "gallery", mmap=mmap)
    assert (loaded.dim, loaded.metric, loaded.kind, len(loaded)) == (16, "euclidean", kind, 898)
    assert loaded.recall_report == index.recall_report
    np.testing.assert_array_equal(loaded.ids, index.ids)
    after = loaded.search(query, 8, cameras=[1] * 20)
    for mine, theirs in zip(before, after, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    if mmap:
        for change in (
            lambda: loaded.add(gallery[:1]),
            lambda: loaded.remove([0]),
            lambda: loaded.update([0], gallery[:1]),
        ):
            with pytest.raises(RuntimeError, match="read-only"):
                change()
    else:
        assert loaded.add(gallery[:1]).tolist() == [899 * 3 + 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gallery.lock", "gallery"]


@pytest.mark.parametrize("mmap", [False, True])
def test_attachments_go_along(mmap: bool, tmp_path: Path) -> None:
    index = GalleryIndex(8)
    index.add(features(5, 8))
    index.attachments |= {"names": b"a\0b\0", "nothing": b""}
    index.save(tmp_path / "gallery")
    loaded = GalleryIndex.load(tmp_path / "gallery", mmap=mmap)
    assert loaded.attachments == {"names": b"a\0b\0", "nothing": b""}
    with storage.Reader(tmp_path / "gallery") as reader:
        offset = reader.facts["sections"]["attachment names"]["offset"]
    content = bytearray((tmp_path / "gallery").read_bytes())
    content[offset] ^= 1
    (tmp_path / "gallery").write_bytes(content)
    with pytest.raises(IndexFileError, match="checksum of its attachment names"):
        GalleryIndex.load(tmp_path / "gallery", mmap=mmap)


def test_an_empty_index_can_be_saved(tmp_path: Path) -> None:
    GalleryIndex(4, kind="ivf").save(tmp_path / "gallery")
    loaded = GalleryIndex.load(tmp_path / "gallery", mmap=True)
    assert len(loaded) == 0
    with pytest.raises(ValueError, match="index is empty"):
        loaded.search(features(1, 4), 1)


def test_a_mapped_index_keeps_its_version(tmp_path: Path) -> None:
    path, query = tmp_path / "gallery", features(3, seed=1)
    index = GalleryIndex(16)
    index.add(features(50))
    index.save(path)
    reader = GalleryIndex.load(path, mmap=True)
    before = reader.search(query, 5)[1]
    assert not reader.refresh()
    index.add(query, ids=[100, 101, 102])
    index.save(path)
    np.testing.assert_array_equal(reader.search(query, 5)[1], before)
    assert reader.refresh() and reader.generation == 2
    assert reader.search(query, 1)[1][:, 0].tolist() == [100, 101, 102]
    assert not index.refresh()
    with pytest.raises(RuntimeError, match="loaded from a file or saved"):
        GalleryIndex(4).refresh()


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """164 MB of vectors."""
    path = tmp_path_factory.mktemp("large") / "gallery"
    index = GalleryIndex(512)
    index.add(np.random.default_rng(0).random((80_000, 512), np.float32))
    index.save(path)
    yield path
    path.unlink()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_a_mapped_gallery_may_be_larger_than_memory(backend: str, large_file: Path) -> None:
    """Searches them in a process that may not allocate 40 MB more than it has, a quarter of the file."""
    code = (
        "import gc, resource, sys, faiss\n"
        "from tests.test_search_files import *\n"
        "def leave_room(amount=40 << 20):\n"
        "    gc.collect()\n"
        "    data = int(Path('/proc/self/status').read_text().split('VmData:')[1].split()[0]) * 1024\n"
        "    resource.setrlimit(resource.RLIMIT_DATA, (data + amount, resource.RLIM_INFINITY))\n"
        "def search():\n"
        "    index = GalleryIndex.load(sys.argv[1], mmap=True, backend=sys.argv[2])\n"
        "    return index.search(index.features([7, 79_999]), 1)[1].tolist()\n"
        "search()\n"  # without a limit: fills the scratch memory of the libraries
        "leave_room()\n"
        "print(search())\n"
        "leave_room()\n"  # anew, for the process may have given memory back meanwhile
        "try: GalleryIndex.load(sys.argv[1])\n"
        "except MemoryError: print('does not fit')\n"
    )
    # One thread: what scratch memory several take, and when, is chance; OpenBLAS crashes when it finds none.
    found = subprocess.run(
        [sys.executable, "-c", code, str(large_file), backend],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert found.stdout == "[[7], [79999]]\ndoes not fit\n", found.stderr


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    index = GalleryIndex(16, kind="ivf")
    index.add(features(300))
    index.build()
    index.save(tmp_path / "gallery")
    for name in ("load", "loads", "Unpickler", "_loads"):
        monkeypatch.setattr(pickle, name, lambda *_: pytest.fail("unpickled"))
    GalleryIndex.load(tmp_path / "gallery")


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    index = GalleryIndex(8, kind="ivf")
    index.add(features(200, 8))
    index.build()
    path = tmp_path_factory.mktemp("good") / "gallery"
    index.save(path)
    return path.read_bytes()


def test_a_file_cut_short_anywhere_is_refused(good_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gallery"
    lengths = {0, 1, 7, 8, 20, 48, 4096, len(good_file) - 1, len(good_file) - 40, len(good_file) // 2}
    for length in lengths | set(range(0, len(good_file), 997)):
        path.write_bytes(good_file[:length])
        with pytest.raises(IndexFileError, match=r"cut short|not a gallery index"):
            GalleryIndex.load(path)
    path.write_bytes(good_file + b"x")
    with pytest.raises(IndexFileError, match="cut short or was added to"):
        GalleryIndex.load(path)


def test_a_flipped_bit_anywhere_is_refused_or_harmless(good_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gallery"
    path.write_bytes(good_file)
    expected = GalleryIndex.load(path)
    refused = 0
    for place in range(0, len(good_file), 211):
        damaged = bytearray(good_file)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        try:
            loaded = GalleryIndex.load(path)
        except IndexFileError:
            refused += 1
        else:  # padding between sections
            np.testing.assert_array_equal(loaded.features(loaded.ids), expected.features(expected.ids))
    assert refused > 30


def test_a_mapped_file_is_verified_on_request(good_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gallery"
    damaged = bytearray(good_file)
    damaged[4096 + 100] ^= 1  # in the vectors
    path.write_bytes(damaged)
    GalleryIndex.load(path, mmap=True)
    with pytest.raises(IndexFileError, match="checksum of its vectors"):
        GalleryIndex.load(path, mmap=True, verify=True)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x80\x04" + b"x" * 100, b"REIDIDX1", b"REIDIDX1" + b"\0" * 99]
)
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(IndexFileError, match=r"not a gallery index|cut short"):
        GalleryIndex.load(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        GalleryIndex.load(tmp_path / "none")


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gallery"
    index = GalleryIndex(16)
    index.add(features(50))
    index.save(path)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    index.add(features(50, seed=1))
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(storage.os, function, full)
            with pytest.raises(OSError, match="No space left"):
                index.save(path)
        assert path.read_bytes() == before
        assert sorted(each.name for each in tmp_path.iterdir()) == [".gallery.lock", "gallery"]
    index.save(path)
    assert len(GalleryIndex.load(path)) == 100


def test_only_its_own_leftovers_are_cleaned_up(tmp_path: Path) -> None:
    index = GalleryIndex(16)
    index.add(features(5))
    for name in (".gallery.123.partial", ".gallery.old.123.partial", ".gallery.note.partial"):
        (tmp_path / name).write_bytes(b"x")
    index.save(tmp_path / "gallery")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".gallery.lock", ".gallery.note.partial", ".gallery.old.123.partial", "gallery"]
    (tmp_path / "link").symlink_to(tmp_path / "gallery")
    index.add(features(5))
    index.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and len(GalleryIndex.load(tmp_path / "gallery")) == 10


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
        "from tests.test_search_files import *\n"
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
        "import sys; from tests.test_search_files import *\n"
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
        "import sys; from tests.test_search_files import *\n"
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
