"""Reports: figures of networks, runs and datasets, and pages of them.

Figures are matplotlib figures that pyplot does not know of; :func:`save_figure` writes them, and
:class:`Report` puts them into an HTML file that stands alone. A kind of ``reid visualize`` is a
:class:`FigureKind`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..runs.folders import Run, name_paths, read_run, read_runs
    from ..runs.metrics_log import MetricsLog, read_metrics
    from .cam import draw_cam, grad_cam, plot_cam_panels
    from .curves import plot_cmc, plot_training
    from .html import Code, Picture, Report, Section, Table, Text
    from .kinds import FIGURES, FigureKind, FigureOption, FigureRequest
    from .lists import RankedList, choose_queries, plot_ranked_lists, ranked_lists
    from .montage import plot_montage
    from .pictures import draw_records
    from .retrieval import Retrieval, list_dataset, rank_dataset, rank_features
    from .run_report import describe_machine, picture_sections, report_runs
    from .style import save_figure

__all__ = [
    "FIGURES",
    "Code",
    "FigureKind",
    "FigureOption",
    "FigureRequest",
    "MetricsLog",
    "Picture",
    "RankedList",
    "Report",
    "Retrieval",
    "Run",
    "Section",
    "Table",
    "Text",
    "choose_queries",
    "describe_machine",
    "draw_cam",
    "draw_records",
    "grad_cam",
    "list_dataset",
    "name_paths",
    "picture_sections",
    "plot_cam_panels",
    "plot_cmc",
    "plot_montage",
    "plot_ranked_lists",
    "plot_training",
    "rank_dataset",
    "rank_features",
    "ranked_lists",
    "read_metrics",
    "read_run",
    "read_runs",
    "report_runs",
    "save_figure",
]

_HOMES = {
    "..runs.folders": ("Run", "name_paths", "read_run", "read_runs"),
    "..runs.metrics_log": ("MetricsLog", "read_metrics"),
    ".cam": ("draw_cam", "grad_cam", "plot_cam_panels"),
    ".curves": ("plot_cmc", "plot_training"),
    ".html": ("Code", "Picture", "Report", "Section", "Table", "Text"),
    ".kinds": ("FIGURES", "FigureKind", "FigureOption", "FigureRequest"),
    ".montage": ("plot_montage",),
    ".pictures": ("draw_records",),
    ".lists": ("RankedList", "choose_queries", "plot_ranked_lists", "ranked_lists"),
    ".retrieval": ("Retrieval", "list_dataset", "rank_dataset", "rank_features"),
    ".run_report": ("describe_machine", "picture_sections", "report_runs"),
    ".style": ("save_figure",),
}


def __getattr__(name: str) -> Any:
    """Names when first asked for: `reid visualize --help` needs the kinds alone, and not what draws them."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
