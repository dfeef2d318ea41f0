"""Curves: CMC of several methods, and losses, learning rate and validation over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reid_ops.metrics import RankingReport

from ..runs.metrics_log import MetricsLog
from .legends import place_legends, shorten
from .style import MARKERS, new_figure, series_style, tidy

LONGEST_NAME = 36  # characters of a method in a legend
VALIDATION = {"val/mAP": "mAP", "val/rank1": "rank-1"}
#: Where losses are, and the learning rate: means over epochs, and values at single steps.
COLUMNS = {"epoch": ("train/", "lr"), "step": ("step/", "step/lr")}


def plot_cmc(
    reports: Mapping[str, RankingReport | Sequence[float]], *, length: int = 20, title: str = "CMC"
) -> Figure:
    """CMC curves of methods, with rank-1 in the legend, and mAP where it is known (HCN, CSN).

    Args:
        reports: method -> its report, or its curve from rank 1 on, in [0, 1]; in the order of the legend.
        length: ranks from 1, at least 2. A curve may be shorter.
        title: of the figure.

    Raises:
        ValueError: no reports, an empty curve or one outside [0, 1], or ``length`` below 2.

    Example:
        >>> save_figure(plot_cmc({"baseline": report, "re-ranked": reranked}), "cmc.svg")
    """
    if not reports:
        raise ValueError("plot_cmc: reports must hold at least one method, got none")
    if length < 2:
        raise ValueError(f"plot_cmc: length must be at least 2, got {length}")
    figure = new_figure(6.2, 4.0)
    axes = figure.add_subplot()
    ranks = np.arange(1, length + 1)
    labels = []
    for index, (name, report) in enumerate(reports.items()):
        curve, means = _cmc(name, report, length)
        axes.plot(
            ranks[: len(curve)],
            curve,
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            markevery=max(1, length // 10),
            **series_style(index, index),
        )
        labels.append(f"{shorten(name, LONGEST_NAME)} (rank-1 {curve[0]:.1f}{means})")
    tidy(axes, title=title, xlabel="rank", ylabel="matching rate (%)")
    axes.set_xlim(0.5, length + 0.5)
    axes.set_xticks(sorted({1, *range(5, length + 1, 5)}))
    place_legends(figure, [(axes, labels)], loc="lower right")
    return figure


def _cmc(name: str, report: RankingReport | Sequence[float], length: int) -> tuple[np.ndarray, str]:
    """A curve in percent, and what else the legend says."""
    if isinstance(report, RankingReport):
        return 100 * report.cmc_curve(length), f", mAP {100 * report.mean_ap:.1f}"
    curve = np.asarray(report, np.float64)
    if curve.ndim != 1 or len(curve) == 0 or not ((curve >= 0) & (curve <= 1)).all():
        raise ValueError(f"plot_cmc: the curve of {name!r} must be numbers in [0, 1], got {report!r}")
    return 100 * curve[:length], ""


def plot_training(
    logs: Mapping[str, MetricsLog], *, against: str = "epoch", title: str = "", stacked: bool = False
) -> Figure:
    """Training of one or several runs: loss, learning rate and validation, each where it was logged.

    Of one run every term of the loss is drawn, of several the total of each (HCN, Fig. 3).

    Args:
        logs: run -> its ``metrics.csv``, see :func:`read_metrics`.
        against: ``"epoch"`` draws the columns ``train/...`` and ``lr``, means over epochs; ``"step"``
            those of single steps, ``step/...``. Validation is ``val/mAP`` and ``val/rank1``.
        title: of the figure.
        stacked: the panels one above the other, for narrow screens.

    Raises:
        ValueError: no logs, another ``against``, or nothing in the logs that is known here.

    Example:
        >>> save_figure(plot_training({"HSGNet": read_metrics("runs/hsgnet/metrics.csv")}), "training.png")
    """
    if not logs:
        raise ValueError("plot_training: logs must hold at least one run, got none")
    if against not in COLUMNS:
        raise ValueError(f'plot_training: against must be "epoch" or "step", got {against!r}')
    losses, rate = COLUMNS[against]
    panels = [
        panel
        for panel in (
            _Panel("Training loss", "loss", _losses(logs, losses, rate)),
            _Panel("Validation", "mAP and rank-1 (%)", _validation(logs), scale=100.0),
            _Panel("Learning rate", "learning rate", _rates(logs, rate)),
        )
        if panel.series
    ]
    if not panels:
        raise ValueError(
            f"plot_training: logs must have columns {losses}..., {rate}, val/mAP or val/rank1, got "
            f"{sorted({column for log in logs.values() for column in log.columns})}"
        )
    across, down = (1, len(panels)) if stacked else (len(panels), 1)
    figure = new_figure(4.4 * across, (3.0 if stacked else 3.4) * down + (0.4 if title else 0.0))
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left").set_parse_math(False)
    drawn: list[Axes] = []
    for number, panel in enumerate(panels, start=1):
        # One x axis for all, so that what happened at the same time is at the same place.
        drawn.append(figure.add_subplot(down, across, number, sharex=drawn[0] if drawn else None))
        _draw(drawn[-1], logs, panel, against)
    places = {x for axes in drawn for line in axes.lines for x in np.asarray(line.get_xdata(), np.float64)}
    if len(places) == 1:  # else there would be fractions of an epoch on the axis
        (place,) = places
        drawn[0].set_xlim(place - 0.5, place + 0.5)
    shown = [
        (axes, [series.label for series in panel.series]) for axes, panel in zip(drawn, panels, strict=True)
    ]
    place_legends(figure, [(axes, labels) for axes, labels in shown if len(labels) > 1], loc="best")
    return figure


class _Series(NamedTuple):
    """A column of a run's log, and how it is drawn: indices of colour and dashes."""

    label: str
    run: str
    column: str
    color: int
    dashes: int


@dataclass(frozen=True)
class _Panel:
    """One axis: its texts and its series."""

    title: str
    unit: str
    series: list[_Series]
    scale: float = 1.0


def _losses(logs: Mapping[str, MetricsLog], prefix: str, rate: str) -> list[_Series]:
    """All terms of one run, or the totals of several."""
    total = f"{prefix}total"
    if len(logs) > 1:
        return [
            _Series(shorten(name, LONGEST_NAME), name, total, i, i)
            for i, (name, log) in enumerate(logs.items())
            if total in log.columns
        ]
    ((name, log),) = logs.items()
    terms = [column for column in log.columns if column.startswith(prefix) and column != rate]
    terms.sort(key=lambda column: column != total)
    return [_Series(term.removeprefix(prefix), name, term, i, i) for i, term in enumerate(terms)]


def _validation(logs: Mapping[str, MetricsLog]) -> list[_Series]:
    """A colour for each run and dashes for each metric."""
    return [
        _Series(what if len(logs) == 1 else f"{shorten(name, LONGEST_NAME)}: {what}", name, column, i, j)
        for i, (name, log) in enumerate(logs.items())
        for j, (column, what) in enumerate(VALIDATION.items())
        if column in log.columns
    ]


def _rates(logs: Mapping[str, MetricsLog], rate: str) -> list[_Series]:
    return [
        _Series(shorten(name, LONGEST_NAME), name, rate, i, i)
        for i, (name, log) in enumerate(logs.items())
        if rate in log.columns
    ]


def _draw(axes: Axes, logs: Mapping[str, MetricsLog], panel: _Panel, against: str) -> None:
    for series in panel.series:
        x, y = logs[series.run].series(series.column, against)
        # A mark for each of few points: a line through one point, and its dashes, can't be seen.
        marker = MARKERS[series.dashes % len(MARKERS)] if len(x) <= 30 else None
        look = series_style(series.color, series.dashes)
        axes.plot(x, panel.scale * y, marker=marker, markersize=3.5, **look)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    tidy(axes, title=panel.title, xlabel=against, ylabel=panel.unit)
