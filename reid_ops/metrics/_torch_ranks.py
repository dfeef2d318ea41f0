"""Ranks of the positives in plain torch operations, on any device: what CUDA tensors are evaluated with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .report import Measures

# Elements of the largest temporary; a GPU wants larger blocks than a cache does.
_BLOCK = {"cpu": 1 << 18, "cuda": 1 << 24}


@dataclass(frozen=True)
class Labels:
    """Identities ``(N,)`` and, unless the rule is "none", cameras ``(N,)`` of queries or gallery items."""

    identities: Tensor
    cameras: Tensor | None

    @staticmethod
    def on(device: torch.device, identities: np.ndarray, cameras: np.ndarray | None) -> Labels:
        """The same labels as tensors on a device."""
        moved = None if cameras is None else torch.from_numpy(cameras).to(device)
        return Labels(torch.from_numpy(identities).to(device), moved)

    def rows(self, chosen: slice) -> Labels:
        """Some of the queries."""
        return Labels(self.identities[chosen], None if self.cameras is None else self.cameras[chosen])


def match_and_removed(
    query: Labels, gallery: Labels, junk: int | None, rule: str, items: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Which items have the query's identity, and which are left out; bool ``(Q, G)`` or as ``items``.

    ``items`` ``(Q, K)`` picks gallery rows per query; without it all are taken.
    """
    identities = gallery.identities[items] if items is not None else gallery.identities
    match = identities == query.identities[:, None]
    removed = torch.zeros_like(match)
    if junk is not None:
        removed = removed | (identities == junk)
    if rule != "none":
        assert query.cameras is not None and gallery.cameras is not None
        cameras = gallery.cameras[items] if items is not None else gallery.cameras
        same_camera = cameras == query.cameras[:, None]
        removed = removed | (same_camera & match if rule == "same_identity" else same_camera)
    return match, removed


def evaluate(
    distance: Tensor, query: Labels, gallery: Labels, junk: int | None, rule: str
) -> tuple[Measures, int]:
    """Measures of all queries, and the lowest row with a NaN or -1. Blocks of queries bound the memory."""
    limit = _BLOCK.get(distance.device.type, _BLOCK["cpu"])
    step = max(1, limit // max(1, distance.shape[1]))
    blocks = []
    for start in range(0, distance.shape[0], step):
        chosen = slice(start, start + step)
        blocks.append(_block(distance[chosen], query.rows(chosen), gallery, junk, rule))
    positives, first, last, mean, area, nan = (
        torch.cat(parts).cpu().numpy() for parts in zip(*blocks, strict=True)
    )
    bad_row = int(nan.argmax()) if nan.any() else -1
    return Measures(positives, first, last, mean, area), bad_row


def _block(
    distance: Tensor, query: Labels, gallery: Labels, junk: int | None, rule: str
) -> tuple[Tensor, ...]:
    """Positives, first and last rank, both average precisions and "has NaN", each ``(B,)``."""
    if distance.dtype in (torch.float16, torch.bfloat16):
        distance = distance.float()  # exact, and every operation below exists for it
    match, removed = match_and_removed(query, gallery, junk, rule)
    thresholds, positions, count = _sorted_positives(distance, match & ~removed)
    place = _place(distance, thresholds, positions)
    histogram = torch.zeros(
        distance.shape[0], thresholds.shape[1] + 1, dtype=torch.int64, device=distance.device
    )
    histogram.scatter_add_(1, place, (~removed).long())
    # An item of place p comes before the positives p, p + 1, ...; a positive's own place is one further.
    ranks = histogram.cumsum(1)[:, :-1]
    return (*precisions(ranks, count, count), distance.isnan().any(1))


def _sorted_positives(distance: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances and positions ``(B, P)`` of the positives in ranking order, and how many each query has.

    P is a power of two less one. What is beyond a query's positives lies behind every item.
    """
    rows, columns = positive.nonzero(as_tuple=True)
    count = positive.sum(1)
    most = int(count.max())
    width = (1 << most.bit_length()) - 1
    shape = (distance.shape[0], max(width, 1))
    slot = torch.arange(len(rows), device=distance.device) - (count.cumsum(0) - count)[rows]
    thresholds = distance.new_full(shape, float("inf"))
    positions = torch.full(shape, distance.shape[1], device=distance.device)
    thresholds[rows, slot] = distance[rows, columns]
    positions[rows, slot] = columns
    thresholds, order = thresholds.sort(dim=1, stable=True)  # slots are in order of position
    return thresholds, positions.gather(1, order), count


def _place(distance: Tensor, thresholds: Tensor, positions: Tensor) -> Tensor:
    """How many positives come before or are each item, int64 ``(B, G)``: bisection of all items at once."""
    item = torch.arange(distance.shape[1], device=distance.device)
    place = torch.zeros(distance.shape, dtype=torch.int64, device=distance.device)
    step = (thresholds.shape[1] + 1) // 2
    while step > 0:
        probe = place + (step - 1)
        threshold = thresholds.gather(1, probe)
        passed = (threshold < distance) | ((threshold == distance) & (positions.gather(1, probe) <= item))
        place += passed * step
        step //= 2
    return place


def precisions(ranks: Tensor, found: Tensor, positives: Tensor) -> tuple[Tensor, ...]:
    """Positives, first and last rank and both average precisions from ascending ranks ``(B, P)``.

    The first ``found`` ranks of a row count; where fewer were found than there are positives, the last
    rank is unknown (-1) and what is missing adds nothing to the average precisions.
    """
    index = torch.arange(ranks.shape[1], device=ranks.device)
    counted = index < found[:, None]
    rank = ranks.double()
    precision = (index + 1) / (rank + 1)
    before = torch.where(ranks == 0, 1.0, index / rank.clamp(min=1))
    total = positives.clamp(min=1)
    mean = (precision * counted).sum(1) / total
    area = ((precision + before) / 2 * counted).sum(1) / total
    none = torch.full_like(found, -1)
    first = torch.where(found > 0, ranks[:, 0], none)
    final = ranks.gather(1, (found - 1).clamp(min=0)[:, None])[:, 0]
    last = torch.where((found > 0) & (found == positives), final, none)
    return positives, first, last, mean, area
