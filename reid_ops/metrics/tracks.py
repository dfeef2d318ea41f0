"""Image-to-track evaluation: the gallery consists of tracks, images of one vehicle from one camera."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops import _checks

from . import _inputs
from .ranking import evaluate_ranking
from .report import RankingReport

_OP = "evaluate_tracks"
_REDUCTIONS = {"min": "amin", "mean": "mean"}
_BLOCK = 1 << 22  # elements of the largest temporary


def evaluate_tracks(
    distance: np.ndarray | Tensor,
    query_ids: Any,
    gallery_ids: Any,
    gallery_tracks: Any,
    query_cameras: Any = None,
    gallery_cameras: Any = None,
    *,
    reduce: str = "min",
    **options: Any,
) -> RankingReport:
    """CMC (VeRi's HIT@k), mAP and mINP of query images ranked against tracks: VeRi-776's first protocol.

    A query is as far from a track as from its nearest image; tracks of the query's identity and camera are
    left out. Equal distances are ranked by a track's first image.

    Args:
        distance: image to image, ``(Q, G)``, smaller is better; as for ``evaluate_ranking``.
        query_ids: identities ``(Q,)``, integers or names.
        gallery_ids: identities ``(G,)`` of the images.
        gallery_tracks: the track of each image ``(G,)``, integers or names; of one identity and one camera.
        query_cameras: cameras ``(Q,)`` or None.
        gallery_cameras: cameras ``(G,)`` or None.
        reduce: ``"min"``, or ``"mean"`` of the distances to a track's images.
        options: the keywords of ``evaluate_ranking``.

    Returns:
        A :class:`RankingReport` over tracks.

    Raises:
        TypeError, ValueError: as ``evaluate_ranking``; a track of two identities or cameras is named.

    Example:
        >>> distance = np.array([[0.1, 0.9, 0.2, 0.3]])
        >>> evaluate_tracks(distance, [7], [5, 7, 7, 5], [0, 1, 1, 2]).cmc[5]  # tracks at 0.1, 0.2 and 0.3
        1.0
    """
    _inputs.choice(reduce, "reduce", tuple(_REDUCTIONS), _OP)
    found = _inputs.as_torch(_inputs.matrix(distance, "distance", _OP))
    queries, items = found.shape
    _inputs.not_empty(queries, items, _OP)
    identities = _checks.label_array(gallery_ids, "gallery_ids", _OP, items)
    tracks = _checks.label_array(gallery_tracks, "gallery_tracks", _OP, items)
    cameras = None
    if gallery_cameras is not None:
        cameras = _checks.label_array(gallery_cameras, "gallery_cameras", _OP, items)

    number = _checks.Labels(_OP).numbers(tracks, "gallery_tracks")
    _, first, track = np.unique(number, return_index=True, return_inverse=True)
    for what, labels in (("identity", identities), ("camera", cameras)):
        if labels is not None and (labels != labels[first][track]).any():
            name = tracks[(labels != labels[first][track]).argmax()]
            raise ValueError(f"{_OP}: gallery_tracks must have one {what} each, but track {name} has several")
    order = np.argsort(first)  # tracks by first appearance
    place = np.argsort(order)[track]
    return evaluate_ranking(
        _track_distances(found, torch.from_numpy(place).to(found.device), len(first), _REDUCTIONS[reduce]),
        query_ids,
        identities[first[order]],
        query_cameras,
        None if cameras is None else cameras[first[order]],
        **options,
    )


def _track_distances(distance: Tensor, track: Tensor, tracks: int, reduction: str) -> Tensor:
    """Distances ``(Q, tracks)``; NaN goes through and is found by the evaluation."""
    wide = distance.dtype if distance.dtype == torch.float64 else torch.float32
    result = torch.empty(len(distance), tracks, dtype=wide, device=distance.device)
    step = max(1, _BLOCK // distance.shape[1])
    for start in range(0, len(distance), step):
        rows = distance[start : start + step].to(wide)
        block = result[start : start + step]
        block.scatter_reduce_(1, track.expand_as(rows), rows, reduction, include_self=False)
    return result
