"""HCN's kinds of ``reid visualize``: Figs. 3 and 4. Fig. 5 is ``ranks``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...report.kinds import FigureKind, FigureOption, FigureRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _draw_head_losses(request: FigureRequest) -> Figure:
    from ...runs.folders import name_paths
    from ...runs.metrics_log import read_metrics
    from .drawing import plot_head_losses

    logs = {name: read_metrics(path) for name, path in name_paths(request.inputs).items()}
    head, window = request.options["head"], request.options["window"]
    return plot_head_losses({request.title or "Training": logs}, head=head, window=window)


def _draw_average_precision(request: FigureRequest) -> Figure:
    from .drawing import plot_average_precision

    return plot_average_precision(title=request.title)


FIGURES = {
    "head_losses": FigureKind(
        "training losses of one of HCN's heads, of runs",
        _draw_head_losses,
        options=(
            FigureOption("head", str, "which", "r5", choices=("r5", "c1", "c2")),
            FigureOption("window", int, "logged values that a point is the mean of", 20),
        ),
    ),
    "average_precision": FigureKind(
        "lists of one rank-1 and different AP, with their boxes", _draw_average_precision, inputs=(0, 0)
    ),
}
