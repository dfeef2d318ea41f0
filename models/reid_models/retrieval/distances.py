"""What a comparison of features is, and the two that need no fitting: cosine and Euclidean distance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from reid_ops import k_reciprocal_rerank, k_reciprocal_rerank_from_distance, pairwise_distance

from .features import Features

#: Largest gallery whose distances among itself, (G, G), are made without being asked for: 1.6 GB.
DENSE_LIMIT = 20_000


class Comparison:
    """How features of two sets are compared. Made by :func:`make_comparison`.

    Attributes:
        name: one of :data:`METRICS`.
        notes: what was done to fit it that a reader of its numbers should know, a line each.
    """

    name: str
    notes: tuple[str, ...] = ()

    def prepare(self, features: Features) -> Tensor:
        """What is compared of features: (N, D) float32, made once for each set.

        Raises:
            ValueError: features of another length or model, or that this comparison can't be given.
        """
        return features.features.float()

    def distances(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Distances (Q, G) float32, smaller is nearer, of what :meth:`prepare` gave."""
        raise NotImplementedError

    def rerank(
        self,
        query: Tensor,
        gallery: Tensor,
        *,
        topk: int | None = None,
        dense: bool = False,
        **options: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """k-reciprocal re-ranking of what :meth:`prepare` gave.

        By cosine and Euclidean distance nothing of (G, G) is ever made. The other comparisons need these
        distances, and those of (Q, Q).

        Args:
            query: (Q, D).
            gallery: (G, D).
            topk: as for :func:`reid_ops.k_reciprocal_rerank`.
            dense: make (G, G) for a gallery of more than 20,000 items as well.
            **options: the others of that function.

        Raises:
            TypeError, ValueError: as that function; a gallery too large, unless asked for.
        """
        items = len(gallery)
        if items > DENSE_LIMIT and not dense:
            raise ValueError(
                f"re-ranking by {self.name} needs the distances among all {items} images of the gallery, "
                f"{4e-9 * items**2:.1f} GB: ask for them (dense=True, --dense), or leave re-ranking out"
            )
        parts = self.distances(query, gallery), self.distances(query, query), self.distances(gallery, gallery)
        return k_reciprocal_rerank_from_distance(*self._from_zero(parts), power=1, topk=topk, **options)

    def _from_zero(self, parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Distances of one scale that start at 0, as re-ranking wants them."""
        least = min(0.0, *(float(part.min()) for part in parts))
        return parts if least == 0.0 else (parts[0] - least, parts[1] - least, parts[2] - least)


class Cosine(Comparison):
    """1 less the cosine."""

    name = "cosine"

    def prepare(self, features: Features) -> Tensor:
        return unit_features(features)

    def distances(self, query: Tensor, gallery: Tensor) -> Tensor:
        return (1.0 - query @ gallery.T).clamp_(min=0.0)

    def rerank(self, query: Tensor, gallery: Tensor, **options: Any) -> Tensor | tuple[Tensor, Tensor]:
        return _rerank_features(query, gallery, **options)


class Euclidean(Comparison):
    """Euclidean distance of features as they are."""

    name = "euclidean"

    def distances(self, query: Tensor, gallery: Tensor) -> Tensor:
        return pairwise_distance(query, gallery)

    def rerank(self, query: Tensor, gallery: Tensor, **options: Any) -> Tensor | tuple[Tensor, Tensor]:
        return _rerank_features(query, gallery, **options)


def unit_features(features: Features) -> Tensor:
    """Features of length 1, float32; ValueError for a vector of zeros, by the image's name."""
    wide = features.features.float()
    lengths = wide.norm(dim=1, keepdim=True)
    if bool((lengths == 0).any()):
        row = int((lengths[:, 0] == 0).nonzero()[0])
        raise ValueError(f"features must not be zeros for the cosine, but those of {features.paths[row]} are")
    return wide / lengths


def _rerank_features(
    query: Tensor, gallery: Tensor, *, dense: bool = False, **options: Any
) -> Tensor | tuple[Tensor, Tensor]:
    return k_reciprocal_rerank(query, gallery, **options)
