"""How features are compared: by name, fitted where it must be, then blocks of distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from reid_ops import expand_queries

from .distances import Comparison, Cosine, Euclidean
from .features import Features, check_comparable
from .fitted import FITTED, fit_comparison
from .pair_scores import PairScores, Shortlisted

__all__ = [
    "FITTED",
    "METRICS",
    "Comparison",
    "default_metric",
    "fit_comparison",
    "make_comparison",
    "prepare_pair",
]

METRICS = ("cosine", "euclidean", "xqda", "mahalanobis", "match")


def make_comparison(
    metric: str | Comparison,
    *,
    fit: Features | Callable[[], Features] | None = None,
    network: nn.Module | None = None,
    shortlist: int | None = None,
    **options: Any,
) -> Comparison:
    """A comparison by name.

    Args:
        metric: ``"cosine"``, ``"euclidean"``; ``"xqda"`` or ``"mahalanobis"``, fitted to ``fit``; or
            ``"match"``, by ``network``. A comparison is given back.
        fit: features of training images, or what gives them, asked only if they are needed.
        network: whose ``match`` is asked.
        shortlist: with ``"match"``, ask only for each query's so many nearest by the network's embeddings,
            see :class:`Shortlisted`; None: for all pairs.
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
    if shortlist is not None and metric != "match":
        raise ValueError(f'shortlist is for the metric "match", got {metric}')
    if metric in FITTED:
        if fit is None:
            raise ValueError(f"metric {metric} must be fitted: features of training images must be given")
        return fit_comparison(metric, fit() if callable(fit) else fit)
    if metric == "match":
        if network is None:
            raise ValueError('metric "match" needs the network that compares pairs')
        if shortlist is not None:
            return Shortlisted(network, shortlist, **options)
        return PairScores(network, **options)
    return Cosine() if metric == "cosine" else Euclidean()


def default_metric(network: nn.Module | None) -> str:
    """``"match"`` for a network that compares pairs, else ``"cosine"``."""
    return "match" if getattr(network, "compares_pairs", False) else "cosine"


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
