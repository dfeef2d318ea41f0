"""Queries that are items of the gallery themselves, and cameras that are not known.

Both are told by cameras alone: what is left out of a ranking is what has the query's identity and camera, so
a camera that no item has leaves nothing out, and one that only a single item has leaves out that one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reid_ops import _checks

UNKNOWN = -1
NOWHERE = -(2**63)  # a query's camera that no item has


def of_queries(cameras: np.ndarray) -> np.ndarray:
    """The queries' cameras, where one that is not known is no item's."""
    return np.where(cameras == UNKNOWN, NOWHERE, cameras)


def own_rows(exclude_self: Any, queries: int, items: int, op: str) -> np.ndarray | None:
    """Each query's own gallery row, int64 ``(Q,)``, -1 for none; None where nothing is to be left out."""
    if exclude_self is None or exclude_self is False:
        return None
    if exclude_self is True:
        if queries != items:
            raise ValueError(
                f"{op}: exclude_self=True needs a gallery of the {queries} queries, in their order, got "
                f"{items} items; or give the gallery row of each query, -1 for none"
            )
        return np.arange(items, dtype=np.int64)
    rows = _checks.integer_array(exclude_self, "exclude_self", op, queries, -1)
    if rows.size and rows.max() >= items:
        raise ValueError(f"{op}: exclude_self must be gallery rows below {items}, got {rows.max()}")
    return rows


def leave_out(
    own: np.ndarray,
    identities: np.ndarray,
    item_identities: np.ndarray,
    cameras: np.ndarray | None,
    item_cameras: np.ndarray | None,
    rule: str,
    op: str,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Cameras and a rule that leave out what ``rule`` does, and each query's own row.

    Args:
        own: gallery rows ``(Q,)``, -1 for none.
        identities: of the queries.
        item_identities: of the items.
        cameras: of the queries, as :func:`of_queries` gives them; None under the rule "none".
        item_cameras: of the items, -1 unknown; likewise.
        rule: of cameras.
        op: for errors.

    Raises:
        ValueError: a query and its own item have different identities or cameras.
    """
    present = own >= 0
    there = own[present]
    _check_same(identities[present], item_identities[there], present, "identity", op)
    if cameras is None or item_cameras is None or rule == "none":
        found = np.where(present, own, NOWHERE)
        return found, np.arange(len(item_identities), dtype=np.int64), "same_identity"
    seen = np.where(item_cameras[there] == UNKNOWN, NOWHERE, item_cameras[there])
    _check_same(cameras[present], seen, present, "camera", op)
    unknown = present & (cameras == NOWHERE)
    # A camera of its own for each item of an unknown one: below all others, and no other query's.
    numbers = NOWHERE + 1 + np.arange(len(item_cameras), dtype=np.int64)
    items = np.where(item_cameras == UNKNOWN, numbers, item_cameras)
    return np.where(unknown, numbers[np.where(unknown, own, 0)], cameras), items, rule


def _check_same(query: np.ndarray, item: np.ndarray, present: np.ndarray, what: str, op: str) -> None:
    differ = query != item
    if differ.any():
        row = int(np.flatnonzero(present)[differ.argmax()])
        raise ValueError(f"{op}: a query and its own item must have one {what}, but query {row}'s differ")
