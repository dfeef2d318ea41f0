"""Features as rankers take them: checked, of one kind, half types as float32."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks


def check_pair(
    query: Tensor,
    gallery: Tensor,
    op: str,
    names: tuple[str, str] = ("query", "gallery"),
    rows: tuple[str, str] = ("Q", "G"),
) -> tuple[Tensor, Tensor]:
    """Both as finite features of one length, kind and device; half types as float32.

    Under ``torch.compile`` values are not looked at, which would break the graph.
    """
    for features, name, row in zip((query, gallery), names, rows, strict=True):
        _checks.check_features(features, name, (row, "D"), op, arrays=True)
    _checks.check_alike(gallery, names[1], query, names[0], op)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{op}: {names[1]} must have the D = {query.shape[1]} of {names[0]}, got {gallery.shape[1]}"
        )
    for features, name in zip((query, gallery), names, strict=True):
        check_values(features, name, op)
    if query.dtype in (torch.float16, torch.bfloat16):
        query, gallery = query.float(), gallery.float()
    return query, gallery


def check_values(features: Tensor, argument: str, op: str, first_row: int = 0) -> None:
    """That distances between rows are finite; ``first_row`` numbers the first of a block in errors."""
    if torch.compiler.is_compiling():
        return
    finite = torch.isfinite(features).all(1)
    if not finite.all():
        row = first_row + int((~finite).long().argmax())
        raise ValueError(f"{op}: {argument} must be finite, but row {row} is not")
    wide = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    # Squared distances are at most four times that.
    limit = torch.finfo(wide.dtype).max / 16
    squares = torch.linalg.vecdot(wide, wide)
    if bool((squares > limit).any()):
        row = first_row + int((squares > limit).long().argmax())
        raise ValueError(
            f"{op}: {argument} must have lengths up to {limit**0.5:.3g} for their distances to be finite, "
            f"but row {row} has more"
        )


def check_length(features: Tensor, length: int, op: str) -> None:
    """Features of that length."""
    if features.shape[1] != length:
        raise ValueError(f"{op}: features must have D = {length}, got {features.shape[1]}")


def unit(features: Tensor, argument: str, op: str, first_row: int = 0) -> Tensor:
    """Rows of length 1; a row of zeros has no direction (under ``torch.compile`` it gives NaN)."""
    norms = features.norm(dim=1, keepdim=True)
    if not torch.compiler.is_compiling() and bool((norms == 0).any()):
        row = first_row + int((norms[:, 0] == 0).long().argmax())
        raise ValueError(f"{op}: {argument} must not hold a vector of zeros, but row {row} is one")
    return features / norms
