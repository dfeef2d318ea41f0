"""Ranked lists: a probe and the gallery images that one or several methods find for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reid_ops.metrics import RankingReport

from .._suggest import unknown
from ..data import ImageRecord
from ..data.records import JUNK
from ..retrieval.protocol import Protocol
from . import style
from .legends import shorten
from .pictures import load_picture, usual_shape

CHOICES = ("first", "worst", "best", "random", "improved")
FRAME = 2.2  # points
DASHED = (0, (2.2, 1.2))
LINE = 0.115  # inches, of a line below an image
WIDTH = 18  # characters of such a line
VERDICTS = {True: (style.RIGHT, " ✓"), False: (style.WRONG, " ✗"), None: (style.QUIET, "")}


@dataclass(frozen=True)
class RankedList:
    """What a method finds for one query.

    Attributes:
        query: the probe.
        items: gallery images, nearest first, without those that evaluation removes.
        average_precision: AP of the whole ranking in [0, 1], where it is known.
        scores: of the items, to be shown; (): none.
    """

    query: ImageRecord
    items: tuple[ImageRecord, ...]
    average_precision: float | None = None
    scores: tuple[float, ...] = field(default=(), compare=False)  # the order is what tells lists apart

    @property
    def correct(self) -> tuple[bool, ...]:
        """Whether each item shows the query's identity."""
        return tuple(item.identity == self.query.identity for item in self.items)

    @property
    def verdicts(self) -> tuple[bool | None, ...]:
        """As :attr:`correct`, None where either identity is not known."""
        known = self.query.identity != JUNK
        return tuple(
            right if known and item.identity != JUNK else None
            for item, right in zip(self.items, self.correct, strict=True)
        )


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
    exclude_self: bool = False,
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
        exclude_self: leave out the query's own image, the one of its name.
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
    own = {record.name: row for row, record in enumerate(gallery)} if exclude_self else {}
    for row in chosen:
        if not 0 <= row < len(query):
            raise ValueError(f"{op}: chosen must be rows in [0, {len(query)}), got {row}")
        probe = query[row]
        order = np.argsort(given[row], kind="stable") if indices is None else given[row][given[row] >= 0]
        counted = protocol.counts(probe, identities[order], cameras[order])
        kept = order[counted & (order != own.get(probe.name, -1))][:top]
        precision = None if report is None else float(report.per_query_ap[row])
        scores = () if indices is not None else tuple(float(given[row][i]) for i in kept)
        lists.append(RankedList(probe, tuple(gallery[int(i)] for i in kept), precision, scores))
    return lists


def plot_ranked_lists(
    lists: Mapping[str, Sequence[RankedList]], *, title: str = "", note: str = "", missing: bool = False
) -> Figure:
    """Probe and ranked lists, several methods one above the other (HCN, Fig. 5; hybrid attention, Fig. 7).

    The probe's frame is black. Right images have a green frame and a check mark, wrong ones a dashed red
    frame and a cross, so that no colour has to be told apart; those of which nothing is known a thin grey
    one. Below each image are its identity and camera, its file's name, and its score, as far as they are
    known.

    Args:
        lists: method -> lists; the i-th lists of all methods are of the same query.
        title: of the figure.
        note: a line at the figure's end.
        missing: show images whose files are gone, or can't be read, as empty ones that say so.

    Raises:
        ValueError: no lists, or methods with lists of different queries.
        FileNotFoundError: an image is gone, without ``missing``.

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
    every = [found for method in methods for found in lists[method]]
    top = max(len(found.items) for found in every)
    load = _load_or_say if missing else load_picture
    pictures = [load(probe) for probe in probes]
    lines = max(len(_lines(*image)) for found in every for image in _shown(found))
    grid = style.PictureGrid(
        len(probes) * len(methods),
        1 + top,
        usual_shape(pictures),
        title=title,
        left=1.15 if any(methods) else 0.0,
        above=0.2,
        below=0.05 + LINE * lines,
        breaks=range(0, len(probes) * len(methods), len(methods)),
        end=0.2 if note else 0.0,
    )
    for number, (probe, picture) in enumerate(zip(probes, pictures, strict=True)):
        first = number * len(methods)
        axes = grid.cell(first + (len(methods) - 1) / 2, 0, picture, frame=style.PROBE, width=FRAME)
        _write(axes, "probe", style.PROBE, _lines(probe, None))
        for row, method in enumerate(methods, start=first):
            found = lists[method][number]
            precision = found.average_precision
            known = precision is not None and not np.isnan(precision)
            if method:
                more = [f"AP {100 * precision:.1f} %"] if known else []  # type: ignore[operator]
                grid.label(row, method, *more)
            shown = zip(_shown(found)[1:], found.verdicts, strict=True)
            for rank, ((item, score), right) in enumerate(shown, start=1):
                color, mark = VERDICTS[right]
                width = style.THIN if right is None else FRAME
                axes = grid.cell(row, rank, load(item), frame=color, width=width)
                if right is False:
                    for spine in axes.spines.values():
                        spine.set_linestyle(DASHED)
                _write(axes, f"{rank}{mark}", color, _lines(item, score))
    if note:
        grid.note(note)
    return grid.figure


def _shown(found: RankedList) -> list[tuple[ImageRecord, float | None]]:
    """The probe and the items, with their scores."""
    scores = found.scores or (None,) * len(found.items)
    return [(found.query, None), *zip(found.items, scores, strict=True)]


def _lines(record: ImageRecord, score: float | None) -> list[str]:
    """What is written below an image."""
    labels = [] if record.identity == JUNK and not record.identity_name else [f"id {record.who}"]
    labels += [f"cam {record.where}"] if record.where else []
    both = ", ".join(labels)
    lines = [both] if len(both) <= WIDTH else labels
    file = os.path.basename(record.name)
    lines += [] if record.content is not None else [file]
    lines += [] if score is None else [f"{score:.4f}"]
    return [shorten(line, WIDTH) for line in lines]


def _load_or_say(record: ImageRecord) -> np.ndarray:
    """The picture, or a grey one with a line across where there is none to be had."""
    try:
        return load_picture(record)
    except (OSError, ValueError):
        empty = np.full((96, 96, 3), 225, np.uint8)
        empty[np.arange(96), np.arange(96)] = empty[np.arange(96), 95 - np.arange(96)] = 150
        return empty


def _write(axes: Any, heading: str, color: str, lines: Sequence[str]) -> None:
    axes.set_title(heading, fontsize=style.NORMAL, color=color, fontweight="bold", pad=3)
    below = axes.set_xlabel("\n".join(lines), fontsize=style.SMALL - 1, color=style.QUIET, labelpad=3)
    style.plain(below)


def _array(values: Any) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    # numpy has no bfloat16; every half number is a float32.
    return values.float().numpy() if values.dtype in (torch.bfloat16, torch.float16) else values.numpy()
