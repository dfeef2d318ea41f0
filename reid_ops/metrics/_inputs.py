"""Arguments of the metrics: checked, named in errors, and brought to one form."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from reid_ops import _checks

from . import _own

CAMERA_RULES = ("none", "same_identity", "any")
AVERAGE_PRECISIONS = ("mean_precision", "trapezoid")

Matrix = np.ndarray | Tensor


def matrix(values: Any, argument: str, op: str) -> Matrix:
    """A floating matrix, as it is. numpy: float16, float32, float64; torch: bfloat16 too."""
    if isinstance(values, Tensor):
        floating = values.is_floating_point()
    elif isinstance(values, np.ndarray):
        floating = values.dtype.newbyteorder("=") in (np.float16, np.float32, np.float64)
    else:
        raise TypeError(
            f"{op}: {argument} must be a numpy array or a torch.Tensor, got {type(values).__name__}"
        )
    if not floating:
        raise TypeError(f"{op}: {argument} must be of a floating type, got {values.dtype}")
    if values.ndim != 2:
        raise ValueError(f"{op}: {argument} must have two dimensions, got shape {tuple(values.shape)}")
    return values.detach() if isinstance(values, Tensor) else values


def identity_arrays(
    query_ids: Any, gallery_ids: Any, queries: int | None, items: int | None, junk_id: Any, op: str
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Both identity arrays as numbers, and the junk identity's number. Names get numbers of their own."""
    labels = _checks.Labels(op)
    identities = labels.numbers(query_ids, "query_ids", queries)
    item_identities = labels.numbers(gallery_ids, "gallery_ids", items)
    return identities, item_identities, junk(labels, junk_id, op)


def camera_arrays(
    query_cameras: Any, gallery_cameras: Any, camera_rule: str, queries: int, items: int, op: str
) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """Both camera arrays and the rule that holds: without cameras nothing is removed for them.

    A query's camera of -1, unknown, is no item's.
    """
    choice(camera_rule, "camera_rule", CAMERA_RULES, op)
    if (query_cameras is None) != (gallery_cameras is None):
        given, missing = ("query_cameras", "gallery_cameras")
        if query_cameras is None:
            given, missing = missing, given
        raise ValueError(f"{op}: {given} was given without {missing}; give both or neither")
    if query_cameras is None or camera_rule == "none":
        return None, None, "none"
    labels = _checks.Labels(op)
    return (
        _own.of_queries(labels.numbers(query_cameras, "query_cameras", queries)),
        labels.numbers(gallery_cameras, "gallery_cameras", items),
        camera_rule,
    )


@dataclass(frozen=True)
class Pairs:
    """Distances ``(Q, G)`` and the labels of their rows and columns; cameras are None under rule "none".

    ``junk`` is the number of the identity that is junk.
    """

    distance: Matrix
    identities: np.ndarray
    cameras: np.ndarray | None
    item_identities: np.ndarray
    item_cameras: np.ndarray | None
    rule: str
    junk: int | None


def pairs(
    distance: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any,
    gallery_cameras: Any,
    camera_rule: str,
    junk_id: Any,
    op: str,
    exclude_self: Any = False,
) -> Pairs:
    """What an evaluation from distances is given, checked."""
    found = matrix(distance, "distance", op)
    queries, items = found.shape
    not_empty(queries, items, op)
    identities, item_identities, junk = identity_arrays(query_ids, gallery_ids, queries, items, junk_id, op)
    cameras, item_cameras, rule = camera_arrays(
        query_cameras, gallery_cameras, camera_rule, queries, items, op
    )
    own = _own.own_rows(exclude_self, queries, items, op)
    if own is not None:
        cameras, item_cameras, rule = _own.leave_out(
            own, identities, item_identities, cameras, item_cameras, rule, op
        )
    return Pairs(found, identities, cameras, item_identities, item_cameras, rule, junk)


def choice(value: Any, argument: str, allowed: Sequence[str], op: str) -> None:
    """One of a few names."""
    if value not in allowed:
        names = ", ".join(f'"{name}"' for name in allowed)
        raise ValueError(f"{op}: {argument} must be one of {names}, got {value!r}")


def junk(labels: _checks.Labels, junk_id: Any, op: str) -> int | None:
    """The number of an identity: an integer or, among names, a name; None: of none."""
    if junk_id is not None and not (labels.named and isinstance(junk_id, Hashable)):
        _checks.check_integer(junk_id, "junk_id", -(2**63), 2**63 - 1, op)
    number: int | None = labels.number(junk_id)
    return number


def rank_list(ranks: Iterable[int], op: str) -> tuple[int, ...]:
    """Distinct ranks from 1 on, ascending."""
    found = tuple(ranks)
    for rank in found:
        _checks.check_integer(rank, "ranks", 1, None, op)
    return tuple(sorted({int(rank) for rank in found}))


def not_empty(queries: int, items: int, op: str) -> None:
    """Metrics of nothing are no numbers."""
    if queries == 0:
        raise ValueError(f"{op}: there must be at least one query, got none")
    if items == 0:
        raise ValueError(f"{op}: the gallery must have at least one item, got none")


def as_torch(values: Matrix) -> Tensor:
    """The same numbers as a tensor, of the same memory wherever torch can have it; not to be written to."""
    tensor: Tensor = _checks.as_tensor(values)
    return tensor


def nan_error(row: int, op: str, argument: str = "distance") -> ValueError:
    """The error for a row with NaN."""
    return ValueError(f"{op}: {argument} must not hold NaN, but row {row} does")
