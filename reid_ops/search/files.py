"""Saving and loading an index."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from . import faiss_layout, storage, validation
from .approximate import Approximate
from .contents import Contents
from .rows import Rows

_Version = tuple[int, int, int]
_Index = TypeVar("_Index", bound="Files")
_ATTACHMENT = "attachment "  # before its name, among the file's sections


class Files(Contents, ABC):
    """The part of GalleryIndex that meets the disk."""

    recall: float
    generation: int
    attachments: dict[str, bytes]
    device: torch.device
    shards: int
    backend: str
    _source: tuple[Path, dict[str, Any], _Version] | None

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the index to a file, in one step: a reader finds the old version or the new one, whole.

        That holds if the process is killed or the power fails at any moment. One process writes at a time;
        others wait. The ``attachments`` go along. Beside the file stays an empty ``.NAME.lock``.

        Args:
            path: the file. One that this index was not loaded from is replaced without a question.
            overwrite: replace also what another writer has saved since this index was loaded from there, or
                last saved there. To change a file that others change as well, use :meth:`edit`.

        Raises:
            OSError: the file can't be written; the old one is as it was.
            IndexConflictError: another writer has replaced the file since, and its changes would be lost.
            RuntimeError: within a block of :meth:`edit` for the same file, which saves it by itself.
        """
        with storage.locked(Path(path)):
            if not overwrite:
                self._check_unchanged(Path(path))
            self._write(Path(path))

    @classmethod
    @contextlib.contextmanager
    def edit(cls: type[_Index], path: str | os.PathLike[str], **options: Any) -> Iterator[_Index]:
        """Loads a file, hands it out to be changed, and saves it; other writers wait meanwhile.

        Nothing is saved if the block raises. ``options`` are those of :meth:`load`. Within the block neither
        :meth:`save` nor another ``edit`` may have the same file (RuntimeError): its end would undo theirs.

        Example:
            >>> with GalleryIndex.edit("gallery.index") as index:
            ...     index.add(features, ids=[30, 31])
        """
        with storage.locked(Path(path)):
            index = cls.load(path, **options)
            yield index
            index._write(Path(path))

    def _check_unchanged(self, path: Path) -> None:
        """That nobody else has replaced the file this index came from."""
        if self._source is None or self._source[0].resolve() != path.resolve():
            return
        if path.exists() and _version(path.stat()) != self._source[2]:
            raise storage.IndexConflictError(
                f"{path} was replaced by another writer since this index was loaded or saved; load it and "
                "repeat the change, by GalleryIndex.edit, or pass overwrite=True"
            )

    def _write(self, path: Path) -> None:
        """Saves under a lock that is held."""
        if self.kind == "flat" and self._rows.dead and not self._mapped:
            self._rows = self._rows.compacted()
            self._placed = ()
        rows = self._rows
        facts = {
            "dim": self.dim,
            "metric": self.metric,
            "kind": self.kind,
            "recall": self.recall,
            "count": rows.count,
            "next_id": self._next_id,
            "generation": self.generation + 1,
            "approximate": None if self._approximate is None else self._approximate.facts(),
            "attachments": {name: len(content) for name, content in self.attachments.items()},
        }
        sections: dict[str, storage.Section] = {
            "vectors": rows.vectors,
            "ids": rows.ids,
            "cameras": rows.cameras,
            "alive": rows.alive,
        }
        if self._approximate is not None:
            sections["faiss"] = self._approximate.write
        for name, content in self.attachments.items():
            sections[_ATTACHMENT + name] = np.frombuffer(content, np.uint8)
        storage.write(path, facts, sections)
        self.generation += 1
        if self._source is None or self._source[0].resolve() != path.resolve():
            options = {"device": self.device, "shards": self.shards, "backend": self.backend}
            self._source = (path, {**options, "mmap": False, "verify": None}, _version(path.stat()))
        else:
            self._source = (*self._source[:2], _version(path.stat()))

    @classmethod
    def load(
        cls: type[_Index],
        path: str | os.PathLike[str],
        *,
        mmap: bool = False,
        verify: bool | None = None,
        device: str | torch.device = "auto",
        shards: int | None = None,
        backend: str = "auto",
    ) -> _Index:
        """Reads a file that :meth:`save` wrote. Nothing is unpickled.

        Args:
            path: the file.
            mmap: map the vectors instead of reading them, for galleries larger than memory; the index is then
                read-only and, if flat, searched on the CPU. What is mapped stays the version that was opened.
                An approximate index's own data is read: ``"ivfpq"`` keeps a few bytes per item, ``"ivf"`` and
                ``"hnsw"`` a copy of the vectors.
            verify: compare the vectors' checksum; None: unless mapped, since that reads them all. The
                checksums of all else are always compared.
            device: as for a new index.
            shards: as there.
            backend: as there.

        Raises:
            OSError: there is no such file, or it can't be read.
            IndexFileError: (a ValueError) the file is not an index, is cut short or damaged, or holds what no
                index does (vectors of NaN, identifiers twice). Vectors are looked at where they are verified.
        """
        options: dict[str, Any] = {"device": device, "shards": shards, "backend": backend}
        with storage.Reader(Path(path)) as reader:
            facts = reader.facts
            validation.check_facts(facts, reader.path)
            create: Any = cls
            index: _Index = create(
                facts["dim"], metric=facts["metric"], kind=facts["kind"], recall=facts["recall"], **options
            )
            count = facts["count"]
            check = not mmap if verify is None else verify
            index._rows = Rows.of(
                reader.array("vectors", np.float32, (count, index.dim), mapped=mmap, verify=check),
                reader.array("ids", np.int64, (count,)),
                reader.array("cameras", np.int64, (count,)),
                reader.array("alive", bool, (count,)),
            )
            validation.check_rows(index._rows, index.metric, facts["next_id"], check, reader.path)
            index._next_id, index.generation, index._mapped = facts["next_id"], facts["generation"], mmap
            if facts["approximate"] is not None:
                index._approximate = _read_approximate(reader, index.dim, count)
                index._to_gpus()
            for name, size in facts["attachments"].items():
                index.attachments[name] = reader.array(_ATTACHMENT + name, np.uint8, (size,)).tobytes()
            version = _version(os.fstat(reader.file.fileno()))
        index._source = (Path(path), {**options, "mmap": mmap, "verify": verify}, version)
        return index

    def refresh(self) -> bool:
        """Loads the file again if another writer has replaced it since; True if so.

        For an index that was loaded or saved. Changes that were not saved are dropped.
        """
        if self._source is None:
            raise RuntimeError("GalleryIndex: refresh is for an index that was loaded from a file or saved")
        path, options, version = self._source
        if _version(path.stat()) == version:
            return False
        self.__dict__ = type(self).load(path, **options).__dict__
        return True

    @abstractmethod
    def _to_gpus(self) -> None:
        """Says where an approximate index is searched."""


def _read_approximate(reader: storage.Reader, dim: int, count: int) -> Approximate:
    facts = reader.facts
    try:
        faiss_layout.check(reader.view("faiss"), facts["kind"], facts["metric"], dim, count)
        found = Approximate.read(facts["kind"], facts["metric"], facts["approximate"], reader.stream("faiss"))
    except faiss_layout.LayoutError as error:
        raise storage.IndexFileError(f"{reader.path} is damaged: of its faiss part {error}") from error
    except RuntimeError as error:  # faiss's own
        if isinstance(error.__cause__, ImportError):
            raise
        raise storage.IndexFileError(f"{reader.path} is damaged: faiss can't read its part") from error
    if found.effort > found.parameter[1]:
        raise storage.IndexFileError(f"{reader.path} is damaged: approximate.effort is {found.effort}")
    return found


def _version(stat: os.stat_result) -> _Version:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
