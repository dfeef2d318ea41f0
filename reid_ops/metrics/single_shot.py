"""Single-shot CMC: one gallery image per identity, drawn at random, many times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops import _checks

from . import _inputs
from ._pairs import own_items

_OP = "single_shot_cmc"
_BLOCK = 1 << 22  # elements of the largest temporary


@dataclass(frozen=True)
class SingleShotReport:
    """Result of :func:`single_shot_cmc`.

    Attributes:
        cmc: rank -> share of queries, mean over the draws.
        cmc_std: rank -> standard deviation over the draws (divided by their number).
        per_draw: float64 ``(repeats, len(ranks))``, in the order of the ranks.
        evaluated: queries with a positive.
        excluded: queries without.
    """

    cmc: dict[int, float]
    cmc_std: dict[int, float]
    per_draw: np.ndarray = field(repr=False)
    evaluated: int
    excluded: int


def single_shot_cmc(
    distance: np.ndarray | Tensor,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any = None,
    gallery_cameras: Any = None,
    *,
    ranks: Iterable[int] = (1, 5, 10),
    repeats: int = 100,
    seed: int = 0,
    junk_id: Any = None,
    camera_rule: str = "same_identity",
    exclude_self: Any = False,
) -> SingleShotReport:
    """CMC where each draw keeps one gallery item per identity (CSN, section 4.1; CUHK03, CUHK01, VIPeR).

    Each draw puts the gallery in a random order; an identity is represented by its first item in that
    order that is not removed for the query, hence by each of them equally often. Query and gallery
    are ranked by distance, equal distances by gallery position. The draws depend on ``seed`` and the
    gallery's size alone.

    Args:
        distance: ``(Q, G)``, smaller is better; as for ``evaluate_ranking``.
        query_ids: identities ``(Q,)``, integers or names.
        gallery_ids: identities ``(G,)``.
        query_cameras: cameras ``(Q,)`` or None.
        gallery_cameras: cameras ``(G,)`` or None.
        ranks: where CMC is reported, from 1.
        repeats: number of draws, from 1.
        seed: of the draws; no global random state is read or changed.
        junk_id: as for ``evaluate_ranking``.
        camera_rule: ``"same_identity"`` or ``"none"``.
        exclude_self: as for ``evaluate_ranking``.

    Returns:
        A :class:`SingleShotReport`.

    Raises:
        TypeError, ValueError: as ``evaluate_ranking``.

    Example:
        >>> distance = np.array([[0.3, 0.1, 0.2]])
        >>> single_shot_cmc(distance, [7], [7, 7, 5], ranks=(1,), repeats=1000).cmc[1]  # about a half
        0.517
    """
    wanted = _inputs.rank_list(ranks, _OP)
    _checks.check_integer(repeats, "repeats", 1, None, _OP)
    _inputs.choice(camera_rule, "camera_rule", ("same_identity", "none"), _OP)
    given = _inputs.pairs(
        distance,
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        camera_rule,
        junk_id,
        _OP,
        exclude_self,
    )
    found = _inputs.as_torch(given.distance)
    queries, items = found.shape
    identities, item_identities = given.identities, given.item_identities
    nan = found.isnan().any(1)
    if nan.any():
        raise _inputs.nan_error(int(nan.long().argmax()), _OP)

    own, query_of_pair = own_items(identities, given.cameras, item_identities, given.item_cameras, given.junk)
    evaluated = np.unique(query_of_pair)
    if len(evaluated) == 0:
        raise ValueError(f"{_OP}: no query has a positive in the gallery, got {queries} queries")
    kept = np.arange(items) if given.junk is None else np.flatnonzero(item_identities != given.junk)
    generator = np.random.default_rng(seed)
    shares = np.empty((repeats, len(wanted)))
    for draw in range(repeats):
        priority = generator.permutation(items)
        drawn = _first_of_each(kept, item_identities[kept], priority)
        match = _first_of_each(own, query_of_pair, priority)
        rank = _ranks(found, evaluated, match, drawn, identities, item_identities)
        shares[draw] = [(rank < limit).mean() for limit in wanted]
    mean, deviation = shares.mean(0), shares.std(0)
    return SingleShotReport(
        cmc={rank: float(value) for rank, value in zip(wanted, mean, strict=True)},
        cmc_std={rank: float(value) for rank, value in zip(wanted, deviation, strict=True)},
        per_draw=shares,
        evaluated=len(evaluated),
        excluded=queries - len(evaluated),
    )


def _first_of_each(items: np.ndarray, groups: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Of each group, in ascending order of groups, the item that comes first in ``priority``."""
    order = np.lexsort((priority[items], groups))
    ordered = groups[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    return items[order[first]]


def _ranks(
    distance: Tensor,
    queries: np.ndarray,
    match: np.ndarray,
    drawn: np.ndarray,
    identities: np.ndarray,
    item_identities: np.ndarray,
) -> np.ndarray:
    """Rank from 0 of each query's match among the items drawn for the other identities."""
    device = distance.device
    columns = torch.from_numpy(drawn).to(device)
    owners = torch.from_numpy(item_identities[drawn]).to(device)
    step = max(1, _BLOCK // max(1, len(drawn)))
    parts = []
    for start in range(0, len(queries), step):
        rows = torch.from_numpy(queries[start : start + step]).to(device)
        own = torch.from_numpy(match[start : start + step]).to(device)[:, None]
        names = torch.from_numpy(identities[queries[start : start + step]]).to(device)[:, None]
        others = distance[rows[:, None], columns]
        threshold = distance[rows[:, None], own]
        before = (others < threshold) | ((others == threshold) & (columns < own))
        parts.append((before & (owners != names)).sum(1))
    return torch.cat(parts).cpu().numpy()
