"""Benchmark of :func:`reid_ops.k_reciprocal_rerank`: whole, its search alone, and its sparse part alone.

The published algorithm ("published") is written here from its definition: NumPy, dense N x N matrices, one
loop an item. Market size takes it a minute and 12 GiB a call, so run that size with ``--no-compile``:

    python -m benchmarks k_reciprocal --quick
    python -m benchmarks k_reciprocal --size market --no-compile --threads all

Modes: "rerank" from features to all re-ranked distances; "search" the 21 nearest of all items, which every
exact method needs; "sparse" what is left when neighbours and query-gallery products are given. Where two
items are equally far up to float32's rounding, either may stand at the end of a list and single distances
move by up to some 1e-3: that is what the tolerance is for. The reference works on the lists of ours, and
for "search" looks for any nearer item.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import reid_ops
from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work
from reid_ops.k_reciprocal import candidates
from reid_ops.k_reciprocal import encoding as encodings

K1, K2, LAMBDA = 20, 6, 0.3
_HALF = round(K1 / 2) + 1

Array = NDArray[Any]


def _sizes(queries: int, gallery: int, dimension: int, identities: int) -> dict[str, int]:
    return {"queries": queries, "gallery": gallery, "dimension": dimension, "identities": identities}


CASES = (
    Case("small", _sizes(1000, 6000, 256, 500), quick=True),
    Case("market", _sizes(3368, 19732, 512, 1100)),
)
SWEEP = tuple(
    Case(f"{gallery // 1000}k", _sizes(500, gallery, 128, gallery // 18))
    for gallery in (5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
)
MODES = (
    Mode("rerank", {"stage": "rerank"}),
    Mode("search", {"stage": "search"}),
    Mode("sparse", {"stage": "sparse"}),
)


def clustered(sizes: Mapping[str, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Queries and gallery: identities' centres, shifts of six cameras, and noise; rows of length 1."""
    generator = torch.Generator().manual_seed(seed)
    count, dimension = sizes["queries"] + sizes["gallery"], sizes["dimension"]
    centres = torch.randn(sizes["identities"], dimension, generator=generator)
    cameras = 0.8 * torch.randn(6, dimension, generator=generator)
    identity = torch.randint(0, sizes["identities"], (count,), generator=generator)
    camera = torch.randint(0, 6, (count,), generator=generator)
    features = centres[identity].add_(cameras[camera])
    features.add_(torch.randn(count, dimension, generator=generator), alpha=1.2)
    features = torch.nn.functional.normalize(features)
    return features[: sizes["queries"]].clone(), features[sizes["queries"] :].clone()


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Clustered features, and what the stages are given."""
    query, gallery = (part.to(device, dtype) for part in clustered(case.sizes, seed))
    found = reid_ops.rerank_neighbours(query, gallery, k1=K1)
    assert found.largest is not None
    given = {"neighbours": found.indices, "largest": found.largest, "products": query @ gallery.t()}
    return Inputs((query, gallery), given)


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """One product a pair of items, if both directions share it; features read, the result written."""
    sizes = case.sizes
    items, dimension = sizes["queries"] + sizes["gallery"], sizes["dimension"]
    result = sizes["queries"] * sizes["gallery"] * element_size
    lists = items * (K1 + 1) * 4
    if mode.name == "sparse":
        # Distances of 17 members an item, and 20 million minima at Market size.
        flops = 2 * 17 * items * dimension
        return Work(flops, flops, items * dimension * element_size + lists + result, result)
    flops = items * (items + 1) * dimension
    written = result if mode.name == "rerank" else 2 * lists
    return Work(flops, flops, items * dimension * element_size, written)


# ------------------------------------------------------------------------------------------------ ours


def ours(
    query: Tensor, gallery: Tensor, *, neighbours: Tensor, largest: Tensor, products: Tensor, stage: str
) -> Tensor:
    """The operator, or the stage of it."""
    if stage == "rerank":
        result = reid_ops.k_reciprocal_rerank(query, gallery, k1=K1, k2=K2, lambda_value=LAMBDA)
        assert isinstance(result, Tensor)
        return result
    if stage == "search":
        distances = reid_ops.rerank_neighbours(query, gallery, k1=K1).distances
        assert distances is not None
        return distances
    features, queries = torch.cat([query, gallery]), len(query)
    encoding = encodings.Encoding(
        neighbours,
        _HALF,
        K2,
        first_row=queries,
        soft=True,
        scale=1 / largest,
        distances=encodings.feature_distances(features, 2),
    )
    norms = candidates.norms_of(features)
    block = products.clone()
    measured = encodings.Measured(
        block,
        candidates.EUCLIDEAN,
        row_terms=norms[:queries],
        column_terms=norms[queries:],
        scale=1 / largest[:queries],
    )
    encoding.blend(measured, 0, LAMBDA)
    return block


# --------------------------------------------------------------------------------------------- others


def _published(
    query: Tensor, gallery: Tensor, *, neighbours: Tensor, largest: Tensor, products: Tensor, stage: str
) -> Tensor:
    """The published algorithm: all distances, a full sort of every row, dense encodings."""
    features, queries = torch.cat([query, gallery]).cpu().numpy(), len(query)
    if stage == "rerank":
        squares = (features**2).sum(1)
        original = squares[:, None] + squares - 2 * (features @ features.T)
        np.maximum(original, 0, out=original)
        original = (original / original.max(axis=0)).T
        rank = np.argsort(original, axis=1)
        jaccard = _dense_jaccard(rank, lambda item, others: original[item, others], queries)
        blended = original[:queries]
        del original
        result = jaccard * (1 - LAMBDA) + blended * LAMBDA
        return torch.from_numpy(np.ascontiguousarray(result[:, queries:])).to(query)

    rank, scale = neighbours.cpu().numpy(), largest.cpu().numpy()

    def distance(item: int, others: Array) -> Array:
        return ((features[others] - features[item]) ** 2).sum(1) / scale[item]

    jaccard = _dense_jaccard(rank, distance, queries)
    blended = np.maximum(2 - 2 * products.cpu().numpy(), 0) / scale[:queries, None]
    return torch.from_numpy(jaccard[:, queries:] * (1 - LAMBDA) + blended * LAMBDA).to(query)


def _reciprocal(rank: Array, item: int, places: int) -> Array:
    forward = rank[item, :places]
    return forward[np.where(rank[forward, :places] == item)[0]]


def _encodings(rank: Array, distance: Any, dense: bool, dtype: Any) -> Any:
    """Rows of V: a dense matrix, or a list of (columns, weights)."""
    matrix: Any = np.zeros((len(rank), len(rank)), dtype) if dense else []
    for item in range(len(rank)):
        reciprocal = _reciprocal(rank, item, K1 + 1)
        expanded = reciprocal
        for candidate in reciprocal:
            added = _reciprocal(rank, candidate, _HALF)
            if len(np.intersect1d(added, reciprocal)) > 2 / 3 * len(added):
                expanded = np.append(expanded, added)
        expanded = np.unique(expanded)
        weight = np.exp(-distance(item, expanded))
        weight /= weight.sum()
        if isinstance(matrix, list):
            matrix.append((expanded, weight))
        else:
            matrix[item, expanded] = weight
    return matrix


def _dense_jaccard(rank: Array, distance: Any, queries: int) -> Array:
    encoding = _encodings(rank, distance, True, np.float32)
    expanded = np.zeros_like(encoding)
    for item in range(len(rank)):
        expanded[item] = encoding[rank[item, :K2]].mean(axis=0)
    encoding = expanded
    holders = [np.where(encoding[:, column] != 0)[0] for column in range(len(rank))]
    jaccard = np.zeros((queries, len(rank)), np.float32)
    for item in range(queries):
        shared = np.zeros(len(rank), np.float32)
        for column in np.where(encoding[item] != 0)[0]:
            others = holders[column]
            shared[others] += np.minimum(encoding[item, column], encoding[others, column])
        jaccard[item] = 1 - shared / (2 - shared)
    return jaccard


def _blocked_topk(query: Tensor, gallery: Tensor, **given: Any) -> Tensor:
    """As a contender."""
    return blocked_topk(query, gallery)


def blocked_topk(query: Tensor, gallery: Tensor) -> Tensor:
    """Search as a PyTorch user writes it: blocks of the matrix product and topk."""
    features = torch.cat([query, gallery])
    squares = features.square().sum(1)
    nearest = []
    for begin in range(0, len(features), 1024):
        rows = slice(begin, begin + 1024)
        distance = torch.addmm(squares, features[rows], features.t(), alpha=-2).add_(squares[rows, None])
        nearest.append(distance.clamp_(min=0).topk(K1 + 1, largest=False).values)
    return torch.cat(nearest)


def _faiss_flat(
    query: Tensor, gallery: Tensor, *, neighbours: Tensor, largest: Tensor, products: Tensor, stage: str
) -> Tensor:
    """Faiss's exact index, where faiss is installed."""
    faiss = importlib.import_module("faiss")
    features = torch.cat([query, gallery]).cpu().numpy()
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)
    return torch.from_numpy(index.search(features, K1 + 1)[0]).clamp_(min=0).to(query)


FORMULATIONS = (
    Formulation(
        "published",
        _published,
        lambda case, mode, dtype: mode.name != "search" and case.sizes["gallery"] <= 20_000,
    ),
    Formulation("blocked topk", _blocked_topk, lambda case, mode, dtype: mode.name == "search"),
    Formulation(
        "faiss flat",
        _faiss_flat,
        lambda case, mode, dtype: mode.name == "search" and dtype == torch.float32,
    ),
)


# --------------------------------------------------------------------------------------------- checks


def reference(
    query: Tensor, gallery: Tensor, *, neighbours: Tensor, largest: Tensor, products: Tensor, stage: str
) -> Tensor:
    """The definition in float64 on given lists, sparse so that Market size can be checked."""
    if stage == "search":
        return blocked_topk(query, gallery)
    features, queries = torch.cat([query, gallery]).cpu().numpy(), len(query)
    rank, scale = neighbours.cpu().numpy(), largest.cpu().double().numpy()

    def distance(item: int, others: Array) -> Array:
        return ((features[others] - features[item]) ** 2).sum(1) / scale[item]

    encoding = _encodings(rank, distance, False, np.float64)
    rows: list[dict[int, float]] = []
    holders: list[list[tuple[int, float]]] = [[] for _ in rank]
    for item in range(len(rank)):
        row: dict[int, float] = {}
        for other in rank[item, :K2]:
            for column, weight in zip(*encoding[other], strict=True):
                row[int(column)] = row.get(int(column), 0.0) + float(weight) / K2
        rows.append(row)
        for column, weight in row.items():
            holders[column].append((item, weight))
    listed = [
        (np.array([item for item, _ in each], np.int64), np.array([weight for _, weight in each]))
        for each in holders
    ]
    squares = (features**2).sum(1)
    result = squares[:queries, None] + squares[queries:] - 2 * (features[:queries] @ features[queries:].T)
    for item in range(queries):
        shared = np.zeros(len(rank))
        for column, weight in rows[item].items():
            others, weights = listed[column]
            shared[others] += np.minimum(weight, weights)
        jaccard = 1 - shared[queries:] / (2 - shared[queries:])
        original = np.maximum(result[item], 0) / scale[item]
        result[item] = (1 - LAMBDA) * jaccard + LAMBDA * original
    return torch.from_numpy(result).to(query.device)


BENCHMARK = Benchmark(
    name="k_reciprocal",
    ours=ours,
    reference=reference,
    formulations=FORMULATIONS,
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    tolerance={torch.float32: 5e-3, torch.float64: 1e-9, torch.float16: 5e-2, torch.bfloat16: 5e-2},
    sweep_modes=("rerank", "search"),
    table_cases={"cpu": ("small", "market"), "cuda": ("small", "market")},
    table_modes=("rerank", "search", "sparse"),
    headline="rerank",
    busy_with="blocked topk",  # searching alone; the published algorithm uses one thread
)
