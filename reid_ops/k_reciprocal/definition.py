"""What k-reciprocal re-ranking means to whom, and the checks of its arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import _checks
from .candidates import norms_of
from .neighbours import Neighbours

MAX_K1 = 2**20
_K2 = 6  # of the published code, where k1 is no smaller


@dataclass(frozen=True)
class RerankDefinition:
    """What public code calls k-reciprocal re-ranking differs in these four choices.

    Attributes:
        power: the encoded distance is the Euclidean one to this power, 2 or 4.
        normalize: every row of distances is divided by its largest.
        include_self: the searched list has k1 + 1 places, the item itself and k1 others; else k1 in all.
        blend: what lambda blends in: "encoded", the distance that exp(-d) sees; "raw", the same before
            normalisation; "cosine", 1 - cosine of the features.
    """

    power: int = 2
    normalize: bool = True
    include_self: bool = True
    blend: str = "encoded"


RERANK_PRESETS: dict[str, RerankDefinition] = {
    "zhong": RerankDefinition(),
    "torchreid": RerankDefinition(power=4),
    "spcl": RerankDefinition(normalize=False, include_self=False),
    "fast-reid": RerankDefinition(normalize=False, include_self=False, blend="cosine"),
}


def choose_definition(
    preset: str,
    power: int | None,
    normalize: bool | None,
    include_self: bool | None,
    blend: str | None,
    blends: tuple[str, ...],
    op: str,
) -> RerankDefinition:
    if preset not in RERANK_PRESETS:
        raise ValueError(f"{op}: preset must be one of {', '.join(RERANK_PRESETS)}, got {preset!r}")
    choices = {"power": power, "normalize": normalize, "include_self": include_self, "blend": blend}
    given: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    definition = replace(RERANK_PRESETS[preset], **given)
    if definition.power not in (2, 4):
        raise ValueError(f"{op}: power must be 2 or 4, got {definition.power!r}")
    _checks.check_flag(definition.normalize, "normalize", op)
    _checks.check_flag(definition.include_self, "include_self", op)
    if definition.blend not in blends:
        raise ValueError(f"{op}: blend must be one of {', '.join(blends)}, got {definition.blend!r}")
    return definition


def joined(query: Tensor, gallery: Tensor, op: str) -> Tensor:
    """All items' features, checked: queries, then gallery."""
    check_features(query, "query", op)
    check_features(gallery, "gallery", op)
    _checks.check_alike(gallery, "gallery", query, "query", op)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{op}: gallery must have features of query's length ({query.shape[1]}), got {gallery.shape[1]}"
        )
    check_finite(query, "query", op)
    check_finite(gallery, "gallery", op)
    return prepare(torch.cat([query.detach(), gallery.detach()]), op)


def check_features(
    tensor: Tensor, argument: str, op: str, shape: tuple[str, str] = ("N", "D"), *, empty: bool = False
) -> None:
    """A float matrix whose rows have something in them; ``empty``: or not."""
    _checks.check_features(tensor, argument, shape, op, arrays=True)
    if tensor.shape[1] == 0 and not empty:
        raise ValueError(f"{op}: {argument} must have columns, got shape {tuple(tensor.shape)}")


def nothing(queries: int, gallery: int, topk: int | None, like: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The result where there are no queries, or no gallery."""
    width = gallery if topk is None else min(topk, gallery)
    values = like.new_empty(queries, width)
    return values if topk is None else (values, torch.empty_like(values, dtype=torch.int64))


def check_finite(tensor: Tensor, argument: str, op: str) -> None:
    """No NaN, no infinity; the message names the first row that has one."""
    finite = torch.isfinite(tensor.detach()).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ValueError(f"{op}: {argument} must be finite, got NaN or infinity in row {row}")


def expansion(k1: int, k2: int | None) -> int:
    """k2, or what it is where it was not given: the published 6, or a smaller k1."""
    return k2 if k2 is not None else min(_K2, k1)


def check_numbers(k1: int, k2: int, lambda_value: float, jaccard: str, op: str) -> None:
    _checks.check_integer(k1, "k1", 1, MAX_K1, op)
    _checks.check_integer(k2, "k2", 1, MAX_K1, op)
    if k2 > k1:
        raise ValueError(f"{op}: k2 must not exceed k1 ({k1}), got {k2}")
    _checks.check_number(lambda_value, "lambda_value", 0, 1, op)
    if jaccard not in ("soft", "set"):
        raise ValueError(f'{op}: jaccard must be "soft" or "set", got {jaccard!r}')


def widened(tensor: Tensor) -> Tensor:
    wide = tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
    return wide.contiguous()


def prepare(features: Tensor, op: str) -> Tensor:
    features = widened(features)
    norms = norms_of(features)
    # Squared distances are at most four times that, and the fourth power must fit as well.
    limit = torch.finfo(features.dtype).max ** 0.5 / 4
    if bool((norms > limit).any()):
        row = int((norms > limit).nonzero()[0])
        raise ValueError(
            f"{op}: features must have squared lengths up to {limit:.3g} for their distances to be finite, "
            f"got {float(norms[row]):.3g} in row {row} of all"
        )
    return features


def half_list(k1: int) -> int:
    """Places of the half list."""
    return round(k1 / 2) + 1  # halves to even, as numpy.around in the published code


def scale_of(largest: Tensor | None, power: int, normalize: bool, like: Tensor, items: int) -> Tensor:
    """1 / (largest distance) of each row; 1 where all are 0. ``largest`` holds squared distances."""
    if not normalize or largest is None:
        return like.new_ones(items)
    whole = largest if power == 2 else largest.square()
    return torch.where(whole > 0, 1 / whole, 1)


def given_neighbours(
    neighbours: Neighbours, places: int, items: int, normalize: bool, like: Tensor, op: str
) -> Neighbours:
    if not isinstance(neighbours, Neighbours):
        raise TypeError(f"{op}: neighbours must be a reid_ops.Neighbours, got {type(neighbours).__name__}")
    indices, largest = neighbours.indices, neighbours.largest
    if indices.dtype != torch.int32 or indices.dim() != 2 or len(indices) != items:
        raise ValueError(
            f"{op}: neighbours.indices must be int32 of shape ({items}, K), got "
            f"{_checks.dtype_name(indices.dtype)} of shape {tuple(indices.shape)}"
        )
    if indices.shape[1] < places:
        raise ValueError(
            f"{op}: neighbours.indices must hold {places} neighbours an item, got {indices.shape[1]}"
        )
    # Kernels go where they point to.
    if indices.numel() and bool(((indices < -1) | (indices >= items)).any()):
        raise ValueError(
            f"{op}: neighbours.indices must be in [-1, {items}), got {int(indices.min())} to "
            f"{int(indices.max())}"
        )
    if normalize and (largest is None or largest.shape != (items,) or largest.dtype != like.dtype):
        raise ValueError(f"{op}: neighbours.largest must be ({items},) of the features' dtype to normalize")
    return Neighbours(indices[:, :places].contiguous(), largest)
