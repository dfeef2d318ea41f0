"""HCN's figures: losses of one head (Fig. 3), CMC against AP (Fig. 4). Fig. 5 is ``plot_ranked_lists``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reid_ops.metrics import evaluate_ranking

from ...report import style
from ...report.curves import LONGEST_NAME
from ...report.legends import place_legends, shorten
from ...runs.metrics_log import MetricsLog
from .network import HEADS

#: Fig. 4's ranked lists, right images True: the CMC's rank-1 is 1 for all, AP is 1, 1 and 0.83.
FIGURE_4: Mapping[str, Sequence[bool]] = {
    "(a) one right image": (True, False, False, False, False),
    "(b) two, in front": (True, True, False, False, False),
    "(c) two, one behind": (True, False, True, False, False),
}


def plot_head_losses(
    panels: Mapping[str, Mapping[str, MetricsLog]], *, head: str = "r5", window: int = 1, title: str = ""
) -> Figure:
    """Training losses of one head over iterations, several runs a panel (Fig. 3: R5 of HCN and ResNet-50).

    Args:
        panels: a panel's heading, such as the dataset, -> run -> its log, see
            :func:`reid_models.runs.metrics_log.read_metrics`.
        head: ``"r5"``, ``"c1"`` or ``"c2"``.
        window: logged values that a point is the mean of, at least 1: the last so many.
        title: of the figure.

    Raises:
        ValueError: no panel or run, an unknown head, a run that did not log its loss, or a window below 1.

    Example:
        >>> runs = {name: read_metrics(f"runs/{run}") for name, run in
        ...         {"HCN": "hcn_market1501", "ResNet-50": "hcn_market1501_resnet50"}.items()}
        >>> save_figure(plot_head_losses({"Market-1501": runs}, window=20), "fig3.png")
    """
    op = "plot_head_losses"
    if head not in HEADS:
        raise ValueError(f"{op}: head must be one of {', '.join(HEADS)}, got {head!r}")
    if window < 1:
        raise ValueError(f"{op}: window must be at least 1, got {window}")
    if not panels or not all(panels.values()):
        raise ValueError(f"{op}: panels must hold at least one, each with a run, got {dict(panels)}")
    figure = style.new_figure(4.4 * len(panels), 3.4 + (0.4 if title else 0.0))
    if title:
        style.plain(figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left"))
    drawn: list[tuple[Axes, list[str]]] = []
    for number, (heading, logs) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for index, (name, log) in enumerate(logs.items()):
            column = f"step/cross_entropy({head})"
            if column not in log.columns:
                raise ValueError(f"{op}: {name} must have logged {column}, got {', '.join(log.columns)}")
            steps, losses = log.series(column)
            axes.plot(steps, _smoothed(losses, window), **style.series_style(index, index))
        style.tidy(axes, title=heading, xlabel="iteration", ylabel=f"loss of {head.upper()}")
        drawn.append((axes, [shorten(name, LONGEST_NAME) for name in logs]))
    place_legends(figure, drawn, loc="best")
    return figure


def plot_average_precision(lists: Mapping[str, Sequence[bool]] | None = None, *, title: str = "") -> Figure:
    """Ranked lists as boxes with their rank-1 and AP: lists that CMC does not tell apart (Fig. 4).

    Right images have a green box and a check mark, wrong ones a red box and a cross.

    Args:
        lists: heading -> whether each ranked image is right, nearest first; None: :data:`FIGURE_4`.
        title: of the figure.

    Raises:
        ValueError: no lists, or one without a right image.

    Example:
        >>> save_figure(plot_average_precision(), "fig4.png")
    """
    lists = FIGURE_4 if lists is None else lists
    if not lists:
        raise ValueError("plot_average_precision: lists must hold at least one, got none")
    values = {name: measure_list(hits) for name, hits in lists.items()}
    longest = max(map(len, lists.values()))
    figure = style.new_figure(2.6 + 0.55 * longest, 0.75 * len(lists) + (0.5 if title else 0.15))
    axes = figure.add_subplot()
    axes.set_xlim(-3.6, longest + 0.1)
    axes.set_ylim(len(lists) - 0.1, -0.35)
    axes.set_aspect("equal")
    axes.axis("off")
    if title:
        style.plain(axes.set_title(title, fontsize=style.LARGE, loc="left", fontweight="bold"))
    for row, (name, hits) in enumerate(lists.items()):
        first, precision = values[name]
        style.plain(axes.text(-3.5, row + 0.25, name, fontsize=style.NORMAL, va="center", color=style.INK))
        measured = f"rank-1 {first:g}, AP {precision:.2f}"
        axes.text(-3.5, row + 0.6, measured, fontsize=style.NORMAL, va="center", color=style.QUIET)
        for rank, right in enumerate(hits):
            color = style.RIGHT if right else style.WRONG
            box = Rectangle(
                (rank + 0.08, row), 0.8, 0.8, fill=False, edgecolor=color, linewidth=2.2,
                linestyle="-" if right else (0, (2.2, 1.2)),
            )  # fmt: skip
            axes.add_patch(box)
            mark = "✓" if right else "✗"
            axes.text(rank + 0.48, row + 0.42, mark, ha="center", va="center", color=color)
    return figure


def measure_list(hits: Sequence[bool]) -> tuple[float, float]:
    """The CMC at rank 1 and AP of one ranked list, True where an image is right.

    Raises:
        ValueError: none is right.

    Example:
        >>> measure_list([True, False, True])
        (1.0, 0.8333333333333333)
    """
    if not any(hits):
        raise ValueError(f"measure_list: hits must have a right image, got {list(hits)}")
    distance = np.arange(len(hits), dtype=np.float64)[None]
    report = evaluate_ranking(distance, [1], [1 if hit else 2 for hit in hits], ranks=(1,))
    return float(report.cmc[1]), float(report.mean_ap)


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Means over the last ``window`` values; over fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means
