"""Ranked lists: a probe and the gallery images that one or several methods find for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reid_ops.metrics import RankingReport

from .._suggest import unknown
from ..data import ImageRecord
from ..retrieval.protocol import Protocol
from . import style
from .pictures import load_picture, usual_shape

CHOICES = ("first", "worst", "best", "random", "improved")
FRAME = 2.2  # points
DASHED = (0, (2.2, 1.2))


@dataclass(frozen=True)
class RankedList:
    """What a method finds for one query.

    Attributes:
        query: the probe.
        items: gallery images, nearest first, without those that evaluation removes.
        average_precision: AP of the whole ranking in [0, 1], where it is known.
    """

    query: ImageRecord
    items: tuple[ImageRecord, ...]
    average_precision: float | None = None

    @property
    def correct(self) -> tuple[bool, ...]:
        """Whether each item shows the query's identity."""
        return tuple(item.identity == self.query.identity for item in self.items)


def choose_queries(
    reports: Sequence[RankingReport], count: int, *, how: str = "first", seed: int = 0
) -> list[int]:
    """Rows of queries that are worth a look. Queries without a positive are never chosen.

    Args:
        reports: of the methods to be compared, over the same queries. All choices but ``"improved"`` are made
            by the last of them: the method that the figure is about.
        count: how many, at least 1; fewer come back where there are fewer.
        how: ``"first"``, ``"random"``, by AP ``"worst"`` first or ``"best"`` first, or ``"improved"``: the
            largest rise of AP from the first report to the last. Equal ones by row.
        seed: of ``"random"``, at least 0.

    Raises:
        ValueError: an unknown choice, ``count`` below 1, reports over different queries, or fewer than two of
            them for ``"improved"``.

    Example:
        >>> choose_queries([baseline_report, hsgnet_report], 5, how="improved")
    """
    op = "choose_queries"
    if how not in CHOICES:
        raise unknown("choice of queries", how, CHOICES)
    if count < 1:
        raise ValueError(f"{op}: count must be at least 1, got {count}")
    if not reports:
        raise ValueError(f"{op}: reports must hold at least one, got none")
    if how == "improved" and len(reports) < 2:
        raise ValueError(f'{op}: "improved" needs the reports of two methods, got 1')
    if len({len(report.per_query_ap) for report in reports}) > 1:
        lengths = [len(report.per_query_ap) for report in reports]
        raise ValueError(f"{op}: reports must be over the same queries, got {lengths} queries")
    measured = reports[-1].per_query_ap
    rows = np.flatnonzero(~np.isnan(measured))
    if how == "random":
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    elif how != "first":
        gain = measured - reports[0].per_query_ap if how == "improved" else measured
        key = gain[rows] if how == "worst" else -gain[rows]
        rows = rows[np.argsort(key, kind="stable")]
    return [int(row) for row in rows[:count]]


def ranked_lists(
    chosen: Sequence[int],
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    *,
    distance: np.ndarray | Tensor | None = None,
    indices: np.ndarray | Tensor | None = None,
    top: int = 10,
    same_camera_is_junk: bool = True,
    report: RankingReport | None = None,
) -> list[RankedList]:
    """The lists of chosen queries, as evaluation sees them: without junk and without the query's own camera.

    Args:
        chosen: rows of queries, such as from :func:`choose_queries`.
        query: records (Q).
        gallery: records (G).
        distance: (Q, G), smaller is nearer; equal ones are ranked by gallery row. Or
        indices: (Q, K) gallery rows, nearest first, -1 for none: lists may then be shorter than ``top``,
            since what is removed is removed from these K.
        top: length of the lists, at least 1.
        same_camera_is_junk: leave out images of the query's identity from its own camera.
        report: of these queries, for the AP to show.

    Raises:
        ValueError: not exactly one of ``distance`` and ``indices``, wrong shapes, or a row that is not there.

    Example:
        >>> lists = ranked_lists([0, 7], split.query, split.gallery, distance=1 - similarity, top=10)
        >>> lists[0].correct
        (True, True, False, ...)
    """
    op = "ranked_lists"
    if (distance is None) == (indices is None):
        raise ValueError(f"{op}: exactly one of distance and indices must be given")
    if top < 1:
        raise ValueError(f"{op}: top must be at least 1, got {top}")
    given = _array(distance if indices is None else indices)
    expected = (len(query), len(gallery)) if indices is None else (len(query), given.shape[-1])
    if given.ndim != 2 or given.shape != expected:
        name = "distance" if indices is None else "indices"
        raise ValueError(f"{op}: {name} must have shape {expected}, got {given.shape}")
    identities = np.array([record.identity for record in gallery])
    cameras = np.array([record.camera for record in gallery])
    lists, protocol = [], Protocol(same_camera_is_junk)
    for row in chosen:
        if not 0 <= row < len(query):
            raise ValueError(f"{op}: chosen must be rows in [0, {len(query)}), got {row}")
        probe = query[row]
        order = np.argsort(given[row], kind="stable") if indices is None else given[row][given[row] >= 0]
        kept = order[protocol.counts(probe, identities[order], cameras[order])][:top]
        precision = None if report is None else float(report.per_query_ap[row])
        lists.append(RankedList(probe, tuple(gallery[int(i)] for i in kept), precision))
    return lists


def plot_ranked_lists(lists: Mapping[str, Sequence[RankedList]], *, title: str = "") -> Figure:
    """Probe and ranked lists, several methods one above the other (HCN, Fig. 5; hybrid attention, Fig. 7).

    The probe's frame is black. Right images have a green frame and a check mark, wrong ones a dashed red
    frame and a cross, so that no colour has to be told apart.

    Args:
        lists: method -> lists; the i-th lists of all methods are of the same query.
        title: of the figure.

    Raises:
        ValueError: no lists, or methods with lists of different queries.

    Example:
        >>> save_figure(plot_ranked_lists({"baseline": before, "HSGNet": after}), "ranks.png")
    """
    op = "plot_ranked_lists"
    methods = list(lists)
    if not methods or not lists[methods[0]]:
        raise ValueError(f"{op}: lists must hold at least one list of one method")
    probes = [found.query for found in lists[methods[0]]]
    for method in methods[1:]:
        if [found.query for found in lists[method]] != probes:
            raise ValueError(f"{op}: lists of {method!r} must be of the same queries as {methods[0]!r}")
    top = max(len(found.items) for method in methods for found in lists[method])
    pictures = [load_picture(probe) for probe in probes]
    grid = style.PictureGrid(
        len(probes) * len(methods),
        1 + top,
        usual_shape(pictures),
        title=title,
        left=1.15,
        above=0.2,
        below=0.16,
        breaks=range(0, len(probes) * len(methods), len(methods)),
    )
    for number, (probe, picture) in enumerate(zip(probes, pictures, strict=True)):
        first = number * len(methods)
        axes = grid.cell(first + (len(methods) - 1) / 2, 0, picture, frame=style.PROBE, width=FRAME)
        _write(axes, "probe", style.PROBE, probe)
        for row, method in enumerate(methods, start=first):
            found = lists[method][number]
            precision = found.average_precision
            known = precision is not None and not np.isnan(precision)
            grid.label(row, method, *([f"AP {100 * precision:.1f} %"] if known else []))  # type: ignore[operator]
            for rank, (item, right) in enumerate(zip(found.items, found.correct, strict=True), start=1):
                color = style.RIGHT if right else style.WRONG
                axes = grid.cell(row, rank, load_picture(item), frame=color, width=FRAME)
                if not right:
                    for spine in axes.spines.values():
                        spine.set_linestyle(DASHED)
                _write(axes, f"{rank} {'✓' if right else '✗'}", color, item)
    return grid.figure


def _write(axes: Any, heading: str, color: str, record: ImageRecord) -> None:
    axes.set_title(heading, fontsize=style.NORMAL, color=color, fontweight="bold", pad=3)
    axes.set_xlabel(
        f"id {record.identity}, cam {record.camera}", fontsize=style.SMALL - 1, color=style.QUIET, labelpad=3
    )


def _array(values: Any) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    # numpy has no bfloat16; every half number is a float32.
    return values.float().numpy() if values.dtype in (torch.bfloat16, torch.float16) else values.numpy()
