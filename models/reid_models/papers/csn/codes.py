"""What CSN keeps of an image, as one row of numbers: maps and parts of every level, and the embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """The codes of N images.

    Attributes:
        maps: level -> (N, C, h, w).
        parts: level -> (N, P, C, f, f).
        embedding: (N, E), of length 1.
        transforms: level -> (N, P, 2, 3) by which the parts were sampled; empty: not known, or none.
    """

    maps: Mapping[int, Tensor]
    parts: Mapping[int, Tensor]
    embedding: Tensor
    transforms: Mapping[int, Tensor]

    def flatten(self) -> Tensor:
        """One row an image, (N, D)."""
        tensors = [*self.maps.values(), *self.parts.values(), self.embedding]
        return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)


class CodeLayout:
    """Where maps, parts and embedding are in a row of codes.

    Args:
        maps: level -> (C, h, w).
        parts: level -> (P, C, f, f).
        embedding: its length, the last numbers of a row.
    """

    def __init__(
        self,
        maps: Mapping[int, tuple[int, ...]],
        parts: Mapping[int, tuple[int, ...]],
        embedding: int,
    ) -> None:
        self.maps, self.parts, self.embedding = dict(maps), dict(parts), embedding
        self.length = sum(map(math.prod, (*maps.values(), *parts.values()))) + embedding

    def split(self, codes: Tensor) -> Codes:
        """Views of codes (N, D): nothing is copied."""
        start = 0
        maps: dict[int, Tensor] = {}
        parts: dict[int, Tensor] = {}
        for shapes, views in ((self.maps, maps), (self.parts, parts)):
            for level, shape in shapes.items():
                views[level] = codes[:, start : start + math.prod(shape)].unflatten(1, shape)
                start += math.prod(shape)
        return Codes(maps, parts, self.embed(codes), {})

    def embed(self, codes: Tensor) -> Tensor:
        """The embedding (N, E) in codes (N, D), a view."""
        return codes[:, self.length - self.embedding :]
