"""The efficiency scatter: accuracy, size and speed of models (HENet, Fig. 1)."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reid_ops.metrics import efficiency_score

from ...report.legends import legend, shorten
from ...report.style import INK, NORMAL, SERIES, SMALL, new_figure, tidy
from ...runs.folders import read_run
from ...runs.models import Trained
from .efficiency import measure_efficiency

EFFICIENCY_FIELDS = ("rank1", "mean_ap", "feature_dim", "volume", "speed")
LARGEST_DOT = 900.0  # square points
LONGEST_NAME = 30  # characters of a model in the legend


def read_measurements(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Reads a CSV file of models: ``name`` and rank1, mean_ap, feature_dim, volume (MB), speed (frames/s).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column or value is missing or no number, or a name comes twice; the line is named.

    Example:
        >>> read_measurements("models.csv")
        {'HPM': {'rank1': 94.2, 'mean_ap': 82.7, 'feature_dim': 3840.0, 'volume': 356.0, 'speed': 82.0}}
    """
    op = "read_measurements"
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{op}: path must be a CSV file, got {file}")
    models: dict[str, dict[str, float]] = {}
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in ("name", *EFFICIENCY_FIELDS) if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{op}: {file} must have the columns name, {', '.join(EFFICIENCY_FIELDS)}: "
                f"no {', '.join(missing)}"
            )
        for row in reader:
            where = f"line {reader.line_num} of {file}"
            if not row["name"] or row["name"] in models:
                raise ValueError(f"{op}: {where}: name must be new and not empty, got {row['name']!r}")
            try:
                models[row["name"]] = {field: float(row[field]) for field in EFFICIENCY_FIELDS}
            except (TypeError, ValueError):
                got = ", ".join(str(row[field]) for field in EFFICIENCY_FIELDS)
                raise ValueError(f"{op}: {where}: must have numbers, got {got}") from None
    return models


def measure_runs(
    networks: Mapping[str, tuple[str | os.PathLike[str], Trained]], **options: Any
) -> dict[str, dict[str, float]]:
    """Rows as of :func:`read_measurements`, of runs that were evaluated; their speed is measured here.

    Args:
        networks: name -> run folder and its network, on the device that is to be measured.
        **options: of :func:`measure_efficiency`.

    Raises:
        ValueError: a run has not been evaluated; before anything is measured.

    Example:
        >>> measure_runs({"HENet": ("runs/henet", load_trained("runs/henet"))})["HENet"]["feature_dim"]
        2560.0
    """
    scores = {}
    for name, (path, _) in networks.items():
        scores[name] = read_run(path).scores.get("plain") if Path(path).is_dir() else None
        if scores[name] is None:
            raise ValueError(f"{path} must be a run that was evaluated: reid evaluate {path}")
    rows = {}
    for name, (_, trained) in networks.items():
        cost, plain = measure_efficiency(trained.model, **options), scores[name] or {}
        values = plain["rank1"], plain["mAP"], cost.feature_length, cost.megabytes, cost.images_per_second
        rows[name] = dict(zip(EFFICIENCY_FIELDS, map(float, values), strict=True))
    return rows


def plot_efficiency(models: Mapping[str, Mapping[str, float]], *, title: str = "") -> Figure:
    """Scatter of mAP against rank-1, the area of a marker for a model's size, with its ES (HENet, Fig. 1).

    Args:
        models: as for :func:`reid_ops.metrics.efficiency_score`: name -> ``rank1``, ``mean_ap`` (percent),
            ``feature_dim``, ``volume`` (MB), ``speed`` (frames a second).
        title: of the figure.

    Raises:
        ValueError: as :func:`reid_ops.metrics.efficiency_score`.

    Example:
        >>> save_figure(plot_efficiency(read_measurements("models.csv")), "efficiency.svg")
    """
    scores = efficiency_score(models)
    figure = new_figure(8.2, 4.2)
    axes = figure.add_subplot()
    largest = max(values["volume"] for values in models.values())
    dots, labels, sizes = [], [], []
    for number, (name, values) in enumerate(models.items(), start=1):
        x, y = values["rank1"], values["mean_ap"]
        color = SERIES[(number - 1) % len(SERIES)]
        sizes.append(LARGEST_DOT * values["volume"] / largest)
        look: dict[str, Any] = {"color": color, "alpha": 0.8, "edgecolors": "white", "linewidths": 0.8}
        axes.scatter([x], [y], s=sizes[-1], zorder=2 - sizes[-1] / LARGEST_DOT, **look)  # small ones on top
        # The middle is marked too: the dot of a small model may be too small to be seen.
        axes.plot([x], [y], marker="+", color=INK, markersize=4, markeredgewidth=0.7, zorder=2.5)
        dots.append(Line2D([], [], marker="o", linestyle="", color=color, markersize=6))
        labels.append(
            f"{number}  {shorten(name, LONGEST_NAME)}: {values['speed']:g} frames/s, "
            f"{values['volume']:g} MB, ES {scores[name].total:.2f}"
        )
    tidy(axes, title=title or "Accuracy, size and speed", xlabel="rank-1 (%)", ylabel="mAP (%)")
    axes.margins(0.15, 0.2)
    legend(
        axes,
        dots,
        labels,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        title="area of the dots: MB",
        title_fontsize=SMALL,
        alignment="left",
    )
    _number_dots(axes, [(values["rank1"], values["mean_ap"]) for values in models.values()], sizes)
    return figure


def _number_dots(axes: Axes, places: Sequence[tuple[float, float]], sizes: Sequence[float]) -> None:
    """Numbers from 1 beside dots of these areas (square points), clear of each other if there is room."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr,no-untyped-call]
    points = 72 / axes.figure.dpi
    taken: list[np.ndarray] = []
    for number, (place, size) in enumerate(zip(places, sizes, strict=True), start=1):
        middle = np.asarray(axes.transData.transform(place)) * points
        beside = np.sqrt(size / np.pi) * np.sqrt(0.5) + 1 + 0.5 * NORMAL  # diagonally, half a number further
        corners = beside * np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)])
        free = [
            corner
            for corner in corners
            if all(np.abs(middle + corner - other).max() > 1.3 * NORMAL for other in taken)
        ]
        corner = free[0] if free else corners[0]
        taken.append(middle + corner)
        axes.annotate(
            str(number), place, tuple(corner), textcoords="offset points",
            ha="center", va="center", fontsize=NORMAL, color=INK, fontweight="bold",
        )  # fmt: skip
