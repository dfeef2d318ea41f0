"""How features are compared: by name, fitted where it must be, then blocks of distances."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_ops import (
    XQDA,
    MahalanobisRanker,
    expand_queries,
    k_reciprocal_rerank,
    k_reciprocal_rerank_from_distance,
    pairwise_distance,
)

from .._progress import track
from .._suggest import unknown
from ..data.records import JUNK
from .feature_files import UNKNOWN, Features, check_comparable

METRICS = ("cosine", "euclidean", "xqda", "mahalanobis", "match")
FITTED = ("xqda", "mahalanobis")
#: Largest gallery whose distances among itself, (G, G), are made without being asked for: 1.6 GB.
DENSE_LIMIT = 20_000
REGULARIZATION = 0.001  # XQDA's, for features of length 1
PAIRS = 8192  # that a network is asked for at a time: what a progress bar steps by
CODES = 1024  # of the gallery that are on the network's device together


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


class Fitted(Comparison):
    """XQDA or a Mahalanobis distance of features of length 1, learned from other images.

    Args:
        name: which.
        ranker: fitted.
        length: D of the features.
        basis: (D, R) that features are brought to first; None: none.
        notes: see :class:`Comparison`.
    """

    def __init__(
        self,
        name: str,
        ranker: XQDA | MahalanobisRanker,
        length: int,
        basis: Tensor | None,
        notes: tuple[str, ...],
    ) -> None:
        self.name, self.ranker, self.length, self.basis, self.notes = name, ranker, length, basis, notes

    def prepare(self, features: Features) -> Tensor:
        if features.dim != self.length:
            raise ValueError(
                f"{self.name}: it was fitted to features of length {self.length}, got {features.dim}"
            )
        units = unit_features(features)
        return units if self.basis is None else units @ self.basis.to(units)

    def distances(self, query: Tensor, gallery: Tensor) -> Tensor:
        return self.ranker.distance(query, gallery)


class PairScores(Comparison):
    """A network's own score of every pair: the distance is the negative similarity.

    The network's working memory is its own affair (its ``match`` goes by blocks); here the codes of 1,024
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
        from .features import fingerprint

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
            for i, j in track(blocks, "pairs", len(blocks), show=self.progress):
                left, right = (
                    codes.to(device).float() for codes in (query[i : i + rows], gallery[j : j + CODES])
                )
                found[i : i + rows, j : j + CODES] = -network.match(left, right, **self.options).float()
        finally:
            network.to(home).train(training)
        return found

    def _from_zero(self, parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        # log(1 + exp(-similarity)): in order, at least 0, and finite whatever the scores' range.
        return F.softplus(parts[0]), F.softplus(parts[1]), F.softplus(parts[2])


def make_comparison(
    metric: str | Comparison,
    *,
    fit: Features | Callable[[], Features] | None = None,
    network: nn.Module | None = None,
    **options: Any,
) -> Comparison:
    """A comparison by name.

    Args:
        metric: ``"cosine"``, ``"euclidean"``; ``"xqda"`` or ``"mahalanobis"``, fitted to ``fit``; or
            ``"match"``, by ``network``. A comparison is given back.
        fit: features of training images, or what gives them, asked only if they are needed.
        network: whose ``match`` is asked.
        **options: of :class:`PairScores`, for ``"match"``.

    Raises:
        ValueError: another metric, nothing to fit to, a network without ``match``, or training images that a
            metric can't be learned from.

    Example:
        >>> make_comparison("xqda", fit=extract_features(model, dataset.train, image_size=(224, 224)))
    """
    if isinstance(metric, Comparison):
        return metric
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if metric in FITTED:
        if fit is None:
            raise ValueError(f"metric {metric} must be fitted: features of training images must be given")
        return fit_comparison(metric, fit() if callable(fit) else fit)
    if metric == "match":
        if network is None:
            raise ValueError('metric "match" needs the network that compares pairs')
        return PairScores(network, **options)
    return Cosine() if metric == "cosine" else Euclidean()


def default_metric(network: nn.Module | None) -> str:
    """``"match"`` for a network that compares pairs, else ``"cosine"``."""
    return "match" if getattr(network, "compares_pairs", False) else "cosine"


def fit_comparison(metric: str, features: Features) -> Fitted:
    r"""XQDA, or the Mahalanobis distance of differences within identities, from labelled features.

    Features are brought to length 1. XQDA learns from differences across two views: with two cameras these
    are its views; with more, the cameras of each identity, in ascending order, go to the views by turns.
    The Mahalanobis matrix is :math:`(\Sigma_I + 0.001\,I)^{-1}`, with the covariance :math:`\Sigma_I` of the
    differences of all pairs of images of one identity. Where features have more dimensions than there are
    rows, they are first brought to the space that these rows span; ``notes`` says so.

    Args:
        metric: ``"xqda"`` or ``"mahalanobis"``.
        features: of training images; those of identity -1 are left out.

    Raises:
        ValueError: fewer than two cameras (XQDA), no identity with two images to compare, or one identity.
    """
    known = features.identities != JUNK
    if metric == "xqda":
        known &= features.cameras != UNKNOWN
        cameras = features.cameras[known].unique()
        if len(cameras) < 2:
            raise ValueError(f"xqda: the images to fit to must be of two cameras or more, got {len(cameras)}")
    used = features.rows(torch.nonzero(known)[:, 0].tolist())
    if len(used) == 0:
        raise ValueError(f"{metric}: there must be images of known identities to fit to, got none")
    units, basis = unit_features(used), None
    notes: tuple[str, ...] = ()
    if used.dim > len(used):
        basis = torch.linalg.qr(units.double().T)[0].float()
        units = units @ basis
        notes = (
            f"{metric}: features of {used.dim} dimensions were reduced to the {len(used)} that the "
            f"{len(used)} images to fit to span",
        )
    if metric == "xqda":
        first = _first_view(used)
        ranker: XQDA | MahalanobisRanker = XQDA(REGULARIZATION).fit(
            units[first], units[~first], used.identities[first], used.identities[~first]
        )
    else:
        ranker = MahalanobisRanker(_within_inverse(units, used.identities), project=True)
    return Fitted(metric, ranker, used.dim, basis, notes)


def prepare_pair(
    comparison: Comparison, query: Features, gallery: Features, expand: Mapping[str, Any] | None = None
) -> tuple[Tensor, Tensor]:
    """What is compared of queries and gallery; queries expanded if ``expand`` is given.

    Args:
        comparison: how they are compared.
        query: features.
        gallery: features of the same model.
        expand: options of :func:`reid_ops.expand_queries`; needs the cosine.

    Raises:
        ValueError: features of different models or lengths, or as :meth:`Comparison.prepare`.
    """
    check_comparable(query, gallery, "evaluation")
    if expand is not None and comparison.name != "cosine":
        raise ValueError(f"expand needs the cosine metric, got {comparison.name}")
    left, right = comparison.prepare(query), comparison.prepare(gallery)
    return (left if expand is None else expand_queries(left, right, **expand)), right


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


def _first_view(features: Features) -> Tensor:
    """Which images are of XQDA's first view, bool (N,)."""
    cameras = features.cameras.unique()
    if len(cameras) == 2:
        return features.cameras == cameras[0]
    first = torch.zeros(len(features), dtype=torch.bool)
    for identity in features.identities.unique():
        rows = torch.nonzero(features.identities == identity)[:, 0]
        turns = features.cameras[rows].unique(return_inverse=True)[1]
        first[rows] = turns % 2 == 0
    return first


def _within_inverse(units: Tensor, identities: Tensor) -> Tensor:
    """The inverse of the regularised covariance of differences within identities, (D, D) float64."""
    # Over the pairs of n vectors of sum s: the sum of (x - z)(x - z)^T is n sum x x^T - s s^T.
    wide, codes = units.double(), identities.unique(return_inverse=True)[1]
    counts = torch.bincount(codes).double()
    pairs = float((counts * (counts - 1) / 2).sum())
    if pairs == 0:
        raise ValueError("mahalanobis: the images to fit to must show an identity twice, but none is")
    sums = wide.new_zeros(len(counts), wide.shape[1]).index_add_(0, codes, wide)
    covariance = ((wide * counts[codes][:, None]).T @ wide - sums.T @ sums) / pairs
    covariance.diagonal().add_(REGULARIZATION)
    inverse = torch.linalg.inv(covariance)
    return (inverse + inverse.T) / 2
