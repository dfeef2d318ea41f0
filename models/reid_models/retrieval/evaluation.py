"""Retrieval measured: CMC, mAP and mINP of features or of a model on a dataset, plain and re-ranked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from reid_ops.metrics import RankingReport, SingleShotReport

from ..data.occlusion import Occlusion
from ..data.records import ReidDataset
from .comparison import Comparison, default_metric, make_comparison, prepare_pair
from .extraction import choose_device, extract_features
from .features import Features
from .pair_scores import Shortlisted
from .protocol import RANKS, Protocol, draw_features, draw_images

CURVE = 50  # ranks of the CMC curve that is kept


def evaluate_retrieval(
    query: Features,
    gallery: Features,
    *,
    same_camera_is_junk: bool = True,
    exclude_self: bool = False,
    metric: str | Comparison = "cosine",
    rerank: Mapping[str, Any] | None = None,
    expand: Mapping[str, Any] | None = None,
    average_precision: str = "mean_precision",
    ranks: Iterable[int] = RANKS,
) -> RankingReport:
    """CMC, mAP and mINP of queries ranked against a gallery.

    Distances are made and used a block of queries at a time; only re-ranking needs all of them, (Q, G).

    Args:
        query: features; those of identity -1 are not asked for.
        gallery: features of the same model; items of identity -1 are junk and left out.
        same_camera_is_junk: leave items of a query's identity and camera out, as most protocols do.
        exclude_self: leave a query's own image, the item of its path, out (leave-one-out).
        metric: ``"cosine"``, ``"euclidean"`` of features as they are, or a comparison that was fitted or has
            its network, see :func:`make_comparison`.
        rerank: options of :meth:`Comparison.rerank`: ``k1``, ``k2``, ``lambda_value``, ``preset`` and so on;
            ``{}`` takes its defaults; None: no re-ranking.
        expand: options of :func:`reid_ops.expand_queries`: ``k`` and, for weighted expansion, ``alpha``;
            None: no query expansion. Needs the cosine metric.
        average_precision: see :func:`reid_ops.metrics.evaluate_ranking`.
        ranks: where CMC is reported.

    Raises:
        TypeError, ValueError: as the functions named; features of different models; no query has a positive.

    Example:
        >>> report = evaluate_retrieval(query, gallery, rerank={"k1": 20, "k2": 6, "lambda_value": 0.3})
        >>> report.mean_ap, report.cmc[1]
        (0.942, 0.956)
    """
    comparison = make_comparison(metric)
    protocol = Protocol(same_camera_is_junk, average_precision, tuple(ranks), exclude_self)
    codes = prepare_pair(comparison, query, gallery, expand)
    if rerank is None:
        return protocol.measure(query, gallery, codes, comparison.distances)
    distance = comparison.rerank(*codes, **rerank)
    assert isinstance(distance, Tensor)  # a pair only with topk
    return protocol.measure_distances(query, gallery, distance)


def evaluate_single_shot(
    query: Features,
    gallery: Features,
    *,
    same_camera_is_junk: bool = True,
    exclude_self: bool = False,
    metric: str | Comparison = "cosine",
    ranks: Iterable[int] = RANKS,
    repeats: int = 100,
    seed: int = 0,
) -> SingleShotReport:
    """CMC where one gallery image of each identity is drawn, ``repeats`` times; arguments as above.

    Raises:
        TypeError, ValueError: as :func:`evaluate_retrieval` and :func:`reid_ops.metrics.single_shot_cmc`.
    """
    comparison = make_comparison(metric)
    distance = comparison.distances(*prepare_pair(comparison, query, gallery))
    protocol = Protocol(same_camera_is_junk, ranks=tuple(ranks), exclude_self=exclude_self)
    return protocol.measure_single_shot(query, gallery, distance, repeats=repeats, seed=seed)


@dataclass(frozen=True)
class Evaluation:
    """A dataset's evaluation: means over its draws.

    Attributes:
        plain: ``rank1``, ``rank5``, ``rank10`` (of ``ranks``), ``mAP`` and ``mINP``, in [0, 1].
        reranked: the same after re-ranking; None without.
        single_shot: CMC with one gallery image of each identity drawn; None without.
        deviation: of ``"plain"`` and ``"reranked"`` over the draws (divided by their number).
        per_draw: their numbers of each draw, those of ``"single_shot"`` as well.
        cmc: of both, the curve from rank 1 on.
        queries: with a positive, in the first draw.
        excluded: queries without, likewise.
        gallery: items, likewise.
        draws: how many retrieval splits the means are over.
        shortlist_recall: share of queries with a right image on their shortlist; None without shortlists.
        settings: what was asked for.
    """

    plain: dict[str, float]
    reranked: dict[str, float] | None
    single_shot: dict[str, float] | None
    deviation: dict[str, dict[str, float]]
    per_draw: dict[str, list[dict[str, float]]]
    cmc: dict[str, list[float]]
    queries: int
    excluded: int
    gallery: int
    draws: int
    shortlist_recall: float | None
    settings: dict[str, Any]

    def __repr__(self) -> str:
        shown = "; ".join(
            f"{name} mAP {values['mAP']:.4f}, rank-1 {values['rank1']:.4f}"
            for name, values in self.rankings.items()
            if {"mAP", "rank1"} <= set(values)
        )
        return f"<Evaluation of {self.queries} queries in {self.gallery} images: {shown}>"

    @property
    def rankings(self) -> dict[str, dict[str, float]]:
        """Those of ``plain``, ``reranked`` and ``single_shot`` that there are, by name."""
        named = {"plain": self.plain, "reranked": self.reranked, "single_shot": self.single_shot}
        return {name: values for name, values in named.items() if values is not None}

    def to_json(self) -> str:
        """The text of ``evaluation.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"


def evaluate_dataset(
    model: nn.Module,
    dataset: ReidDataset,
    *,
    rerank: Mapping[str, Any] | None = None,
    expand: Mapping[str, Any] | None = None,
    metric: str | Comparison | None = None,
    fit: Features | Callable[[], Features] | None = None,
    features: Callable[[], Features] | None = None,
    match: Mapping[str, Any] | None = None,
    shortlist: int | None = None,
    average_precision: str = "mean_precision",
    ranks: Iterable[int] = RANKS,
    single_shot: int = 0,
    occlusion: Occlusion | None = None,
    **extraction: Any,
) -> Evaluation:
    """Evaluates a model by a dataset's own protocol: its junk rule, means over its draws.

    Args:
        model: as for :func:`extract_features`.
        dataset: from a reader. An image that several draws share is looked at once.
        rerank: as :func:`evaluate_retrieval`; None: no ``reranked``.
        expand: as there.
        metric: as there, or ``"xqda"``, ``"mahalanobis"`` or ``"match"``. None: the model's own way,
            ``"match"`` if it compares pairs, else ``"cosine"``.
        fit: what a metric is fitted to, or what gives it; None: features of the dataset's training images, if
            it must be.
        features: gives those of :func:`draw_images`, in its order, where they are known already.
        match: options of the model's ``match``.
        shortlist: with ``"match"``, score only each query's so many nearest by embedding; None: all pairs.
        average_precision: as there.
        ranks: as there.
        single_shot: draws of :func:`evaluate_single_shot` for each of the dataset's own; 0: none.
        occlusion: what every test image loses; a metric is fitted to whole images all the same.
        **extraction: of :func:`extract_features`.

    Raises:
        TypeError, ValueError, FileNotFoundError: as these functions.

    Example:
        >>> evaluation = evaluate_dataset(model, dataset, image_size=(256, 128), rerank={})
        >>> evaluation.plain["mAP"], evaluation.reranked["mAP"]
        (0.868, 0.942)
    """
    comparison = make_comparison(
        default_metric(model) if metric is None else metric,
        fit=(lambda: extract_features(model, dataset.train, **extraction)) if fit is None else fit,
        network=model,
        shortlist=shortlist,
        **_of_pairs(match, extraction),
    )
    if features is not None and occlusion is not None:
        raise ValueError("evaluate_dataset: features are of whole images: occlusion must be None with them")
    found = (
        extract_features(model, draw_images(dataset), occlusion=occlusion, **extraction)
        if features is None
        else features()
    )
    settings: dict[str, Any] = {
        "dataset": dataset.name,
        "flip_average": bool(extraction.get("flip_average", False)),
    }
    if occlusion is not None:
        settings["occlusion"] = asdict(occlusion)
    return evaluate_draws(
        draw_features(dataset, found),
        same_camera_is_junk=dataset.same_camera_is_junk,
        exclude_self=dataset.exclude_self,
        rerank=rerank,
        expand=expand,
        metric=comparison,
        average_precision=average_precision,
        ranks=ranks,
        single_shot=single_shot,
        settings=settings,
    )


def _of_pairs(match: Mapping[str, Any] | None, extraction: Mapping[str, Any]) -> dict[str, Any]:
    """The options of :class:`PairScores` in those of extraction."""
    device = extraction.get("device", "auto")
    return {"device": choose_device(device), "progress": extraction.get("progress", False), **(match or {})}


def evaluate_draws(
    draws: Iterable[tuple[Features, Features]],
    *,
    same_camera_is_junk: bool = True,
    exclude_self: bool = False,
    rerank: Mapping[str, Any] | None = None,
    expand: Mapping[str, Any] | None = None,
    metric: str | Comparison = "cosine",
    average_precision: str = "mean_precision",
    ranks: Iterable[int] = RANKS,
    single_shot: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """As :func:`evaluate_dataset`, from each draw's features of (query, gallery).

    Args:
        draws: at least one.
        same_camera_is_junk: as :func:`evaluate_retrieval`, like the next six.
        exclude_self: as there.
        rerank: as there.
        expand: as there.
        metric: as there.
        average_precision: as there.
        ranks: as there.
        single_shot: as :func:`evaluate_dataset`.
        settings: more for :attr:`Evaluation.settings`.

    Raises:
        TypeError, ValueError: as :func:`evaluate_retrieval` and :func:`evaluate_single_shot`.
    """
    ranks, comparison = tuple(ranks), make_comparison(metric)
    shared: dict[str, Any] = {
        "same_camera_is_junk": same_camera_is_junk,
        "exclude_self": exclude_self,
        "metric": comparison,
    }
    options = {
        **shared,
        "expand": None if expand is None else dict(expand),
        "average_precision": average_precision,
    }
    wanted = {"plain": None} if rerank is None else {"plain": None, "reranked": dict(rerank)}
    reports: dict[str, list[RankingReport]] = {name: [] for name in wanted}
    shots: list[SingleShotReport] = []
    size, recalls = 0, []
    for query, gallery in draws:
        size = size or len(gallery)
        for name, choice in wanted.items():
            reports[name].append(evaluate_retrieval(query, gallery, rerank=choice, ranks=ranks, **options))
        if isinstance(comparison, Shortlisted):
            protocol = Protocol(same_camera_is_junk, exclude_self=exclude_self)
            recalls.append(_shortlist_recall(comparison, query, gallery, protocol))
        if single_shot:
            shots.append(evaluate_single_shot(query, gallery, ranks=ranks, repeats=single_shot, **shared))
    tables = {name: [_values(report) for report in found] for name, found in reports.items()}
    drawn = [_shares(shot.cmc) for shot in shots]
    first = reports["plain"][0]
    return Evaluation(
        plain=_over(np.mean, tables["plain"]),
        reranked=_over(np.mean, tables["reranked"]) if "reranked" in tables else None,
        single_shot=_over(np.mean, drawn) if drawn else None,
        deviation={name: _over(np.std, values) for name, values in tables.items()},
        per_draw={**tables, "single_shot": drawn} if drawn else tables,
        cmc={
            name: np.mean([report.cmc_curve(CURVE) for report in found], axis=0).tolist()
            for name, found in reports.items()
        },
        queries=first.evaluated,
        excluded=first.excluded,
        gallery=size,
        draws=len(reports["plain"]),
        shortlist_recall=float(np.mean(recalls)) if recalls else None,
        settings={
            **options,
            "metric": comparison.name,
            **({"notes": list(comparison.notes)} if comparison.notes else {}),
            "rerank": wanted.get("reranked"),
            **(settings or {}),
        },
    )


def _shortlist_recall(
    comparison: Shortlisted, query: Features, gallery: Features, protocol: Protocol
) -> float:
    """Share of queries with a positive that have one on their shortlist."""
    left, right = prepare_pair(comparison, query, gallery)
    rows = comparison.search(left, right)
    return protocol.measure_lists(query, gallery, rows)


def _values(report: RankingReport) -> dict[str, float]:
    """A report's numbers by the names of ``evaluation.json``."""
    return {**_shares(report.cmc), "mAP": report.mean_ap, "mINP": report.mean_inp}


def _shares(cmc: Mapping[int, float]) -> dict[str, float]:
    return {f"rank{rank}": share for rank, share in cmc.items()}


def _over(statistic: Callable[..., Any], tables: list[dict[str, float]]) -> dict[str, float]:
    """A statistic of each number over the draws."""
    return {name: float(statistic([table[name] for table in tables])) for name in tables[0]}
