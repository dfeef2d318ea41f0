"""The pairs of one identity, listed instead of looked for among all pairs."""

from __future__ import annotations

import numpy as np


def own_items(
    identities: np.ndarray,
    cameras: np.ndarray | None,
    item_identities: np.ndarray,
    item_cameras: np.ndarray | None,
    junk_id: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(gallery row, query) of every positive, by query. Either camera rule removes the same ones of these."""
    order = np.argsort(item_identities, kind="stable")
    ordered = item_identities[order]
    first = np.searchsorted(ordered, identities, "left")
    count = np.searchsorted(ordered, identities, "right") - first
    if junk_id is not None:
        count[identities == junk_id] = 0
    query = np.repeat(np.arange(len(identities)), count)
    within = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
    items = order[np.repeat(first, count) + within]
    if cameras is not None and item_cameras is not None:
        kept = cameras[query] != item_cameras[items]
        items, query = items[kept], query[kept]
    return items, query
