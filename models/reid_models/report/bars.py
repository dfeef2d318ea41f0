"""Insertion-stage bars and the efficiency scatter."""

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
from matplotlib.patches import Patch

from reid_ops.metrics import efficiency_score

from .._suggest import unknown
from ..recipes import list_recipes, load_recipe
from ..runs.folders import Run
from ..runs.measures import SHARES
from .legends import legend, shorten
from .style import INK, NORMAL, QUIET, SERIES, SMALL, new_figure, plain, tidy

EFFICIENCY_FIELDS = ("rank1", "mean_ap", "feature_dim", "volume", "speed")
#: Places of HSGM in HSGNet's Figs. 6 and 7, and how their recipes' names end.
PLACES = {"baseline": "baseline", "S1": "s1", "S2": "s2", "S3": "hsgnet", "S4": "s4"}
LARGEST_DOT = 900.0  # square points
LONGEST_NAME = 30  # characters of a model in the legend

Scores = Mapping[str, float]


def plot_stages(
    measured: Mapping[str, Scores],
    reported: Mapping[str, Scores] | None = None,
    *,
    baseline: str = "baseline",
    metrics: Sequence[str] = ("rank1", "mAP"),
    title: str = "",
) -> Figure:
    """Bars for each place of HSGM (HSGNet, Figs. 6 and 7): what was measured beside what the paper reports.

    A place without a value has no bar: "not run" stands where the measured one would be. The axis does not
    start at 0, since the differences are small; it says where.

    Args:
        measured: place -> metric -> percent, as far as there are any: ``{"S1": {"mAP": 76.9}, "S2": {}}``.
        reported: the same, of the paper.
        baseline: the place whose values become dashed lines as well.
        metrics: one axis for each.
        title: of the figure.

    Raises:
        ValueError: no places, no metrics, no value at all, or one outside [0, 100].

    Example:
        >>> plot_stages({"S3": {"rank1": 95.2}}, {"baseline": {"rank1": 93.8}, "S3": {"rank1": 95.0}})
    """
    op = "plot_stages"
    paper = reported or {}
    places = [*paper, *(place for place in measured if place not in paper)]
    if not places or not metrics:
        raise ValueError(f"{op}: measured and reported must name a place, and metrics a metric")
    values = [
        float(scores[m])
        for side in (measured, paper)
        for scores in side.values()
        for m in metrics
        if m in scores
    ]
    if not values:
        raise ValueError(f"{op}: measured or reported must have a value of {', '.join(metrics)}")
    if not all(0 <= value <= 100 for value in values):
        raise ValueError(f"{op}: values must be percentages in [0, 100], got {values}")
    sides = [("reported", paper), ("measured", measured)] if paper else [("measured", measured)]
    figure = new_figure(max(3.4, 0.65 * len(places) + 1.0) * len(metrics), 3.4 + (0.4 if title else 0.0))
    if title:
        plain(figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left"))
    for number, metric in enumerate(metrics, start=1):
        _draw_bars(figure.add_subplot(1, len(metrics), number), places, sides, metric, baseline)
    return figure


def reported_stages(dataset: str) -> dict[str, dict[str, float]]:
    """What HSGNet reports for each place of the module, as far as it is printed, for :func:`plot_stages`.

    Args:
        dataset: ``"market1501"`` or ``"veri776"``.

    Raises:
        ValueError: another dataset.
    """
    known = [name.removesuffix("_s1") for name in list_recipes() if name.endswith("_s1")]
    if dataset not in known:
        raise unknown("dataset of HSGNet's Figs. 6 and 7", dataset, known)
    return {place: dict(load_recipe(f"{dataset}_{suffix}").targets) for place, suffix in PLACES.items()}


def stage_scores(runs: Sequence[Run], dataset: str | None = None) -> dict[str, dict[str, float]]:
    """Results of runs by the place of HSGM, for :func:`plot_stages`: ``baseline``, ``S3``, ``S1+S2``.

    Args:
        runs: of one dataset, evaluated.
        dataset: which; None: that of the first run.

    Raises:
        ValueError: a run has no recipe of the baseline or HSGNet, is of another dataset or not evaluated, or
            two have the same place.
    """
    op = "stage_scores"
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        network = run.setting("model", "network")
        if network not in ("baseline", "hsgnet"):
            raise ValueError(f"{op}: {run.path} must be a run of baseline or hsgnet, got {network!r}")
        dataset = dataset or run.setting("data", "dataset")
        if run.setting("data", "dataset") != dataset:
            got = run.setting("data", "dataset")
            raise ValueError(f"{op}: {run.path} must be a run on {dataset}, got {got}")
        if "plain" not in run.scores:
            raise ValueError(f"{op}: {run.path} is not evaluated: `reid evaluate {run.path}` does it")
        stages = run.setting("model", "options", "stages") or (3,)
        place = "baseline" if network == "baseline" else "+".join(f"S{stage}" for stage in sorted(stages))
        if place in found:
            raise ValueError(f"{op}: runs must differ in their stages, but {place} comes twice ({run.path})")
        found[place] = dict(run.scores["plain"])
    return found


def _draw_bars(
    axes: Axes,
    places: Sequence[str],
    sides: Sequence[tuple[str, Mapping[str, Scores]]],
    metric: str,
    baseline: str,
) -> None:
    """One metric: bars side by side at every place."""
    name = SHARES.get(metric, metric)
    known = [scores[metric] for _, side in sides for scores in side.values() if metric in scores]
    if not known:
        tidy(axes, title=name)
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "not run, and the paper gives no numbers", ha="center", color=QUIET, fontsize=NORMAL
        )
        return
    spread = max(known) - min(known)
    bottom = max(0.0, np.floor(min(known) - max(spread, 1.0) * 0.5))
    top = min(106.0, max(known) + max(spread, 1.0) * 0.35)  # room for numbers, but no mark above 100
    width = 0.76 / len(sides)
    for index, (side, scores_of) in enumerate(sides):
        color = SERIES[0] if side == "measured" else "#b9c7d3"
        for position, place in enumerate(places):
            x = position + (index - (len(sides) - 1) / 2) * width
            value = scores_of.get(place, {}).get(metric)
            if value is not None:
                axes.bar(x, value - bottom, width * 0.94, bottom=bottom, color=color)
                axes.text(x, value, f"{value:.1f}", ha="center", va="bottom", fontsize=SMALL, color=INK)
            elif side == "measured":
                place_text = axes.text(x, bottom, " not run", ha="center", va="bottom", rotation=90)
                place_text.set(fontsize=SMALL, color=QUIET)
        level = scores_of.get(baseline, {}).get(metric)
        if level is not None:
            axes.axhline(level, color=color, linestyle=(0, (4, 2)), linewidth=1.0, zorder=0.5)
    handles = [Patch(color=SERIES[0] if side == "measured" else "#b9c7d3") for side, _ in sides]
    start = f" (axis from {bottom:g})" if bottom > 0 else ""
    tidy(axes, title=name, ylabel=f"{name} (%){start}")
    axes.grid(False, axis="x")
    axes.set_ylim(bottom, top)
    axes.set_xlim(-0.6, len(places) - 0.4)
    axes.set_xticks(range(len(places)), places, parse_math=False)
    legend(
        axes,
        handles,
        [side for side, _ in sides],
        loc="upper left",
        ncols=len(sides),
        bbox_to_anchor=(0, -0.1),
    )


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
