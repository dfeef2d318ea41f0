"""The index file: what is saved is loaded, and a file that is damaged or foreign is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_ops import GalleryIndex
from reid_ops.search import IndexFileError, storage
from tests.search.test_index import APPROXIMATE
from tests.search.test_torch import features


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
    assert loaded.search(features(1, 4), 1)[1].shape == (1, 0)


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
        "from tests.search.test_files import *\n"
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
