"""HSGNet's kinds of ``reid visualize``: Figs. 6 and 7."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...report.kinds import MANY, FigureKind, FigureOption, FigureRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _draw_stages(request: FigureRequest) -> Figure:
    from ...runs.folders import read_runs
    from .stages import plot_stages, reported_stages, stage_scores

    dataset = request.options["reported"]
    if not request.inputs and dataset is None:
        raise ValueError("stages takes INPUT or --reported")
    reported = reported_stages(dataset) if dataset else None
    measured = stage_scores(read_runs(request.inputs), dataset)
    return plot_stages(measured, reported, title=request.title)


FIGURES = {
    "stages": FigureKind(
        "HSGM behind stages, of runs",
        _draw_stages,
        inputs=(0, MANY),
        options=(FigureOption("reported", str, "the paper's, on market1501 or veri776"),),
    )
}
