"""What a file says of an index, checked: a checksum tells damage, not whether what it covers makes sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .approximate import KINDS
from .rows import LARGEST_SQUARE, NO_CAMERA, Rows, first_repeated
from .storage import IndexFileError

_METRICS = ("cosine", "euclidean")
_MOST = 2**63 - 1
_CHECKED = 1 << 22  # elements of vectors at a time
_UNIT = 1e-3  # how far a stored vector's squared length may be from 1

# What a header must have, of which kind, from and up to where.
_NUMBERS: dict[str, tuple[type, float, float]] = {
    "dim": (int, 1, 1 << 20),
    "recall": (float, 0, 1),
    "count": (int, 0, 2**40),
    "next_id": (int, 0, 2**63),
    "generation": (int, 0, _MOST),
}
_EFFORT: dict[str, tuple[type, float, float]] = {"effort": (int, 1, 2**31 - 1), "trained_on": (int, 0, 2**40)}
_REPORT: dict[str, tuple[type, float, float]] = {
    "target": (float, 0, 1),
    "recall": (float, 0, 1),
    "k": (int, 1, 2**31),
    "sample": (int, 1, 2**31),
    "value": (int, 1, 2**31),
}


def check_facts(facts: dict[str, Any], path: Path) -> None:
    """The header's facts; IndexFileError names the one that can't be."""
    _check_numbers(facts, _NUMBERS, "", path)
    for name, allowed in (("metric", _METRICS), ("kind", ("flat", *KINDS))):
        if facts.get(name) not in allowed:
            raise _damaged(path, f"{name} is {facts.get(name)!r}")
    approximate = facts.get("approximate")
    if approximate is not None:
        if facts["kind"] == "flat" or not isinstance(approximate, dict):
            raise _damaged(path, f"approximate is {approximate!r}")
        _check_numbers(approximate, _EFFORT, "approximate.", path)
        report = approximate.get("report")
        if report is not None:
            if not isinstance(report, dict) or set(report) != {*_REPORT, "reached", "parameter"}:
                raise _damaged(path, f"approximate.report is {report!r}")
            _check_numbers(report, _REPORT, "approximate.report.", path)
            if not isinstance(report["reached"], bool) or report["parameter"] not in ("nprobe", "efSearch"):
                raise _damaged(path, f"approximate.report is {report!r}")
    attachments = facts.get("attachments")
    if not isinstance(attachments, dict) or not all(
        isinstance(size, int) and size >= 0 for size in attachments.values()
    ):
        raise _damaged(path, f"attachments is {attachments!r}")


def check_rows(rows: Rows, metric: str, next_id: int, vectors: bool, path: Path) -> None:
    """The table's columns; ``vectors``: those as well, which reads them all."""
    if (rows.alive.view(np.uint8) > 1).any():
        raise _damaged(path, "alive holds what is neither true nor false")
    living = rows.ids[rows.alive]
    if (rows.ids < 0).any():
        raise _damaged(path, f"ids must be at least 0, got {rows.ids.min()}")
    repeated = first_repeated(living)
    if repeated is not None:
        raise _damaged(path, f"ids must not repeat, but {repeated} does")
    if rows.ids.max(initial=-1) >= next_id:
        raise _damaged(path, f"next_id is {next_id}, but there is an id of {rows.ids.max()}")
    if (rows.cameras < NO_CAMERA).any():
        raise _damaged(path, f"cameras must be at least {NO_CAMERA}, got {rows.cameras.min()}")
    if vectors:
        _check_vectors(rows.vectors, metric, path)


def _check_vectors(vectors: np.ndarray, metric: str, path: Path) -> None:
    step = max(1, _CHECKED // vectors.shape[1])
    for first in range(0, len(vectors), step):
        block = vectors[first : first + step]
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("nd,nd->n", block, block, dtype=np.float64)
            wrong = ~(squares <= LARGEST_SQUARE)  # of NaN, too
            if metric == "cosine":
                wrong |= ~(np.abs(squares - 1) <= _UNIT)
        if wrong.any():
            row = int(wrong.argmax())
            length = float(squares[row]) ** 0.5
            raise _damaged(path, f"the vector in row {first + row} has a length of {length:.6g}")


def _check_numbers(
    facts: dict[str, Any], expected: dict[str, tuple[type, float, float]], prefix: str, path: Path
) -> None:
    for name, (kind, least, most) in expected.items():
        value: Any = facts.get(name)
        fits = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        if not fits or not least <= value <= most:
            raise _damaged(path, f"{prefix}{name} is {value!r}")


def _damaged(path: Path, problem: str) -> IndexFileError:
    return IndexFileError(f"{path} is damaged: {problem}")
