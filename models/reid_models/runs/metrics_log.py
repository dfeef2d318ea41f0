"""The ``metrics.csv`` of a run, as Lightning's CSVLogger writes it."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import METRICS

AXES = ("epoch", "step")


@dataclass(frozen=True)
class MetricsLog:
    """Columns of a log. A row holds the values of one moment, and NaN where a column has none.

    Attributes:
        values: column -> float64 (rows), with ``epoch`` and ``step``.
    """

    values: Mapping[str, np.ndarray]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what was measured, sorted; columns without a value are left out."""
        return tuple(
            name
            for name, values in sorted(self.values.items())
            if name not in AXES and not np.isnan(values).all()
        )

    def series(self, column: str, against: str = "step") -> tuple[np.ndarray, np.ndarray]:
        """A column's values and their steps or epochs, ascending.

        Of several values at one step the last counts: a run that was resumed repeats steps. Infinities stay.

        Raises:
            ValueError: no such column, or ``against`` is neither ``"step"`` nor ``"epoch"``.
        """
        if against not in AXES:
            raise ValueError(f'MetricsLog: against must be "step" or "epoch", got {against!r}')
        if column not in self.values:
            raise ValueError(f"MetricsLog: column must be one of {', '.join(self.columns)}, got {column!r}")
        places, values = self.values[against], self.values[column]
        kept = ~np.isnan(places) & ~np.isnan(values)
        last = dict(zip(places[kept].tolist(), values[kept].tolist(), strict=True))
        order = sorted(last)
        return np.array(order), np.array([last[place] for place in order])


def read_metrics(path: str | os.PathLike[str]) -> MetricsLog:
    """Reads the ``metrics.csv`` of a run folder.

    Args:
        path: the file, or a run folder that has one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a table; the line is named.

    Example:
        >>> steps, losses = read_metrics("runs/hsgnet").series("train/total")
    """
    op = "read_metrics"
    file = Path(path)
    file = file / METRICS if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(f"{op}: path must be a metrics.csv or a run folder with one, got {file}")
    rows: list[dict[str, float]] = []
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            names = list(reader.fieldnames or ())
            missing = [name for name in AXES if name not in names]
            if missing:
                raise ValueError(f"{op}: {file} must have the columns epoch and step: no {missing[0]}")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{op}: line {reader.line_num} of {file} must have {len(names)} values")
                rows.append({name: _number(row[name], reader.line_num, file) for name in names})
    except UnicodeDecodeError as error:
        raise ValueError(f"{op}: {file} must be UTF-8 text ({error})") from None
    except csv.Error as error:
        raise ValueError(f"{op}: {file} must be CSV ({error})") from None
    if not rows:
        raise ValueError(f"{op}: {file} has no rows: nothing was logged yet")
    return MetricsLog({name: np.array([row[name] for row in rows]) for name in names})


def _number(text: str, line: int, file: Path) -> float:
    if text == "":
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"read_metrics: line {line} of {file} must have numbers, got {text!r}") from None
