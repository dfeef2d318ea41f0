"""Comparison by a network that scores pairs: all of them, or those on a shortlist by its embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_ops import GalleryIndex

from .._progress import track
from .._suggest import unknown
from .distances import Comparison
from .extraction import choose_device, fingerprint
from .features import Features

PAIRS = 8192  # that a network is asked for at a time: what a progress bar steps by
CODES = 256  # of the gallery that are on the network's device together
KINDS = ("flat", "ivf", "ivfpq", "hnsw")

Step = TypeVar("Step")


class PairScores(Comparison):
    """A network's own score of every pair: the distance is the negative similarity.

    The network's working memory is its own affair (its ``match`` goes by blocks); here the codes of 256
    gallery images at a time are brought to its device.

    Args:
        network: one that compares pairs, in evaluation mode while it is asked.
        device: where; None: where the network is.
        progress: a bar on stderr if it takes long.
        **options: of the network's ``match``.
    """

    name = "match"

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str | torch.device | None = None,
        progress: bool = False,
        **options: Any,
    ) -> None:
        if not getattr(network, "compares_pairs", False):
            name = getattr(network, "name", type(network).__name__)
            raise ValueError(f'metric "match" needs a network that compares pairs, and {name} gives features')
        accepted = inspect.signature(network.match).parameters  # type: ignore[arg-type]
        for option in options:
            if option not in accepted:
                raise unknown("option of match", option, tuple(accepted)[2:])
        self.network: Any = network
        self.device, self.progress, self.options = device, progress, options
        self._known: str | None = None

    def prepare(self, features: Features) -> Tensor:
        expected = self.network.feature_length
        if features.dim != expected:
            raise ValueError(f"{self.network.name}: codes must be of length {expected}, got {features.dim}")
        if features.source is not None:
            self._known = self._known or fingerprint(self.network)
            if features.source.model != self._known:
                raise ValueError(
                    f"{self.network.name}: codes must be those of the network that compares them "
                    f"({self._known}), but are those of {features.source.model}"
                )
        return features.features  # half as large if they are stored in halves

    @torch.no_grad()
    def distances(self, query: Tensor, gallery: Tensor) -> Tensor:
        network, training = self.network, self.network.training
        home = next(network.parameters(), torch.empty(0)).device
        device = home if self.device is None else torch.device(self.device)
        found = torch.empty(len(query), len(gallery))
        rows = max(1, PAIRS // min(len(gallery), CODES))
        blocks = [(i, j) for j in range(0, len(gallery), CODES) for i in range(0, len(query), rows)]
        network.eval().to(device)
        try:
            for i, j in self.steps(blocks):
                left, right = (
                    codes.to(device).float() for codes in (query[i : i + rows], gallery[j : j + CODES])
                )
                found[i : i + rows, j : j + CODES] = -network.match(left, right, **self.options).float()
        finally:
            network.to(home).train(training)
        return found

    def steps(self, blocks: Sequence[Step]) -> Iterator[Step]:
        """The blocks, with a bar if it takes long."""
        return track(blocks, "pairs", len(blocks), show=self.progress)

    def _from_zero(self, parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        # log(1 + exp(-similarity)): in order, at least 0, and finite whatever the scores' range.
        return F.softplus(parts[0]), F.softplus(parts[1]), F.softplus(parts[2])


class Shortlisted(PairScores):
    """A network's scores of each query's nearest gallery images by its embeddings, and of no other pair.

    A query costs one search and ``shortlist`` pairs, whatever the gallery's size. Images that are not on a
    shortlist rank behind those that are, by embedding; how many of the right ones that concerns says
    :meth:`embedding_distances`.

    Args:
        network: one that compares pairs and gives embeddings of its codes by ``embed``.
        shortlist: K, at least 1; not more than the gallery has images.
        kind: of :class:`reid_ops.GalleryIndex`; approximate ones search large galleries faster.
        **options: of :class:`PairScores`.

    Raises:
        ValueError: a network without ``match`` or ``embed``, or an argument out of range.
    """

    def __init__(self, network: nn.Module, shortlist: int, *, kind: str = "flat", **options: Any) -> None:
        super().__init__(network, **options)
        if not hasattr(network, "embed"):
            raise ValueError(f"shortlist needs a network that embeds its codes, and {network.name} does not")
        if isinstance(shortlist, bool) or not isinstance(shortlist, int) or shortlist < 1:
            raise ValueError(f"shortlist must be an int of at least 1, got {shortlist!r}")
        if kind not in KINDS:
            raise ValueError(f"kind must be of {', '.join(KINDS)}, got {kind!r}")
        self.shortlist, self.kind = shortlist, kind
        self._gallery: tuple[Tensor, GalleryIndex] | None = None

    def distances(self, query: Tensor, gallery: Tensor) -> Tensor:
        """As :meth:`PairScores.distances`, with pairs that are on no shortlist behind those that are."""
        scores, rows = self.best(query, gallery)
        behind = self.embedding_distances(query, gallery)
        # The next number after the worst of the scores, then on by the embeddings.
        found = behind + (1.0 - scores.min())
        return found.scatter_(1, rows, -scores)

    def embedding_distances(self, query: Tensor, gallery: Tensor) -> Tensor:
        """1 less the cosine of the embeddings, (Q, G): what shortlists are made by."""
        left, right = (self.network.embed(codes).float() for codes in (query, gallery))
        return 1.0 - left @ right.T

    def best(
        self, query: Tensor, gallery: Tensor, index: GalleryIndex | None = None
    ) -> tuple[Tensor, Tensor]:
        """Each query's shortlist, best first: similarities (Q, K) and gallery rows (Q, K).

        Args:
            query: codes (Q, D).
            gallery: codes (G, D).
            index: of the gallery's embeddings, its identifiers the gallery's rows; None: made here.

        Raises:
            ValueError: as :meth:`search`.
        """
        rows = self.search(query, gallery, index)
        scores = self.score(query, gallery, rows)
        order = scores.argsort(dim=1, descending=True, stable=True)
        return scores.gather(1, order), rows.gather(1, order)

    def search(self, query: Tensor, gallery: Tensor, index: GalleryIndex | None = None) -> Tensor:
        """Each query's shortlist, gallery rows (Q, K), by embedding; arguments as :meth:`best`.

        Raises:
            ValueError: the gallery has fewer images than ``shortlist``.
        """
        if self.shortlist > len(gallery):
            raise ValueError(f"shortlist must be at most the gallery's {len(gallery)}, got {self.shortlist}")
        index = self._index(gallery) if index is None else index
        rows: Tensor = index.search(self.network.embed(query).float().cpu(), self.shortlist)[1]
        return rows.long()

    @torch.no_grad()
    def score(self, query: Tensor, gallery: Tensor, rows: Tensor) -> Tensor:
        """Similarities (Q, K) of each query and the gallery images in ``rows`` (Q, K)."""
        network, training = self.network, self.network.training
        home = next(network.parameters()).device
        device = home if self.device is None else choose_device(self.device)
        found = torch.empty(rows.shape)
        step = max(1, CODES // rows.shape[1])
        network.eval().to(device)
        try:
            for start in self.steps(range(0, len(rows), step)):
                block = rows[start : start + step]
                # A gallery image that several queries have on their lists is brought over once.
                used, places = block.unique(return_inverse=True)
                left = torch.arange(len(block))[:, None].expand_as(block)
                pairs = torch.stack([left, places], dim=2).flatten(0, 1).to(device)
                codes = query[start : start + step].to(device).float(), gallery[used].to(device).float()
                scores = network.match_pairs(*codes, pairs, **self.options)
                found[start : start + step] = scores.float().cpu().view(block.shape)
        finally:
            network.to(home).train(training)
        return found

    def _index(self, gallery: Tensor) -> GalleryIndex:
        """An index of the gallery's embeddings, kept for the next block of queries."""
        if self._gallery is None or self._gallery[0] is not gallery:
            self._gallery = gallery, index_embeddings(self.network, gallery, kind=self.kind)
        return self._gallery[1]


def index_embeddings(network: Any, codes: Tensor, *, kind: str = "flat") -> GalleryIndex:
    """An index of the embeddings in codes (G, D), whose identifiers are their rows."""
    index: GalleryIndex | None = None
    for block in codes.split(CODES):
        embeddings = network.embed(block).float().cpu()
        index = index or GalleryIndex(embeddings.shape[1], kind=kind, device="cpu")
        index.add(embeddings)
    if index is None:
        raise ValueError("shortlist: the gallery must have at least one image, got none")
    return index
