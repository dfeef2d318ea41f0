"""Reports: figures of networks, runs and datasets, and pages of them.

Figures are matplotlib figures that pyplot does not know of; :func:`save_figure` writes them, and
:class:`Report` puts them into an HTML file that stands alone.
"""

from ..runs.folders import Run, name_paths, read_run, read_runs
from ..runs.metrics_log import MetricsLog, read_metrics
from .bars import plot_efficiency, plot_stages, read_measurements, reported_stages, stage_scores
from .cam import grad_cam, plot_cam_panels
from .curves import plot_cmc, plot_training
from .html import Code, Picture, Report, Section, Table, Text
from .montage import plot_montage
from .ranked_lists import RankedList, choose_queries, plot_ranked_lists, ranked_lists
from .retrieval import Retrieval, draw_cam, draw_records, list_dataset, rank_dataset, rank_features
from .run_report import describe_machine, picture_sections, report_runs
from .style import save_figure

__all__ = [
    "Code",
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
    "plot_efficiency",
    "plot_montage",
    "plot_ranked_lists",
    "plot_stages",
    "plot_training",
    "rank_dataset",
    "rank_features",
    "ranked_lists",
    "read_measurements",
    "read_metrics",
    "read_run",
    "read_runs",
    "report_runs",
    "reported_stages",
    "save_figure",
    "stage_scores",
]
