"""Saving and loading an index."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from . import storage
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
    _source: tuple[Path, dict[str, Any], _Version] | None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file, in one step: a reader finds the old version or the new one, whole.

        That holds if the process is killed or the power fails at any moment. One process writes at a time;
        others wait. The ``attachments`` go along. Beside the file stays an empty ``.NAME.lock``.

        Raises:
            OSError: the file can't be written; the old one is as it was.
        """
        if self.kind == "flat" and self._rows.dead and not self._mapped:
            self._rows.compact()
            self._placed = ()
        rows = self._rows
        facts = {
            "dim": self.dim,
            "metric": self.metric,
            "kind": self.kind,
            "recall": self.recall,
            "count": rows.count,
            "next_id": self._next_id,
            "largest_square": rows.largest_square,
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
        storage.write(Path(path), facts, sections)
        self.generation += 1

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
            IndexFileError: (a ValueError) the file is not an index, or is cut short or damaged.
        """
        options: dict[str, Any] = {"device": device, "shards": shards, "backend": backend}
        with storage.Reader(Path(path)) as reader:
            facts = reader.facts
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
            index._rows.largest_square = facts["largest_square"]
            index._next_id, index.generation, index._mapped = facts["next_id"], facts["generation"], mmap
            if facts["approximate"] is not None:
                index._approximate = Approximate.read(
                    index.kind, index.metric, facts["approximate"], reader.stream("faiss")
                )
                index._to_gpus()
            for name, size in facts.get("attachments", {}).items():  # files of 0.1.0 before them have none
                index.attachments[name] = reader.array(_ATTACHMENT + name, np.uint8, (size,)).tobytes()
            version = _version(os.fstat(reader.file.fileno()))
        index._source = (Path(path), {**options, "mmap": mmap, "verify": verify}, version)
        return index

    def refresh(self) -> bool:
        """Loads the file again if it was replaced since; True if so. For a loaded index only."""
        if self._source is None:
            raise RuntimeError("GalleryIndex: refresh is for an index that was loaded from a file")
        path, options, version = self._source
        if _version(path.stat()) == version:
            return False
        self.__dict__ = type(self).load(path, **options).__dict__
        return True

    @abstractmethod
    def _to_gpus(self) -> None:
        """Says where an approximate index is searched."""


def _version(stat: os.stat_result) -> _Version:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
