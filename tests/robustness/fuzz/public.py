"""Calls of the public functions: right ones, and with one or two of their arguments replaced."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import reid_ops
from reid_ops import metrics

from .call import Call
from .chance import FLOATS, Chance

Given = tuple[list[Any], dict[str, Any]]
PRECISE = FLOATS[:2]


def make(chance: Chance) -> Call:
    """A call that is right, or was before some arguments were made wrong or given that were not."""
    name = chance.choice(sorted(CALLS))
    function, draw = CALLS[name]
    arguments, options = draw(chance)
    wrong = chance.choice((0, 0, 1, 1, 2))
    accepted = [*range(len(arguments)), *_keywords(function, options)]
    for place in chance.sample(accepted, min(wrong, len(accepted))):
        if isinstance(place, int):
            arguments[place] = chance.other(arguments[place])
        else:
            options[place] = chance.other(options[place]) if place in options else chance.odd()
    right = wrong == 0 and chance.finite
    return Call(name, function, arguments, options, right=right, finite=right and "only" not in options)


def _keywords(function: Callable[..., Any], options: dict[str, Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return sorted({*options, *(each.name for each in parameters if each.kind == each.KEYWORD_ONLY)})


# ------------------------------------------------------------------ operators


def _correlation(chance: Chance) -> Given:
    rows, channels, dtype = chance.size(4, 0), chance.size(5), chance.choice(FLOATS)
    signal = chance.tensor(rows, channels, chance.size(), chance.size(), dtype=dtype)
    shape = rows, chance.size(3), channels, chance.size(5), chance.size(5)
    return [signal, chance.tensor(*shape, dtype=dtype)], {"pool": chance.size(3)}


def _csn(chance: Chance) -> Given:
    rows, parts, dtype = chance.size(3), chance.size(3), chance.choice(FLOATS)
    shape = chance.size(4), chance.size(7), chance.size(7)
    filters = chance.size(3), chance.size(3)
    signals = [chance.tensor(rows, *shape, dtype=dtype) for _ in range(2)]
    others = [chance.tensor(rows, parts, shape[0], *filters, dtype=dtype) for _ in range(2)]
    return [*signals, *others], {"pool": chance.size(2)}


def _graph(chance: Chance) -> Given:
    shape = (chance.size(3, 0), chance.size(), chance.size())
    dtype = chance.choice(PRECISE)
    values, theta = chance.tensor(*shape, dtype=dtype), chance.tensor(*shape[1:], dtype=dtype)
    return [values, theta], {"include_self": chance.maybe(), "edges": chance.choice(("softmax", "product"))}


def _hsgm(channels: int, height: int, width: int, x: Tensor, *, train: bool = True, **options: Any) -> Tensor:
    """A module's answer, and its gradient if it trains."""
    module = reid_ops.HSGM(channels, height, width, **options).train(train)
    if not train:
        return module(x)
    x = x.detach().requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    return x.grad


def _module(chance: Chance) -> Given:
    shape = chance.size(5), 4 * chance.size(2), chance.size(6)
    x = chance.tensor(chance.size(3, 2), *shape, dtype=torch.float32)
    return [*shape, x], {"train": chance.maybe(), "channel_window": chance.choice((1, 1, 3))}


def _stripes(chance: Chance) -> Given:
    return [
        chance.tensor(chance.size(3, 0), chance.size(5), 6, chance.size(), dtype=chance.choice(FLOATS))
    ], {
        "stripes": chance.choice((1, 2, 3, 6)),
        "stacked": chance.maybe(),
    }


def _images(chance: Chance) -> Tensor:
    dtype = chance.choice((torch.uint8, torch.float32, torch.float16))
    return chance.tensor(chance.size(3, 0), chance.size(4), chance.size(20), chance.size(20), dtype=dtype)


def _erasing(chance: Chance) -> Given:
    options = {"p": chance.choice((0.0, 0.5, 1.0)), "seed": chance.size(99), "return_mask": chance.maybe()}
    return [_images(chance)], {**options, "fill": "random", "value_range": (0.0, 1.0)}


def _occlusion(chance: Chance) -> Given:
    kind = chance.choice(("polygon", "rectangle"))
    return [_images(chance), 0.3, kind], {"seed": 1, "value_range": (0.0, 1.0)}


def _augmentation(chance: Chance) -> Given:
    images = chance.tensor(chance.size(3, 0), 3, chance.size(20, 4), chance.size(20, 4), dtype=torch.uint8)
    options = {
        "size": tuple(images.shape[2:]),
        "pad": chance.size(4, 0),
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
    }
    erase = {"p": 1.0} if chance.maybe() else None
    return [images], {**options, "seed": 1, "erase": erase, "polygon": {"p": 0.5} if chance.maybe() else None}


# ------------------------------------------------------------------ features, distances and lists


def _features(chance: Chance, *counts: int) -> list[Any]:
    width, dtype = chance.size(9), chance.choice((torch.float32, *PRECISE))
    return [chance.tensor(count, width, dtype=dtype) for count in counts]


def _have_angles(chance: Chance, *features: Tensor) -> None:
    """Vectors of zeros have none, and are refused where angles count."""
    chance.finite &= all(bool((each != 0).any(1).all()) for each in features)


def _rerank(chance: Chance) -> Given:
    k1 = chance.size(6)
    given = _features(chance, chance.size(6), chance.size(9, 2))
    return given, {"k1": k1, "k2": chance.size(k1), "lambda_value": 0.3}


def _distances(chance: Chance) -> Given:
    q, g = chance.size(5), chance.size(9, 2)
    given = [chance.tensor(*shape, dtype=torch.float32).abs() for shape in ((q, g), (q, q), (g, g))]
    return given, {"k1": chance.size(5), "k2": 1}


def _jaccard(chance: Chance) -> Given:
    return _features(chance, chance.size(9, 2)), {"k1": chance.size(5), "k2": 1, "sparse": chance.maybe()}


def _pairs(chance: Chance) -> Given:
    return [*_features(chance, chance.size(5, 0), chance.size(5, 0)), "euclidean"], {}


def _expansion(chance: Chance) -> Given:
    given = _features(chance, chance.size(5), chance.size(9))
    _have_angles(chance, *given)
    return given, {"k": chance.size(len(given[1])), "alpha": chance.choice((None, 1.0, 3.0))}


def _xqda(first: Any, second: Any, ids: Any, other_ids: Any, query: Any, *, max_dim: Any = None) -> Tensor:
    return reid_ops.XQDA(max_dim=max_dim).fit(first, second, ids, other_ids).distance(query, second)


def _views(chance: Chance) -> Given:
    count = chance.size(9, 4)
    first, second, query = _features(chance, count, count, 3)
    ids = torch.arange(count) // 2
    return [first, second, ids, ids.flip(0), query], {}


def _mahalanobis(matrix: Any, query: Any, gallery: Any) -> Tensor:
    return reid_ops.MahalanobisRanker(matrix).distance(query, gallery)


def _metric(chance: Chance) -> Given:
    query, gallery = _features(chance, chance.size(5), chance.size(5))
    return [torch.eye(query.shape[1], dtype=query.dtype), query, gallery], {}


def _search(features: Any, query: Any, k: Any, **options: Any) -> Any:
    kind, metric = options.pop("kind"), options.pop("metric")
    cameras, rerank = options.pop("cameras"), options.pop("rerank")
    index = reid_ops.GalleryIndex(7, kind=kind, metric=metric, device="cpu")
    index.add(features, cameras=cameras)
    return index.rerank(query, k, **options) if rerank else index.search(query, k, **options)


def _gallery(chance: Chance) -> Given:
    count = chance.size(40, 20)
    features, query = (chance.tensor(rows, 7, dtype=torch.float32) for rows in (count, chance.size(4, 0)))
    _have_angles(chance, features, query)
    given = {"kind": chance.choice(("flat", "flat", "ivf", "ivfpq", "hnsw")), "rerank": chance.maybe(0.3)}
    given |= {
        "metric": chance.choice(("cosine", "euclidean")),
        "cameras": chance.arrays.integers(-1, 3, count),
    }
    if chance.maybe(0.3):
        given["only"] = [0, 3, 5]
    return [features, query, chance.size(12)], given


def _labels(chance: Chance, q: int, g: int) -> list[Any]:
    """Identities and cameras, of which the first query has a positive and an impostor."""
    ids = [chance.arrays.integers(-1, 3, n) for n in (q, g)]
    ids[0][0], ids[1][0], ids[1][1] = 1, 1, 2
    cameras = [chance.arrays.integers(0, 2, n) for n in (q, g)]
    cameras[0][0], cameras[1][0] = 0, 1
    return [*ids, *cameras]


def _ranking(chance: Chance) -> Given:
    q, g = chance.size(5), chance.size(9, 2)
    dtype = chance.choice((torch.float32, torch.float64))
    return [chance.tensor(q, g, dtype=dtype), *_labels(chance, q, g)], {}


def _draws(chance: Chance) -> Given:
    return _ranking(chance)[0], {"repeats": 3, "seed": 1}


def _tracks(chance: Chance) -> Given:
    distance, ids, gallery_ids, cameras, gallery_cameras = _ranking(chance)[0]
    tracks = np.arange(len(gallery_ids))
    return [distance, ids, gallery_ids, tracks, cameras, gallery_cameras], {}


def _of_features(chance: Chance) -> Given:
    q, g = chance.size(5), chance.size(9, 2)
    query, gallery = _features(chance, q, g)
    _have_angles(chance, query, gallery)
    return [query, gallery, *_labels(chance, q, g)], {}


def _efficiency(chance: Chance) -> Given:
    fields = ("rank1", "mean_ap", "feature_dim", "volume", "speed")
    models = {name: {each: float(chance.size(90, 60)) for each in fields} for name in ("a", "b")}
    return [models], {"weight": 1.0, "threshold": 30.0}


#: Right arguments of the public functions.
CALLS: dict[str, tuple[Callable[..., Any], Callable[[Chance], Given]]] = {
    "part_correlation": (reid_ops.part_correlation, _correlation),
    "csn_similarity": (reid_ops.csn_similarity, _csn),
    "similarity_graph": (reid_ops.similarity_graph, _graph),
    "HSGM": (_hsgm, _module),
    "stripe_pool": (reid_ops.stripe_pool, _stripes),
    "polygon_erase": (reid_ops.polygon_erase, _erasing),
    "random_erase": (reid_ops.random_erase, _erasing),
    "occlude": (reid_ops.occlude, _occlusion),
    "augment": (reid_ops.augment, _augmentation),
    "k_reciprocal_rerank": (reid_ops.k_reciprocal_rerank, _rerank),
    "k_reciprocal_rerank_from_distance": (reid_ops.k_reciprocal_rerank_from_distance, _distances),
    "jaccard_distance": (reid_ops.jaccard_distance, _jaccard),
    "pairwise_distance": (reid_ops.pairwise_distance, _pairs),
    "expand_queries": (reid_ops.expand_queries, _expansion),
    "XQDA": (_xqda, _views),
    "MahalanobisRanker": (_mahalanobis, _metric),
    "GalleryIndex": (_search, _gallery),
    "metrics.evaluate_ranking": (metrics.evaluate_ranking, _ranking),
    "metrics.single_shot_cmc": (metrics.single_shot_cmc, _draws),
    "metrics.evaluate_tracks": (metrics.evaluate_tracks, _tracks),
    "metrics.verification_curve": (metrics.verification_curve, _ranking),
    "metrics.evaluate_features": (metrics.evaluate_features, _of_features),
    "metrics.efficiency_score": (metrics.efficiency_score, _efficiency),
}
