"""ROC and TAR@FAR over all query-gallery pairs, exact, without sorting the pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops import _extension

from . import _inputs, _torch_ranks
from ._engine import check_backend, host_blocks, runs_on_host
from ._pairs import own_items

_OP = "verification_curve"
_BLOCK = 1 << 21


@dataclass(frozen=True)
class VerificationReport:
    """Result of :func:`verification_curve`. A pair is accepted when its distance is at most the threshold.

    Attributes:
        tar_at_far: false accept rate asked for -> highest true accept rate at no more than that.
        threshold_at_far: the same rates -> the distance threshold; minus infinity where nothing may be
            accepted.
        auc: area under the ROC: the chance that a genuine pair is nearer than an impostor pair, ties half.
        thresholds, tar, far: float64 ``(T,)``, the ROC at every distance that a genuine pair has; between
            two of them TAR does not change.
        genuine, impostor: numbers of pairs.
    """

    tar_at_far: dict[float, float]
    threshold_at_far: dict[float, float]
    auc: float
    thresholds: np.ndarray = field(repr=False)
    tar: np.ndarray = field(repr=False)
    far: np.ndarray = field(repr=False)
    genuine: int
    impostor: int


def verification_curve(
    distance: np.ndarray | Tensor,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any = None,
    gallery_cameras: Any = None,
    *,
    fars: Iterable[float] = (1e-4, 1e-3, 1e-2),
    junk_id: Any = -1,
    camera_rule: str = "same_identity",
    backend: str = "auto",
) -> VerificationReport:
    """ROC of "same identity or not" over all pairs that the camera and junk rules leave.

    Only the genuine pairs' distances are sorted; each impostor pair is counted between two of them. So the
    curve is exact and memory grows with the genuine pairs alone.

    Args:
        distance: ``(Q, G)``, smaller is better; as for ``evaluate_ranking``.
        query_ids: identities ``(Q,)``, integers or names.
        gallery_ids: identities ``(G,)``.
        query_cameras: cameras ``(Q,)`` or None.
        gallery_cameras: cameras ``(G,)`` or None.
        fars: false accept rates in [0, 1] to report.
        junk_id: as for ``evaluate_ranking``.
        camera_rule: as there.
        backend: as there.

    Returns:
        A :class:`VerificationReport`.

    Raises:
        TypeError, ValueError: as ``evaluate_ranking``; also if there is no genuine or no impostor pair.

    Example:
        >>> verification_curve(np.array([[0.1, 0.4, 0.2]]), [7], [7, 7, 5], fars=(0.0, 1.0)).tar_at_far
        {0.0: 0.5, 1.0: 1.0}
    """
    rates = tuple(float(rate) for rate in fars)
    for rate in rates:
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"{_OP}: fars must be in [0, 1], got {rate}")
    check_backend(backend, _OP)
    pairs = _inputs.pairs(
        distance, query_ids, gallery_ids, query_cameras, gallery_cameras, camera_rule, junk_id, _OP
    )
    found = _inputs.as_torch(pairs.distance)
    own, owner = (
        torch.from_numpy(part).to(found.device)
        for part in own_items(
            pairs.identities, pairs.cameras, pairs.item_identities, pairs.item_cameras, pairs.junk
        )
    )
    genuine = _wide(found[owner, own]).sort().values
    if len(genuine) == 0:
        raise ValueError(f"{_OP}: there is no genuine pair (same identity, not removed)")
    if genuine[-1].isnan():  # sorted to the end
        raise _inputs.nan_error(int(found.isnan().any(1).long().argmax()), _OP)

    thresholds, multiplicity = genuine.unique_consecutive(return_counts=True)
    count = _count_on_host if runs_on_host(found, backend, _OP) else _count_by_torch
    at_most, equal = count(found, pairs, thresholds)
    impostor = int(at_most.sum())
    if impostor == 0:
        raise ValueError(f"{_OP}: there is no impostor pair (other identity, not removed)")

    accepted = at_most.cumsum(0)[:-1]
    tar = (multiplicity.cumsum(0).double() / len(genuine)).cpu().numpy()
    far = (accepted.double() / impostor).cpu().numpy()
    # A genuine pair beats the impostors that are farther, and half of those as far.
    beaten = (impostor - accepted).double() + equal[:-1].double() / 2
    auc = float((beaten * multiplicity).sum() / (len(genuine) * impostor))
    values_at = thresholds.double().cpu().numpy()
    tar_at, threshold_at = {}, {}
    for rate in rates:
        allowed = int(np.searchsorted(far, rate, "right"))
        tar_at[rate] = float(tar[allowed - 1]) if allowed else 0.0
        threshold_at[rate] = float(values_at[allowed - 1]) if allowed else float("-inf")
    return VerificationReport(tar_at, threshold_at, auc, values_at, tar, far, len(genuine), impostor)


def _count_on_host(distance: Tensor, pairs: _inputs.Pairs, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Impostors ``(T + 1,)`` by their lowest threshold not below them, and those equal to it."""
    gallery = _extension._host.Gallery(pairs.item_identities, pairs.item_cameras, pairs.junk, pairs.rule)
    at_most = np.zeros(len(thresholds) + 1, np.int64)
    equal = np.zeros_like(at_most)
    for start, block in host_blocks(distance):
        rows = slice(start, start + block.shape[0])
        cameras = None if pairs.cameras is None else pairs.cameras[rows]
        bad_row, *counts = gallery.count_impostors(
            block, pairs.identities[rows], cameras, thresholds.numpy(), torch.get_num_threads()
        )
        if bad_row >= 0:
            raise _inputs.nan_error(start + bad_row, _OP)
        at_most += counts[0]
        equal += counts[1]
    return torch.from_numpy(at_most), torch.from_numpy(equal)


def _count_by_torch(distance: Tensor, pairs: _inputs.Pairs, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """The same on any device."""
    query = _torch_ranks.Labels.on(distance.device, pairs.identities, pairs.cameras)
    gallery = _torch_ranks.Labels.on(distance.device, pairs.item_identities, pairs.item_cameras)
    at_most = torch.zeros(len(thresholds) + 1, dtype=torch.int64, device=distance.device)
    equal = torch.zeros_like(at_most)
    step = max(1, _BLOCK // distance.shape[1])
    for start in range(0, len(distance), step):
        rows = slice(start, start + step)
        nan = distance[rows].isnan().any(1)
        if nan.any():
            raise _inputs.nan_error(start + int(nan.long().argmax()), _OP)
        labels = query.rows(rows)
        match, removed = _torch_ranks.match_and_removed(labels, gallery, pairs.junk, pairs.rule)
        values = _wide(distance[rows][~match & ~removed & _known(labels, pairs.junk)])
        place = torch.searchsorted(thresholds, values)
        at_most += torch.bincount(place, minlength=len(at_most))
        tied = thresholds[place.clamp(max=len(thresholds) - 1)] == values
        equal += torch.bincount(place[tied], minlength=len(equal))
    return at_most, equal


def _wide(values: Tensor) -> Tensor:
    """Half precision as float32, which every operation exists for."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _known(query: _torch_ranks.Labels, junk_id: int | None) -> Tensor:
    """Whether a query has an identity, ``(B, 1)``: a junk query makes neither genuine nor impostor pairs."""
    if junk_id is None:
        return torch.ones_like(query.identities, dtype=torch.bool)[:, None]
    return (query.identities != junk_id)[:, None]
