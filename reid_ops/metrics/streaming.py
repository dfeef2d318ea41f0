"""Evaluation block by block: the query x gallery matrix need not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from reid_ops import _checks
from reid_ops.rankers.distance import METRICS, comparable, measure
from reid_ops.rankers.inputs import check_values

from . import _inputs, _own
from ._engine import Engine
from .report import Measures, RankingReport, make_report

# Bytes of distances at a time; well below 100 MB with what evaluates them.
_BLOCK_BYTES = 32 << 20
_BLOCK = 1 << 19  # elements of features that are looked at at a time


class RankingAccumulator:
    """Collects queries block by block, then reports as :func:`reid_ops.metrics.evaluate_ranking` would.

    Args:
        gallery_ids: identities ``(G,)``, integers or names.
        gallery_cameras: cameras ``(G,)`` or None; -1 is an unknown one, which removes nothing.
        ranks, junk_id, camera_rule, average_precision, backend: as in ``evaluate_ranking``.

    Raises:
        TypeError, ValueError: as ``evaluate_ranking``.

    Example:
        >>> accumulator = RankingAccumulator([5, 7, 7])
        >>> accumulator.update(np.array([[0.1, 0.2, 0.3]]), [7])
        >>> accumulator.report().cmc[5]
        1.0
    """

    def __init__(
        self,
        gallery_ids: Any,
        gallery_cameras: Any = None,
        *,
        ranks: Iterable[int] = (1, 5, 10),
        junk_id: Any = -1,
        camera_rule: str = "same_identity",
        average_precision: str = "mean_precision",
        backend: str = "auto",
    ) -> None:
        op = self._op = type(self).__name__
        _inputs.choice(average_precision, "average_precision", _inputs.AVERAGE_PRECISIONS, op)
        _inputs.choice(camera_rule, "camera_rule", _inputs.CAMERA_RULES, op)
        self._labels, self._camera_labels = _checks.Labels(op), _checks.Labels(op)
        identities = self._labels.numbers(gallery_ids, "gallery_ids")
        self._cameras = None
        if gallery_cameras is not None and camera_rule != "none":
            self._cameras = self._camera_labels.numbers(gallery_cameras, "gallery_cameras", len(identities))
        rule = "none" if self._cameras is None else camera_rule
        self._ranks = _inputs.rank_list(ranks, op)
        self._average_precision = average_precision
        junk = _inputs.junk(self._labels, junk_id, op)
        self._engine = Engine(identities, self._cameras, junk, rule, backend, op)
        self._blocks: list[Measures] = []
        self._queries = 0

    def update(self, distance: np.ndarray | Tensor, query_ids: Any, query_cameras: Any = None) -> None:
        """Adds queries: distances ``(B, G)``, identities ``(B,)`` and, if the gallery has them, cameras."""
        found = _inputs.matrix(distance, "distance", self._op)
        queries, items = found.shape
        expected = len(self._engine.identities)
        if items != expected:
            raise ValueError(
                f"{self._op}: distance must have shape (B, {expected}), got {tuple(found.shape)}"
            )
        _inputs.not_empty(1, items, self._op)
        identities = self._labels.numbers(query_ids, "query_ids", queries)
        cameras = None
        if self._cameras is not None:
            if query_cameras is None:
                raise ValueError(f"{self._op}: query_cameras must be given, as gallery_cameras were")
            cameras = _own.of_queries(self._camera_labels.numbers(query_cameras, "query_cameras", queries))
        if queries == 0:
            return
        self._blocks.append(self._engine.evaluate(found, identities, cameras, self._queries))
        self._queries += queries

    def report(self) -> RankingReport:
        """The report over all queries so far."""
        _inputs.not_empty(self._queries, 1, self._op)
        measures = Measures.join(self._blocks)
        return make_report(measures, self._ranks, self._average_precision, self._engine.used, self._op)


@_checks.outside_autocast
def evaluate_features(
    query: np.ndarray | Tensor,
    gallery: np.ndarray | Tensor,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any = None,
    gallery_cameras: Any = None,
    *,
    metric: str | Callable[[Tensor, Tensor], Tensor] = "cosine",
    exclude_self: Any = False,
    **options: Any,
) -> RankingReport:
    """Evaluates features without a ``(Q, G)`` matrix: distances are made and used a block at a time.

    Args:
        query: features ``(Q, D)``, float16, bfloat16, float32 or float64.
        gallery: features ``(G, D)``, on the same device. A mapped file (``numpy.load(..., mmap_mode="r")``)
            is read a block at a time and never copied as a whole, unless ``metric`` is a function.
        query_ids: identities ``(Q,)``, integers or names, as in ``evaluate_ranking``.
        gallery_ids: identities ``(G,)``.
        query_cameras: cameras ``(Q,)`` or None.
        gallery_cameras: cameras ``(G,)`` or None.
        metric: ``"cosine"``, ``"euclidean"``, ``"squared_euclidean"``, or a function of (features
            ``(B, D)``, gallery features) that gives distances ``(B, G)``, such as the ``distance`` method of
            a ranker.
        exclude_self: as in ``evaluate_ranking``; True: query i is gallery item i.
        options: the keywords of :class:`RankingAccumulator`.

    Returns:
        A :class:`RankingReport`, the same as from the whole matrix.

    Raises:
        TypeError, ValueError: as ``evaluate_ranking``; features that are not finite name their row.

    Example:
        >>> query, gallery = torch.randn(8, 16), torch.randn(90, 16)
        >>> evaluate_features(query, gallery, torch.arange(8), torch.arange(90) % 9).evaluated
        8
    """
    op = "evaluate_features"
    left = _inputs.as_torch(_inputs.matrix(query, "query", op))
    right = _inputs.as_torch(_inputs.matrix(gallery, "gallery", op))
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"{op}: gallery must have the query's D = {left.shape[1]}, got {right.shape[1]}")
    if left.device != right.device:
        raise ValueError(f"{op}: gallery must be on the device of query ({left.device}), got {right.device}")
    if not callable(metric):
        _inputs.choice(metric, "metric", METRICS, op)
    queries, items = left.shape[0], right.shape[0]
    _inputs.not_empty(queries, items, op)
    for name, features in (("query", left), ("gallery", right)):
        for rows in _blocks(len(features), features.shape[1]):
            check_values(features[rows], name, op, rows.start)
    identities, item_identities, junk = _inputs.identity_arrays(
        query_ids, gallery_ids, queries, items, options.pop("junk_id", -1), op
    )
    rule = options.pop("camera_rule", "same_identity")
    cameras, item_cameras, rule = _inputs.camera_arrays(
        query_cameras, gallery_cameras, rule, queries, items, op
    )
    own = _own.own_rows(exclude_self, queries, items, op)
    if own is not None:
        cameras, item_cameras, rule = _own.leave_out(
            own, identities, item_identities, cameras, item_cameras, rule, op
        )
    accumulator = RankingAccumulator(item_identities, item_cameras, camera_rule=rule, junk_id=junk, **options)
    if callable(metric) and isinstance(gallery, np.ndarray) and not gallery.flags.writeable:
        right = right.clone()  # what a function does with it is not ours to know
    distance = _whole(metric, right) if callable(metric) else _by_blocks(metric, right, op)
    for rows in _blocks(queries, 8 * items, _BLOCK_BYTES):
        accumulator.update(
            distance(left[rows], rows.start), identities[rows], None if cameras is None else cameras[rows]
        )
    return accumulator.report()


_Distance = Callable[[Tensor, int], Tensor]  # of a block of queries, the first of which has that number


def _whole(metric: Callable[[Tensor, Tensor], Tensor], gallery: Tensor) -> _Distance:
    return lambda block, _: metric(block, gallery)


def _by_blocks(metric: str, gallery: Tensor, op: str) -> _Distance:
    """Distances by a block of the gallery at a time, which may be a mapped file, larger than memory."""

    def distance(block: Tensor, first_row: int) -> Tensor:
        block = comparable(block, metric, "query", op, first_row)
        found = block.new_empty(len(block), len(gallery))
        for columns in _blocks(*gallery.shape):
            items = comparable(gallery[columns], metric, "gallery", op, columns.start)
            found[:, columns] = measure(block, items, metric)
        return found

    return distance


def _blocks(rows: int, width: int, most: int = _BLOCK) -> Iterator[slice]:
    """Slices of rows of that width, of about ``most`` elements each."""
    step = max(1, most // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
