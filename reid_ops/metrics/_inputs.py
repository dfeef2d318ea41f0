"""Arguments of the metrics: checked, named in errors, and brought to one form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops import _checks

from . import _own

CAMERA_RULES = ("none", "same_identity", "any")
AVERAGE_PRECISIONS = ("mean_precision", "trapezoid")

Matrix = np.ndarray | Tensor


def integers(values: Any, argument: str, size: int | None, op: str) -> np.ndarray:
    """An int64 array ``(size,)`` from a list, an array or a tensor of integers."""
    return _checks.integer_array(values, argument, op, size)


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
    return (
        _own.of_queries(integers(query_cameras, "query_cameras", queries, op)),
        integers(gallery_cameras, "gallery_cameras", items, op),
        camera_rule,
    )


@dataclass(frozen=True)
class Pairs:
    """Distances ``(Q, G)`` and the labels of their rows and columns; cameras are None under rule "none"."""

    distance: Matrix
    identities: np.ndarray
    cameras: np.ndarray | None
    item_identities: np.ndarray
    item_cameras: np.ndarray | None
    rule: str


def pairs(
    distance: Any,
    query_ids: Any,
    gallery_ids: Any,
    query_cameras: Any,
    gallery_cameras: Any,
    camera_rule: str,
    op: str,
    exclude_self: Any = False,
) -> Pairs:
    """What an evaluation from distances is given, checked."""
    found = matrix(distance, "distance", op)
    queries, items = found.shape
    not_empty(queries, items, op)
    identities = integers(query_ids, "query_ids", queries, op)
    item_identities = integers(gallery_ids, "gallery_ids", items, op)
    cameras, item_cameras, rule = camera_arrays(
        query_cameras, gallery_cameras, camera_rule, queries, items, op
    )
    own = _own.own_rows(exclude_self, queries, items, op)
    if own is not None:
        cameras, item_cameras, rule = _own.leave_out(
            own, identities, item_identities, cameras, item_cameras, rule, op
        )
    return Pairs(found, identities, cameras, item_identities, item_cameras, rule)


def choice(value: Any, argument: str, allowed: Sequence[str], op: str) -> None:
    """One of a few names."""
    if value not in allowed:
        names = ", ".join(f'"{name}"' for name in allowed)
        raise ValueError(f"{op}: {argument} must be one of {names}, got {value!r}")


def junk(junk_id: Any, op: str) -> None:
    """An identity or None."""
    if junk_id is not None:
        _checks.check_integer(junk_id, "junk_id", -(2**63), 2**63 - 1, op)


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
    """The same numbers as a tensor; only a read-only, foreign-endian or backwards strided array is copied."""
    if isinstance(values, Tensor):
        return values
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if not values.flags.writeable or any(stride < 0 for stride in values.strides):
        values = values.copy()
    return torch.from_numpy(values)


def nan_error(row: int, op: str, argument: str = "distance") -> ValueError:
    """The error for a row with NaN."""
    return ValueError(f"{op}: {argument} must not hold NaN, but row {row} does")
