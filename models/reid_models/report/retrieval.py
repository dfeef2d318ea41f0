"""Rankings of a dataset by trained networks, for figures and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from reid_ops.metrics import RankingReport

from ..data import ReidDataset
from ..retrieval.comparison import Comparison, default_metric, make_comparison, prepare_pair
from ..retrieval.features import Features
from ..retrieval.kept import kept_features
from ..retrieval.protocol import Protocol, draw_features, draw_images
from ..runs.models import Trained
from .lists import RankedList, choose_queries, ranked_lists

RERANKED = ", re-ranked"  # behind a method's name


@dataclass(frozen=True)
class Retrieval:
    """How one method ranks a gallery.

    Attributes:
        distance: (Q, G).
        report: of the evaluation of these distances.
        meaning: what a distance is, in words.
    """

    distance: Tensor
    report: RankingReport
    meaning: str = "distance"


def rank_features(
    query: Features,
    gallery: Features,
    *,
    same_camera_is_junk: bool = True,
    exclude_self: bool = False,
    metric: str | Comparison = "cosine",
    rerank: Mapping[str, Any] | None = None,
) -> Retrieval:
    """Distances of features, re-ranked if so asked, and their evaluation.

    Args:
        query: features.
        gallery: features of the same model.
        same_camera_is_junk: as for :func:`reid_models.retrieval.evaluation.evaluate_retrieval`.
        exclude_self: likewise.
        metric: likewise.
        rerank: likewise.

    Raises:
        TypeError, ValueError: as there.
    """
    comparison = make_comparison(metric)
    codes = prepare_pair(comparison, query, gallery)
    distance = comparison.distances(*codes) if rerank is None else comparison.rerank(*codes, **rerank)
    assert isinstance(distance, Tensor)  # a pair only with topk
    protocol = Protocol(same_camera_is_junk, exclude_self=exclude_self)
    report = protocol.measure_distances(query, gallery, distance)
    kind = f"distance by {comparison.name}, smaller is nearer"
    meaning = kind if rerank is None else "re-ranked distance, smaller is nearer"
    return Retrieval(distance, report, meaning)


def rank_dataset(
    networks: Mapping[str, Trained],
    dataset: ReidDataset,
    *,
    rerank: Mapping[str, Any] | None = None,
    keep: bool = True,
    **extraction: Any,
) -> dict[str, Retrieval]:
    """Every network's rankings of a dataset's first draw, by name; re-ranked ones as ``"NAME, re-ranked"``.

    A network that compares pairs ranks by its scores, any other by the cosine of its features.
    The distances (Q, G) of all of them are in memory together.

    Args:
        networks: name -> network, see :func:`reid_models.runs.models.load_trained`.
        dataset: from a reader.
        rerank: options of :func:`reid_ops.k_reciprocal_rerank`; None: plain rankings only.
        keep: use features that are kept in run folders, and keep those that are not, see
            :func:`reid_models.retrieval.kept.kept_features`.
        **extraction: of :func:`reid_models.retrieval.extraction.extract_features`, over those of the network.

    Raises:
        TypeError, ValueError, FileNotFoundError: as these functions.
    """
    first = replace(dataset, draws=dataset.draws[:1])
    found: dict[str, Retrieval] = {}
    for name, trained in networks.items():
        options = {**trained.extraction, **extraction}
        features = kept_features(trained, draw_images(first), keep=keep, **options)
        ((query, gallery),) = draw_features(first, features)
        metric = make_comparison(default_metric(trained.model), network=trained.model)
        for suffix, choice in (("", None), (RERANKED, rerank)):
            if suffix == "" or choice is not None:
                found[name + suffix] = rank_features(
                    query,
                    gallery,
                    same_camera_is_junk=dataset.same_camera_is_junk,
                    exclude_self=dataset.exclude_self,
                    metric=metric,
                    rerank=choice,
                )
    return found


def describe_rankings(retrievals: Mapping[str, Retrieval]) -> str:
    """What the numbers below ranked lists are, and how many queries counted, in a line."""
    meanings = dict.fromkeys(f"{found.meaning}" for found in retrievals.values())
    report = next(iter(retrievals.values())).report
    total = report.evaluated + report.excluded
    return f"Below each image: {', '.join(meanings)}. {report.evaluated} of {total} queries counted."


def list_dataset(
    retrievals: Mapping[str, Retrieval],
    dataset: ReidDataset,
    *,
    count: int = 5,
    top: int = 10,
    how: str = "first",
    seed: int = 0,
) -> dict[str, list[RankedList]]:
    """Ranked lists of some queries of the first draw, for :func:`plot_ranked_lists`.

    Args:
        retrievals: method -> its rankings, from :func:`rank_dataset`.
        dataset: the same.
        count: how many queries.
        top: length of the lists.
        how: which queries, see :func:`choose_queries`.
        seed: of ``"random"``.
    """
    split = dataset.draws[0]
    chosen = choose_queries([found.report for found in retrievals.values()], count, how=how, seed=seed)
    return {
        name: ranked_lists(
            chosen,
            split.query,
            split.gallery,
            distance=found.distance,
            top=top,
            same_camera_is_junk=dataset.same_camera_is_junk,
            exclude_self=dataset.exclude_self,
            report=found.report,
        )
        for name, found in retrievals.items()
    }
