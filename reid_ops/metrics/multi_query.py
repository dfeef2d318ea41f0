"""Several images ask as one: queries of one identity and camera pooled before they are ranked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops import _checks

from . import _inputs, _own
from .report import RankingReport
from .streaming import evaluate_features

_OP = "pool_queries"
POOLS = ("mean", "max", "min")


def pool_queries(
    values: np.ndarray | Tensor,
    query_ids: Any,
    query_cameras: Any = None,
    *,
    pool: str = "mean",
    normalize: bool = False,
) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """One row for all queries of an identity and a camera: of features, or of distances to a gallery.

    Queries whose camera is not known (-1) are not of one camera: each stays a row of its own, as do those of
    identity -1, which is nobody's.

    Args:
        values: ``(Q, D)`` features or ``(Q, G)`` distances, numpy or torch.
        query_ids: identities ``(Q,)``, integers or names.
        query_cameras: cameras ``(Q,)``, likewise; None: all queries of an identity are one.
        pool: ``"mean"``, ``"max"`` or ``"min"`` over the rows (of distances, ``"min"`` is the nearest image).
        normalize: bring rows to length 1 first, as Market-1501's multi-query does with features.

    Returns:
        values ``(P, D)``, float32 at least, of the kind that was given; identities ``(P,)``, int64 or the
        names; cameras ``(P,)`` likewise, or None. Rows are in the order in which their first query comes.

    Raises:
        TypeError, ValueError: an argument is of another kind or shape.

    Example:
        >>> pooled, ids, cameras = pool_queries(np.eye(3, dtype=np.float32), [7, 7, 8], [0, 0, 1])
        >>> pooled.tolist(), ids.tolist()
        ([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [7, 8])
    """
    _inputs.choice(pool, "pool", POOLS, _OP)
    given = _inputs.matrix(values, "values", _OP)
    found = _inputs.as_torch(given)
    identities = _checks.label_array(query_ids, "query_ids", _OP, len(found))
    cameras = None
    if query_cameras is not None:
        cameras = _checks.label_array(query_cameras, "query_cameras", _OP, len(found))
    numbers = None if cameras is None else _checks.Labels(_OP).numbers(cameras, "query_cameras")
    group, first = _groups(_checks.Labels(_OP).numbers(identities, "query_ids"), numbers)
    rows = found if found.dtype == torch.float64 else found.float()
    if normalize:
        rows = torch.nn.functional.normalize(rows, dim=1)
    place = torch.from_numpy(group).to(rows.device)[:, None].expand_as(rows)
    kind = {"mean": "mean", "max": "amax", "min": "amin"}[pool]
    pooled = rows.new_zeros(len(first), rows.shape[1]).scatter_reduce_(
        0, place, rows, kind, include_self=False
    )
    return (
        pooled if isinstance(values, Tensor) else pooled.numpy(),
        identities[first],
        None if cameras is None else cameras[first],
    )


def evaluate_multi_query(
    query: np.ndarray | Tensor,
    gallery: np.ndarray | Tensor,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any = None,
    gallery_cameras: Any = None,
    *,
    pool: str = "mean",
    normalize: bool = True,
    **options: Any,
) -> RankingReport:
    """Evaluates features where the images of an identity by one camera ask together (multi-query).

    Args:
        query: features ``(Q, D)``.
        gallery: features ``(G, D)``.
        query_ids: identities ``(Q,)``.
        gallery_ids: identities ``(G,)``.
        query_cameras: cameras ``(Q,)`` or None, see :func:`pool_queries`.
        gallery_cameras: cameras ``(G,)`` or None.
        pool: ``"mean"`` or ``"max"`` over the features of a group.
        normalize: bring features to length 1 before they are pooled.
        options: of :func:`evaluate_features`; the report has an entry a group.

    Raises:
        TypeError, ValueError: as these functions.

    Example:
        >>> query, gallery = torch.randn(8, 16), torch.randn(90, 16)
        >>> ids, cameras = torch.arange(8) % 4, torch.zeros(8).long()
        >>> item_ids, item_cameras = torch.arange(90) % 9, torch.ones(90).long()
        >>> evaluate_multi_query(query, gallery, ids, item_ids, cameras, item_cameras).evaluated
        4
    """
    pooled, ids, cameras = pool_queries(query, query_ids, query_cameras, pool=pool, normalize=normalize)
    return evaluate_features(pooled, gallery, ids, gallery_ids, cameras, gallery_cameras, **options)


def _groups(identities: np.ndarray, cameras: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The group ``(Q,)`` of each query, numbered as they first come, and the first query ``(P,)`` of each."""
    alone = identities == _own.UNKNOWN
    seen = np.zeros_like(identities) if cameras is None else cameras
    if cameras is not None:
        alone = alone | (cameras == _own.UNKNOWN)
    rows = np.where(alone, np.arange(len(identities)), -1)
    keys = np.stack([identities, seen, rows], axis=1)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return np.argsort(order)[group.reshape(-1)], first[order]
