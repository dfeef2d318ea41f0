"""Queries of one identity and camera that ask together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from reid_ops.metrics import pool_queries

from ..data.records import JUNK
from .features import Features


def pool_features(query: Features, pool: str = "mean") -> Features:
    """One row for all queries of an identity by one camera: their features of length 1, pooled.

    Args:
        query: features; those of unknown cameras, and of identity -1, stay as they are but of length 1.
        pool: ``"mean"`` or ``"max"``.

    Returns:
        Features float32, named after the first query of each row.

    Raises:
        ValueError: another pool.

    Example:
        >>> evaluate_retrieval(pool_features(query), gallery)
    """
    identities, cameras = query.identities.numpy(), query.cameras.numpy()
    pooled, ids, seen = pool_queries(query.features, identities, cameras, pool=pool, normalize=True)
    firsts: dict[tuple[int, int, int], int] = {}
    for row, (identity, camera) in enumerate(zip(identities.tolist(), cameras.tolist(), strict=True)):
        alone = row if JUNK in (identity, camera) else -1
        firsts.setdefault((identity, camera, alone), row)
    assert seen is not None  # cameras were given
    return replace(
        query,
        features=pooled,
        identities=torch.from_numpy(np.asarray(ids)),
        cameras=torch.from_numpy(np.asarray(seen)),
        paths=[query.paths[row] for row in firsts.values()],
    )
