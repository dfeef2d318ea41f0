"""Distances learned from features of training images: XQDA and Mahalanobis."""

from __future__ import annotations

import torch
from torch import Tensor

from reid_ops import XQDA, MahalanobisRanker

from ..data.records import JUNK
from .distances import Comparison, unit_features
from .features import Features
from .labels import UNKNOWN

FITTED = ("xqda", "mahalanobis")
REGULARIZATION = 0.001  # XQDA's, for features of length 1


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
