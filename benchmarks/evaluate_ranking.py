"""Benchmark of :func:`reid_ops.metrics.evaluate_ranking` against evaluators that sort each query's gallery.

The result that is compared is the average precision per query (0 where a query has no positive). Nothing is
differentiable; distances stand in the place of the tensors that gradients could be taken for.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.model import Benchmark, Case, Formulation, Inputs, Mode, Work
from reid_ops import metrics

_ROOT = Path(__file__).resolve().parents[1]
_JUNK = -1


def _sizes(queries: int, items: int, identities: int, cameras: int = 6) -> dict[str, int]:
    return {"queries": queries, "items": items, "identities": identities, "cameras": cameras}


CASES = (
    Case("Market-1501", _sizes(3368, 19732, 1100)),
    Case("Market-1501, 64 queries", _sizes(64, 19732, 1100), quick=True),
)
SWEEP = (
    *CASES,
    Case("VeRi-776", _sizes(1678, 11579, 200, 20)),
    Case("DukeMTMC-reID", _sizes(2228, 17661, 1110, 8)),
    Case("CUHK03-NP", _sizes(1400, 5332, 700, 2)),
    Case("1000 positives each", _sizes(256, 20000, 20)),
    Case("one query", _sizes(1, 100_000, 1000)),
    Case("tiny", _sizes(10, 100, 5, 2)),
)
MODES = (Mode("evaluate"),)


def make_inputs(case: Case, dtype: torch.dtype, device: torch.device, seed: int) -> Inputs:
    """Positives lie nearer than others on average, as features of a trained network put them."""
    sizes = case.sizes
    generator = torch.Generator().manual_seed(seed)

    def labels(count: int, below: int) -> Tensor:
        return torch.randint(below, (count,), generator=generator)

    query_ids, gallery_ids = (labels(sizes[name], sizes["identities"]) for name in ("queries", "items"))
    query_cameras, gallery_cameras = (labels(sizes[name], sizes["cameras"]) for name in ("queries", "items"))
    gallery_ids[torch.rand(sizes["items"], generator=generator) < 0.1] = _JUNK
    distance = torch.rand(sizes["queries"], sizes["items"], generator=generator)
    distance[query_ids[:, None] == gallery_ids] *= 0.5
    constant = {
        "query_ids": query_ids,
        "gallery_ids": gallery_ids,
        "query_cameras": query_cameras,
        "gallery_cameras": gallery_cameras,
    }
    return Inputs((distance.to(device, dtype),), constant)


def work(case: Case, mode: Mode, element_size: int) -> Work:
    """Every distance is read and compared at least once."""
    pairs = case.sizes["queries"] * case.sizes["items"]
    labels = 16 * (case.sizes["queries"] + case.sizes["items"])
    return Work(pairs, pairs, pairs * element_size + labels, case.sizes["queries"] * element_size)


def ours(distance: Tensor, **labels: Any) -> Tensor:
    """The evaluator's average precisions."""
    found = metrics.evaluate_ranking(distance, **labels).per_query_ap
    return torch.from_numpy(np.nan_to_num(found)).to(distance.device, distance.dtype)


Row = Callable[[np.ndarray, int, int, np.ndarray, np.ndarray], float]


def _by_query(row: Row) -> Callable[..., Tensor]:
    """An evaluator from what one query takes: (distances, identity, camera, gallery's two) -> AP."""

    def function(
        distance: Tensor,
        *,
        query_ids: Tensor,
        gallery_ids: Tensor,
        query_cameras: Tensor,
        gallery_cameras: Tensor,
    ) -> Tensor:
        rows = distance.cpu().numpy()
        identities, cameras = gallery_ids.numpy(), gallery_cameras.numpy()
        found = [
            row(values, identity, camera, identities, cameras)
            for values, identity, camera in zip(rows, query_ids.tolist(), query_cameras.tolist(), strict=True)
        ]
        return torch.tensor(found, dtype=distance.dtype, device=distance.device)

    return function


def _numpy_row(
    values: np.ndarray, identity: int, camera: int, identities: np.ndarray, cameras: np.ndarray
) -> float:
    """Sorts, then a few vectorised lines."""
    order = np.argsort(values, kind="stable")
    return _walk_vectorised(order, identity, camera, identities, cameras)


def _walk_vectorised(
    order: np.ndarray, identity: int, camera: int, identities: np.ndarray, cameras: np.ndarray
) -> float:
    ranked = identities[order]
    kept = (ranked != _JUNK) & ((ranked != identity) | (cameras[order] != camera))
    hit = np.flatnonzero(ranked[kept] == identity)
    return float(((np.arange(len(hit)) + 1) / (hit + 1)).mean()) if len(hit) else 0.0


def _python_row(
    values: np.ndarray, identity: int, camera: int, identities: np.ndarray, cameras: np.ndarray
) -> float:
    """Sorts, then the per-item loop that public re-ID evaluators run in Python."""
    order = np.argsort(values)
    kept = (identities[order] != _JUNK) & ((identities[order] != identity) | (cameras[order] != camera))
    matches = (identities[order] == identity)[kept].astype(np.int32)
    if not matches.any():
        return 0.0
    cumulative = matches.cumsum()
    precision = np.asarray([hits / (rank + 1.0) for rank, hits in enumerate(cumulative)]) * matches
    return float(precision.sum() / matches.sum())


@functools.cache
def _library() -> ctypes.CDLL:
    """The compiled contender, built at its first use."""
    source = Path(__file__).with_name("argsort_evaluator.cpp")
    target = _ROOT / "build" / "benchmarks" / "argsort_evaluator.so"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, "-O3", "-std=c++17", "-shared", "-fPIC", source, "-o", target], check=True)
    library = ctypes.CDLL(str(target))
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    library.average_precision.argtypes = [pointer, integer, integer, integer, pointer, pointer, integer]
    library.average_precision.restype = ctypes.c_double
    return library


def _compiled_row(
    values: np.ndarray, identity: int, camera: int, identities: np.ndarray, cameras: np.ndarray
) -> float:
    """Sorts by numpy's compiled argsort, then walks the list in C++."""
    order = np.argsort(values)
    return _library().average_precision(
        order.ctypes.data, len(order), identity, camera, identities.ctypes.data, cameras.ctypes.data, _JUNK
    )


def _torch_sort(distance: Tensor, **labels: Tensor) -> Tensor:
    """Batched torch: sort blocks of queries on the distances' device, then cumulative sums."""
    on = {name: value.to(distance.device) for name, value in labels.items()}
    step = max(1, (1 << 24) // distance.shape[1])
    found = []
    for start in range(0, len(distance), step):
        order = distance[start : start + step].argsort(dim=1)
        identity = on["query_ids"][start : start + step, None]
        camera = on["query_cameras"][start : start + step, None]
        ranked = on["gallery_ids"][order]
        match = ranked == identity
        kept = (ranked != _JUNK) & ~(match & (on["gallery_cameras"][order] == camera))
        hit = match & kept
        precision = hit.cumsum(1) / kept.cumsum(1).clamp(min=1)
        found.append((precision * hit).sum(1) / hit.sum(1).clamp(min=1))
    return torch.cat(found).to(distance.dtype)


def _few_queries(case: Case, mode: Mode, dtype: torch.dtype) -> bool:
    """The Python loop takes 15 ms a query: a minute for all of Market-1501."""
    return case.sizes["queries"] * case.sizes["items"] <= 1 << 21


FORMULATIONS = (
    Formulation("numpy_argsort", _by_query(_numpy_row), compilable=False),
    Formulation("compiled_argsort", _by_query(_compiled_row), compilable=False),
    Formulation("python_loop", _by_query(_python_row), _few_queries, compilable=False),
    Formulation("torch_sort", _torch_sort),
)

BENCHMARK = Benchmark(
    name="evaluate_ranking",
    ours=ours,
    reference=_by_query(_numpy_row),
    formulations=FORMULATIONS,
    cases=CASES,
    sweep=SWEEP,
    modes=MODES,
    make_inputs=make_inputs,
    work=work,
    # Most contenders sort unstably: among 66 million random float32 there are ties, which they order anyhow.
    tolerance={torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1},
    sweep_modes=("evaluate",),
    table_cases={"cpu": tuple(case.name for case in CASES), "cuda": (CASES[0].name,)},
    table_modes=("evaluate",),
    headline="evaluate",
    busy_with="torch_sort",  # the others use one thread
)
