"""HSGNet's Figs. 6 and 7: where the module stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..._suggest import unknown
from ...recipes import load_recipe
from ...report.legends import legend
from ...report.style import INK, NORMAL, QUIET, SERIES, SMALL, new_figure, plain, tidy
from ...runs.folders import Run
from ...runs.measures import SHARES

#: Places of HSGM in Figs. 6 and 7, and how their recipes' names end.
PLACES = {"baseline": "baseline", "S1": "s1", "S2": "s2", "S3": "hsgnet", "S4": "s4"}
DATASETS = ("market1501", "veri776")

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
    if dataset not in DATASETS:
        raise unknown("dataset of HSGNet's Figs. 6 and 7", dataset, DATASETS)
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
