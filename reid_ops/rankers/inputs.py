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
    """Both as finite features of one length, kind and device; half types as float32."""
    for features, name, row in zip((query, gallery), names, rows, strict=True):
        _checks.check_features(features, name, (row, "D"), op)
    _checks.check_alike(gallery, names[1], query, names[0], op)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{op}: {names[1]} must have the D = {query.shape[1]} of {names[0]}, got {gallery.shape[1]}"
        )
    for features, name in zip((query, gallery), names, strict=True):
        finite = torch.isfinite(features).all(1)
        if not finite.all():
            row_number = int((~finite).long().argmax())
            raise ValueError(f"{op}: {name} must be finite, but row {row_number} is not")
    if query.dtype in (torch.float16, torch.bfloat16):
        query, gallery = query.float(), gallery.float()
    # Squared distances are at most four times that.
    limit = torch.finfo(query.dtype).max / 16
    for features, name in zip((query, gallery), names, strict=True):
        squares = torch.linalg.vecdot(features, features)
        if bool((squares > limit).any()):
            row_number = int((squares > limit).long().argmax())
            raise ValueError(
                f"{op}: {name} must have lengths up to {limit**0.5:.3g} for their distances to be finite, "
                f"but row {row_number} has more"
            )
    return query, gallery


def check_length(features: Tensor, length: int, op: str) -> None:
    if features.shape[1] != length:
        raise ValueError(f"{op}: features must have D = {length}, got {features.shape[1]}")


def unit(features: Tensor, argument: str, op: str) -> Tensor:
    """Rows of length 1; a row of zeros has no direction."""
    norms = features.norm(dim=1, keepdim=True)
    if bool((norms == 0).any()):
        row = int((norms[:, 0] == 0).long().argmax())
        raise ValueError(f"{op}: {argument} must not hold a vector of zeros, but row {row} is one")
    return features / norms
