"""The index file: written beside the old one and put in its place in one step, checksummed, mappable.

Layout: 8 bytes that name the format; sections, each starting at a multiple of 4096; a JSON header that
says where they are, with a BLAKE2b digest of each; a footer of fixed size with the header's place and
digest. The footer comes last, so a file cut short anywhere is recognised. Nothing is ever unpickled.

A writer holds a lock file while it writes. Readers need no lock: the file under the name is complete at
any moment, and whoever has opened or mapped it keeps that version after it was replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_MAGIC = b"REIDIDX1"
_END = b"1XDIDIER"
_FOOTER = struct.Struct("<QQ16s8s")  # header's offset, its length, its digest, _END
_ALIGNMENT = 4096
_CHUNK = 4 << 20
_held = threading.local()  # .paths: the files that this thread has locked

Section = np.ndarray | Callable[[Callable[[bytes], int]], None]  # bytes, or what writes them


class IndexFileError(ValueError):
    """A file is no index, or is damaged; the message says which and where."""


class IndexConflictError(RuntimeError):
    """Saving would throw away what another writer has saved in the meantime."""


def write(path: Path, facts: Mapping[str, Any], sections: Mapping[str, Section]) -> None:
    """Replaces the file at ``path``, or leaves it as it was if anything goes wrong at any moment.

    The new file has the mode of the old one. The caller holds the file's lock: see :func:`locked`.

    Raises:
        ValueError: under the name is no file but a device, a pipe or a socket.
    """
    path = path.resolve()  # of a link, what it points to is replaced
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"path must be a file, got {path}, which is a device, a pipe or a socket")
    for stale in _partial_files(path):  # of writers that were killed: this one has the lock
        stale.unlink(missing_ok=True)
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        with partial.open("xb") as file:
            _write_all(file, facts, sections)
            file.flush()
            if path.is_file():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _partial_files(path: Path) -> list[Path]:
    """Unfinished files of this name; those of ``NAME.other`` look alike but have more than a number."""
    start, end = f".{path.name}.", ".partial"
    names = [name for name in os.listdir(path.parent) if name.startswith(start) and name.endswith(end)]
    return [path.parent / name for name in names if name[len(start) : -len(end)].isdigit()]


def _write_all(file: BinaryIO, facts: Mapping[str, Any], sections: Mapping[str, Section]) -> None:
    file.write(_MAGIC)
    table = {}
    for name, content in sections.items():
        file.write(b"\0" * (-file.tell() % _ALIGNMENT))
        offset, digest = file.tell(), hashlib.blake2b(digest_size=16)

        def write_bytes(data: Any, digest: Any = digest) -> int:
            digest.update(data)
            return file.write(data)

        if isinstance(content, np.ndarray):
            flat = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
            for start in range(0, len(flat), _CHUNK):
                write_bytes(flat[start : start + _CHUNK])
        else:
            content(write_bytes)
        table[name] = {"offset": offset, "size": file.tell() - offset, "digest": digest.hexdigest()}
    header = json.dumps({**facts, "sections": table}).encode()
    offset = file.tell()
    file.write(header)
    file.write(_FOOTER.pack(offset, len(header), hashlib.blake2b(header, digest_size=16).digest(), _END))


class Reader:
    """An open index file. ``facts`` is the header; sections are read, or mapped, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("rb")
        try:
            self.facts = self._header()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _header(self) -> dict[str, Any]:
        size = os.fstat(self.file.fileno()).st_size
        if self.file.read(len(_MAGIC)) != _MAGIC:
            raise IndexFileError(f"{self.path} is not a gallery index: it doesn't begin with {_MAGIC!r}")
        if size < len(_MAGIC) + _FOOTER.size:
            raise IndexFileError(f"{self.path} is cut short: {size} bytes")
        self.file.seek(size - _FOOTER.size)
        offset, length, digest, end = _FOOTER.unpack(self.file.read(_FOOTER.size))
        if end != _END or offset + length + _FOOTER.size != size:
            raise IndexFileError(
                f"{self.path} is cut short or was added to: its last {_FOOTER.size} bytes are no footer"
            )
        self.file.seek(offset)
        header = self.file.read(length)
        if hashlib.blake2b(header, digest_size=16).digest() != digest:
            raise IndexFileError(f"{self.path} is damaged: the header's checksum is wrong")
        try:
            facts = json.loads(header)
        except (ValueError, RecursionError) as error:
            raise IndexFileError(f"{self.path} is damaged: the header is no JSON: {error}") from error
        sections = facts.get("sections") if isinstance(facts, dict) else None
        if not isinstance(sections, dict) or not all(_is_section(each, offset) for each in sections.values()):
            raise IndexFileError(f"{self.path} is damaged: the header doesn't say where its sections are")
        return facts

    def has(self, name: str) -> bool:
        """Whether there is such a section."""
        return name in self.facts["sections"]

    def _entry(self, name: str) -> dict[str, Any]:
        if not self.has(name):
            raise IndexFileError(f"{self.path} is damaged: its {name} is missing")
        entry: dict[str, Any] = self.facts["sections"][name]
        return entry

    def verify(self, name: str) -> None:
        """Reads a section once and compares its checksum."""
        entry = self._entry(name)
        digest, left = hashlib.blake2b(digest_size=16), entry["size"]
        self.file.seek(entry["offset"])
        while left > 0:
            chunk = self.file.read(min(left, _CHUNK))
            if not chunk:
                break
            digest.update(chunk)
            left -= len(chunk)
        if digest.hexdigest() != entry["digest"]:
            raise IndexFileError(f"{self.path} is damaged: the checksum of its {name} is wrong")

    def array(
        self, name: str, dtype: Any, shape: tuple[int, ...], *, mapped: bool = False, verify: bool = True
    ) -> np.ndarray:
        """A section as an array: a copy in memory, or a read-only map of the file."""
        entry = self._entry(name)
        expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if entry["size"] != expected:
            raise IndexFileError(f"{self.path} is damaged: {name} has {entry['size']} bytes, not {expected}")
        if verify:
            self.verify(name)
        if expected == 0:
            return np.empty(shape, dtype)
        if mapped:
            return np.memmap(self.file, dtype, "r", entry["offset"], shape)
        self.file.seek(entry["offset"])
        return np.fromfile(self.file, dtype, int(np.prod(shape))).reshape(shape)

    def view(self, name: str) -> memoryview:
        """A section's bytes, mapped; its checksum is compared first."""
        self.verify(name)
        entry = self._entry(name)
        if entry["size"] == 0:
            return memoryview(b"")
        mapped: Any = np.memmap(self.file, np.uint8, "r", entry["offset"], (entry["size"],))
        return memoryview(mapped)

    def stream(self, name: str) -> Callable[[int], bytes]:
        """A function that reads on within a section; its checksum was compared by :meth:`view`."""
        self.file.seek(self._entry(name)["offset"])
        return self.file.read


def _is_section(entry: Any, end: int) -> bool:
    """Whether this is where a section lies, before the header."""
    if not isinstance(entry, dict) or not isinstance(entry.get("digest"), str):
        return False
    place: list[Any] = [entry.get("offset"), entry.get("size")]
    return all(type(each) is int and each >= 0 for each in place) and sum(place) <= end


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer at a time; the lock is the system's and ends with the process that holds it.

    Raises:
        RuntimeError: this thread holds the lock already, and would wait for itself for ever.
    """
    import fcntl  # here, so that where there is none (not POSIX) all but saving works

    path = path.resolve()
    paths: set[Path] = _held.__dict__.setdefault("paths", set())
    if path in paths:
        raise RuntimeError(f"{path} is being edited here: GalleryIndex.edit saves it at the end of its block")
    # Neither through a link nor emptied: what somebody has put under the name stays as it is.
    lock = os.open(path.parent / f".{path.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        paths.add(path)
        yield
    finally:
        paths.discard(path)
        os.close(lock)


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
