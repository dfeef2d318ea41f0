"""CMC, mAP and mINP from distances or from top-K lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _inputs, _own, _torch_ranks
from ._engine import Engine
from .report import Measures, RankingReport, make_report

_OP = "evaluate_ranking"


def evaluate_ranking(
    distance: np.ndarray | Tensor | None,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any = None,
    gallery_cameras: Any = None,
    *,
    ranks: Iterable[int] = (1, 5, 10),
    junk_id: Any = -1,
    camera_rule: str = "same_identity",
    average_precision: str = "mean_precision",
    exclude_self: Any = False,
    indices: np.ndarray | Tensor | None = None,
    backend: str = "auto",
) -> RankingReport:
    r"""CMC, mAP and mINP of queries ranked against a gallery (the protocol of Market-1501 and its relatives).

    For each query the gallery loses its junk items and those that ``camera_rule`` names. With the ranks
    :math:`r_1 < \dots < r_P` (from 1) of the P positives among what is left,

    .. math::
        AP = \frac1P \sum_k \frac{k}{r_k}, \qquad INP = \frac{P}{r_P}, \qquad
        CMC(n) = \text{share of queries with } r_1 \le n.

    ``average_precision="trapezoid"`` is the area under the precision-recall curve, as the MATLAB code of
    k-reciprocal re-ranking measures it: :math:`\frac1P \sum_k \frac12 (\frac{k-1}{r_k-1} + \frac{k}{r_k})`,
    where the first fraction is 1 if :math:`r_k = 1`. It is 1 to 2 points lower; papers use either.

    Equal distances are ranked by gallery position. Nothing is sorted but the positives: every rank is a
    count. A query without a positive is excluded from the means and counted in ``report.excluded``.

    Args:
        distance: ``(Q, G)``, smaller is better (negate similarities), float16, float32, float64 or
            bfloat16; infinities are ranked, NaN is refused. CPU matrices are evaluated in C++ by as many
            threads as torch uses, in place (a matrix whose columns are not adjacent, or of half
            precision, a block at a time); CUDA tensors on their device by torch operations. None with
            ``indices``.
        query_ids: identities ``(Q,)``: integers, or names (strings or whatever has a hash), as those of the
            gallery.
        gallery_ids: identities ``(G,)``.
        query_cameras: cameras ``(Q,)``, integers or names; None, together with ``gallery_cameras``, removes
            nothing for cameras, and neither does -1 (or the name "-1"), which is an unknown one.
        gallery_cameras: cameras ``(G,)``.
        ranks: where CMC is reported, from 1.
        junk_id: identity whose items are left out, an integer or a name (-1 is also the name "-1"); None: no
            junk.
        camera_rule: ``"same_identity"`` removes items of the query's identity *and* camera,
            ``"any"`` all items of the query's camera, ``"none"`` nothing.
        average_precision: ``"mean_precision"`` or ``"trapezoid"``.
        exclude_self: leave each query itself out of its ranking (leave-one-out): True where query i is
            gallery item i, else the queries' gallery rows ``(Q,)``, -1 for those that are not in it.
        indices: top-K lists ``(Q, K)`` instead of distances: gallery rows, best first, -1 for no entry.
            Positives beyond the lists count as never found (see :class:`RankingReport`), except that CMC
            up to K less the removed entries is exact.
        backend: ``"auto"``, or ``"host"`` (C++) or ``"torch"`` by name.

    Returns:
        A :class:`RankingReport`, all of it on the CPU.

    Raises:
        TypeError: distances or labels are of an unsupported kind.
        ValueError: shapes disagree, a distance is NaN (the row is named), queries or gallery are empty, a
            list names a row twice or one that is not there, or no query has a positive.

    Example:
        >>> distance = np.array([[0.1, 0.2, 0.3]])
        >>> report = evaluate_ranking(distance, [7], [5, 7, 7], ranks=(1, 2))
        >>> report.cmc, round(report.mean_ap, 4)
        ({1: 0.0, 2: 1.0}, 0.5833)
    """
    _inputs.choice(average_precision, "average_precision", _inputs.AVERAGE_PRECISIONS, _OP)
    wanted = _inputs.rank_list(ranks, _OP)
    if (distance is None) == (indices is None):
        raise ValueError(f"{_OP}: exactly one of distance and indices must be given")
    if indices is not None:
        return _evaluate_lists(
            indices, query_ids, gallery_ids, query_cameras, gallery_cameras, wanted, junk_id, camera_rule,
            average_precision, exclude_self,
        )  # fmt: skip
    given = _inputs.pairs(
        distance, query_ids, gallery_ids, query_cameras, gallery_cameras, camera_rule, junk_id, _OP,
        exclude_self,
    )  # fmt: skip
    engine = Engine(given.item_identities, given.item_cameras, given.junk, given.rule, backend, _OP)
    measures = engine.evaluate(given.distance, given.identities, given.cameras)
    return make_report(measures, wanted, average_precision, engine.used, _OP)


def _evaluate_lists(
    indices: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any,
    gallery_cameras: Any,
    ranks: tuple[int, ...],
    junk_id: Any,
    camera_rule: str,
    average_precision: str,
    exclude_self: Any,
) -> RankingReport:
    lists = _list_tensor(indices)
    queries = lists.shape[0]
    query_identities, gallery_identities, junk = _inputs.identity_arrays(
        query_ids, gallery_ids, queries, None, junk_id, _OP
    )
    items = len(gallery_identities)
    _inputs.not_empty(queries, items, _OP)
    cameras, item_cameras, rule = _inputs.camera_arrays(
        query_cameras, gallery_cameras, camera_rule, queries, items, _OP
    )
    own = _own.own_rows(exclude_self, queries, items, _OP)
    if own is not None:
        cameras, item_cameras, rule = _own.leave_out(
            own, query_identities, gallery_identities, cameras, item_cameras, rule, _OP
        )
    _check_lists(lists, items)
    device = lists.device
    query = _torch_ranks.Labels.on(device, query_identities, cameras)
    gallery = _torch_ranks.Labels.on(device, gallery_identities, item_cameras)
    match, removed = _torch_ranks.match_and_removed(query, gallery, junk, rule, lists.clamp(min=0))
    valid = ~removed & (lists >= 0)
    hit = match & valid
    rank = valid.cumsum(1) - 1
    # Ranks of the hits to the front, ascending; what is behind them is not read.
    ranks_of_hits = torch.where(hit, rank, lists.shape[1]).sort(dim=1).values
    positives = torch.from_numpy(
        count_positives(query_identities, cameras, gallery_identities, item_cameras, junk)
    ).to(device)
    values = _torch_ranks.precisions(ranks_of_hits, hit.sum(1), positives)
    measures = Measures(*(value.cpu().numpy() for value in values))
    return make_report(measures, ranks, average_precision, "torch", _OP)


def _list_tensor(indices: Any) -> Tensor:
    if not isinstance(indices, (np.ndarray, Tensor)):
        raise TypeError(
            f"{_OP}: indices must be a numpy array or a torch.Tensor, got {type(indices).__name__}"
        )
    lists = _inputs.as_torch(indices)
    if lists.is_floating_point() or lists.dtype == torch.bool or lists.is_complex():
        raise TypeError(f"{_OP}: indices must be integers, got {indices.dtype}")
    if lists.dim() != 2 or lists.shape[1] == 0:
        raise ValueError(f"{_OP}: indices must have shape (Q, K) with K >= 1, got {tuple(indices.shape)}")
    return lists.long()


def _check_lists(lists: Tensor, items: int) -> None:
    bad = ((lists < -1) | (lists >= items)).any(1)
    if bad.any():
        row = int(bad.long().argmax())
        raise ValueError(f"{_OP}: indices must be in [-1, {items}), but row {row} has others")
    ordered = lists.sort(dim=1).values
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)
    if twice.any():
        raise ValueError(
            f"{_OP}: indices must name an item once, but row {int(twice.long().argmax())} repeats one"
        )


def count_positives(
    identities: np.ndarray,
    cameras: np.ndarray | None,
    gallery_identities: np.ndarray,
    gallery_cameras: np.ndarray | None,
    junk_id: int | None,
) -> np.ndarray:
    """How many positives the gallery has for each query, int64 ``(Q,)``.

    Either camera rule takes away exactly the items of the query's identity and camera.
    """
    values, codes = np.unique(gallery_identities, return_inverse=True)
    place = np.searchsorted(values, identities)
    known = place < len(values)
    known[known] = values[place[known]] == identities[known]
    if junk_id is not None:
        known &= identities != junk_id
    counts = np.zeros(len(identities), np.int64)
    counts[known] = np.bincount(codes)[place[known]]
    if cameras is None or gallery_cameras is None:
        return counts
    names, camera_codes = np.unique(gallery_cameras, return_inverse=True)
    camera_place = np.searchsorted(names, cameras)
    seen = camera_place < len(names)
    seen[seen] = names[camera_place[seen]] == cameras[seen]
    both, pair_counts = np.unique(codes * len(names) + camera_codes, return_counts=True)
    wanted = place * len(names) + np.minimum(camera_place, len(names) - 1)
    spot = np.minimum(np.searchsorted(both, wanted), len(both) - 1)
    same = known & seen & (both[spot] == wanted)
    counts[same] -= pair_counts[spot[same]]
    return counts
