"""Distances with a metric that is learned: Mahalanobis and XQDA."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _checks
from .distance import pairwise_distance
from .inputs import check_length, check_pair


class MahalanobisRanker:
    r"""Ranking by :math:`d(p, g) = (f_p - f_g)^T M (f_p - f_g)`, the nearest first (HCN, Eq. 1).

    The paper prints argmax of this; a distance wants the least.

    Args:
        matrix: M ``(D, D)``, float32 or float64, symmetric, with no eigenvalue below zero beyond rounding.
        project: bring M to the nearest positive semi-definite matrix instead of refusing it.

    Raises:
        TypeError, ValueError: M is not such a matrix.

    Example:
        >>> ranker = MahalanobisRanker(torch.diag(torch.tensor([1.0, 4.0])))
        >>> ranker.distance(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[5.]])
    """

    @_checks.takes_arrays
    @_checks.outside_autocast
    def __init__(self, matrix: Tensor, *, project: bool = False) -> None:
        op = type(self).__name__
        _checks.check_features(matrix, "matrix", ("D", "D"), op)
        if matrix.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{op}: matrix must be float32 or float64, got {_checks.dtype_name(matrix.dtype)}"
            )
        if matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
            raise ValueError(f"{op}: matrix must have shape (D, D), got {tuple(matrix.shape)}")
        if not torch.isfinite(matrix).all():
            raise ValueError(f"{op}: matrix must be finite")
        wide = matrix.double()
        size = float(wide.abs().max())
        if float((wide - wide.T).abs().max()) > 1e-5 * size:
            raise ValueError(f"{op}: matrix must be symmetric")
        values, vectors = torch.linalg.eigh((wide + wide.T) / 2)
        if not project and float(values[0]) < -1e-5 * max(size, 1e-300):
            raise ValueError(
                f"{op}: matrix must be positive semi-definite, got an eigenvalue of {float(values[0]):.3g} "
                "(project=True takes the nearest such matrix)"
            )
        kept = values > 0
        self.projection = (vectors[:, kept] * values[kept].sqrt()).to(matrix.dtype)  # M = P P^T

    @property
    @_checks.takes_arrays
    @_checks.outside_autocast
    def matrix(self) -> Tensor:
        """M ``(D, D)`` as used."""
        return self.projection @ self.projection.T

    @_checks.takes_arrays
    @_checks.outside_autocast
    def distance(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Distances ``(Q, G)`` of features ``(Q, D)`` and ``(G, D)``, from 0; not square-rooted."""
        op = type(self).__name__
        query, gallery = check_pair(query, gallery, op)
        check_length(query, self.projection.shape[0], op)
        projection = self.projection.to(query)
        return pairwise_distance(query @ projection, gallery @ projection, "squared_euclidean")


class XQDA:
    r"""Cross-view quadratic discriminant analysis (HCN, section 3.1 and Table 2; Liao et al., CVPR 2015).

    From features of two camera views, learns a subspace W and a metric M in it with
    :math:`d(x, z) = (x - z)^T W M W^T (x - z)`. With the covariances :math:`\Sigma_I` of differences of the
    same identity across views and :math:`\Sigma_E` of different identities, W holds the eigenvectors of
    :math:`\Sigma_I^{-1} \Sigma_E` whose eigenvalue is above 1 (at least one), and
    :math:`M = (W^T \Sigma_I W)^{-1} - (W^T \Sigma_E W)^{-1}`. Covariances come from class sums: no pair is
    ever listed. If D exceeds the number of samples, features are first reduced by a QR factorisation, which
    changes nothing.

    Args:
        regularization: added to the diagonal of :math:`\Sigma_I`; positive.
        max_dim: most dimensions of W; None: all with an eigenvalue above 1.
        project: project M to the cone of positive semi-definite matrices.

    Attributes:
        subspace: W ``(D, r)``, after :meth:`fit`.
        metric: M ``(r, r)``.
        eigenvalues: ``(r,)``, descending.

    Example:
        >>> views = torch.randn(40, 8), torch.randn(60, 8)
        >>> model = XQDA().fit(*views, torch.arange(40) % 10, torch.arange(60) % 10)
        >>> model.distance(torch.randn(3, 8), torch.randn(5, 8)).shape
        torch.Size([3, 5])
    """

    def __init__(
        self, regularization: float = 0.001, *, max_dim: int | None = None, project: bool = False
    ) -> None:
        if not regularization > 0.0:
            raise ValueError(f"XQDA: regularization must be above 0, got {regularization}")
        if max_dim is not None:
            _checks.check_integer(max_dim, "max_dim", 1, 2**31, "XQDA")
        self.regularization, self.max_dim, self.project = regularization, max_dim, project
        self.subspace: Tensor | None = None
        self.metric: Tensor | None = None
        self.eigenvalues: Tensor | None = None

    @_checks.takes_arrays
    @_checks.outside_autocast
    def fit(self, first: Tensor, second: Tensor, first_ids: Any, second_ids: Any) -> XQDA:
        """Learns from features ``(n, D)`` and ``(m, D)`` of two views, and identities: integers or names.

        Computes in float64 on the features' device; returns itself.

        Raises:
            TypeError, ValueError: arguments are of the wrong kind or shape, features are not finite, no
                identity is in both views, or all pairs are of one identity.
        """
        first, second = check_pair(first, second, "XQDA", ("first", "second"), ("n", "m"))
        dtype, device = first.dtype, first.device
        numbers = _checks.Labels("XQDA")
        labels = [
            torch.from_numpy(numbers.numbers(ids, f"{name}_ids", len(view))).to(device)
            for ids, name, view in ((first_ids, "first", first), (second_ids, "second", second))
        ]
        left, right = first.double(), second.double()
        basis = None
        if left.shape[1] > left.shape[0] + right.shape[0]:
            basis, reduced = torch.linalg.qr(torch.cat([left, right]).T)
            left, right = reduced.T[: len(left)], reduced.T[len(left) :]
        within, between = _covariances(left, right, *labels)
        within.diagonal().add_(self.regularization)

        # With within = L L^T, the symmetric L^-1 between L^-T has the eigenvalues of within^-1 between.
        factor = torch.linalg.cholesky(within)
        whitened = torch.linalg.solve_triangular(factor, between, upper=False)
        whitened = torch.linalg.solve_triangular(factor, whitened.T, upper=False)
        values, vectors = torch.linalg.eigh((whitened + whitened.T) / 2)
        values, vectors = values.flip(0), vectors.flip(1)
        rank = max(1, int((values > 1.0).sum()))
        rank = min(rank, self.max_dim or rank)
        subspace = torch.linalg.solve_triangular(factor.T, vectors[:, :rank], upper=True)
        subspace = F.normalize(subspace, dim=0)
        metric = torch.linalg.inv(subspace.T @ within @ subspace) - torch.linalg.inv(
            subspace.T @ between @ subspace
        )
        metric = (metric + metric.T) / 2
        if self.project:
            roots, axes = torch.linalg.eigh(metric)
            metric = (axes * roots.clamp(min=0.0)) @ axes.T
        self.subspace = (subspace if basis is None else basis @ subspace).to(dtype)
        self.metric, self.eigenvalues = metric.to(dtype), values[:rank].to(dtype)
        return self

    @_checks.takes_arrays
    @_checks.outside_autocast
    def distance(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Distances ``(Q, G)``, smaller is better; below 0 where M is not positive semi-definite.

        An array if ``query`` is one.
        """
        if self.subspace is None or self.metric is None:
            raise RuntimeError("XQDA: fit must be called before distance")
        query, gallery = check_pair(query, gallery, "XQDA")
        check_length(query, self.subspace.shape[0], "XQDA")
        left, right = query @ self.subspace.to(query), gallery @ self.subspace.to(query)
        weighted = left @ self.metric.to(query)
        squares = (right @ self.metric.to(query) * right).sum(1)
        return (weighted * left).sum(1)[:, None] + squares[None, :] - 2.0 * weighted @ right.T


def _covariances(
    left: Tensor, right: Tensor, left_labels: Tensor, right_labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Covariances of cross-view differences, of one identity and of two, through sums per identity."""
    classes, codes = torch.cat([left_labels, right_labels]).unique(return_inverse=True)
    code_left, code_right = codes[: len(left)], codes[len(left) :]
    count_left = torch.bincount(code_left, minlength=len(classes)).double()
    count_right = torch.bincount(code_right, minlength=len(classes)).double()
    sum_left = left.new_zeros(len(classes), left.shape[1]).index_add_(0, code_left, left)
    sum_right = right.new_zeros(len(classes), right.shape[1]).index_add_(0, code_right, right)

    # Sum over pairs of (x - z)(x - z)^T = sum of n_z x x^T + n_x z z^T - x z^T - z x^T.
    cross = sum_left.T @ sum_right
    weighted_left = left * count_right[code_left][:, None]
    weighted_right = right * count_left[code_right][:, None]
    within = weighted_left.T @ left + weighted_right.T @ right - cross - cross.T
    total_cross = torch.outer(left.sum(0), right.sum(0))
    total = len(right) * (left.T @ left) + len(left) * (right.T @ right) - total_cross - total_cross.T
    same = float((count_left * count_right).sum())
    different = len(left) * len(right) - same
    if same == 0:
        raise ValueError("XQDA: first_ids and second_ids must share an identity, but they share none")
    if different == 0:
        raise ValueError("XQDA: first_ids and second_ids must hold two identities or more, got one")
    return within / same, (total - within) / different
