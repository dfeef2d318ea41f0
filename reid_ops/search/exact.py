"""Exact search by blocked matrix products: the same answer on every engine and device, ties by position.

A float32 product finds a few candidates more than asked for; their scores are then computed anew in
float64, rounded to float32 and sorted by (score, position). Where rounding in the first step might have
lost a candidate, more are taken until it can't have.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops import _checks

_EXTRA = 8  # candidates beyond k
_QUERIES = 1024  # queries and gallery rows of a block: 32 MB of scores
_ROWS = 8192
_GATHERED = 1 << 22  # elements of gathered candidates at a time


@dataclass(frozen=True)
class Gallery:
    """What is searched. ``allowed`` ``(N,)`` bool or None; ``cameras`` ``(N,)``, -1: unknown."""

    vectors: np.ndarray
    cameras: np.ndarray
    allowed: np.ndarray | None
    metric: str
    placed: tuple[tuple[int, Tensor], ...] = ()  # (first row, rows) kept on devices; empty: on the CPU


def place(vectors: np.ndarray, device: torch.device, shards: int) -> tuple[tuple[int, Tensor], ...]:
    """The vectors in ``shards`` runs, on as many CUDA devices in turn, or views of them on the CPU."""
    bounds = [len(vectors) * shard // shards for shard in range(shards + 1)]
    parts = []
    for shard, (start, stop) in enumerate(itertools.pairwise(bounds)):
        target = torch.device("cuda", shard) if device.type == "cuda" and shards > 1 else device
        parts.append((start, torch.from_numpy(np.ascontiguousarray(vectors[start:stop])).to(target)))
    return tuple(parts)


@_checks.outside_autocast
def search(
    gallery: Gallery, query: np.ndarray, query_cameras: np.ndarray | None, k: int, engine: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 and positions int64 ``(Q, min(k, N))``, best first; -1 and NaN where fewer fit."""
    total = len(gallery.vectors)
    k = min(k, total)
    scores = np.full((len(query), k), np.nan, np.float32)
    slots = np.full((len(query), k), -1, np.int64)
    rows = np.arange(len(query))
    wanted = min(k + _EXTRA, total)
    while len(rows) and wanted > 0:
        cameras = None if query_cameras is None else query_cameras[rows]
        keys, candidates = _candidates(gallery, query[rows], cameras, wanted, engine)
        found_scores, found, exact = rescore(gallery, query[rows], candidates)
        width = min(k, wanted)
        scores[rows, :width], slots[rows, :width] = found_scores[:, :width], found[:, :width]
        if wanted == total:
            break
        # Whatever was left out has a key of at least the last one's, up to rounding.
        farthest = exact[:, :width].max(1)
        last = keys[:, -1] - _tolerance(gallery, query[rows], farthest)
        unsure = np.isfinite(keys[:, -1]) & (farthest >= last)
        rows = rows[unsure]
        wanted = min(4 * wanted, total)
    return scores, slots


@_checks.outside_autocast
def rescore(
    gallery: Gallery, query: np.ndarray, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates ``(Q, m)`` (-1: none) by score, then position: scores, positions, keys in float64."""
    width, length = candidates.shape[1], query.shape[1]
    step = max(1, _GATHERED // max(1, width * length))
    parts = []
    for start in range(0, len(query), step):
        slots = candidates[start : start + step]
        vectors = torch.from_numpy(gallery.vectors[np.maximum(slots, 0)]).double()
        left = torch.from_numpy(query[start : start + step]).double()[:, None]
        cosine = gallery.metric == "cosine"
        key = -(vectors * left).sum(-1) if cosine else (vectors - left).square().sum(-1)
        key[torch.from_numpy(slots < 0)] = math.inf
        parts.append(key.numpy())
    keys = np.concatenate(parts) if parts else np.empty(candidates.shape)
    # Ranked as returned, in float32: what is equal in theory may differ in the last bits of float64.
    ranked = (keys if gallery.metric == "cosine" else np.sqrt(keys)).astype(np.float32)
    order = np.lexsort((candidates, ranked))
    keys, ranked, slots = (np.take_along_axis(each, order, 1) for each in (keys, ranked, candidates))
    scores = -ranked if gallery.metric == "cosine" else ranked
    return np.where(slots >= 0, scores, np.float32(np.nan)), slots, keys


def _tolerance(gallery: Gallery, query: np.ndarray, farthest: np.ndarray) -> np.ndarray:
    """How far from the exact one the float32 key of an item may lie that is as near as the farthest ``(Q,)``.

    With room to spare. Rounding errors of a sum of D terms add up like a random walk: sqrt(D) units in the
    last place of |q|^2 + |x|^2. Who is as near as r has |x| <= |q| + r: a long vector far out, whose own key
    is rough, makes no other item's rough.
    """
    unit = 8 * math.sqrt(query.shape[1]) * 2.0**-23
    if gallery.metric == "cosine":
        return np.full(len(query), unit)
    squares = np.einsum("qd,qd->q", query, query, dtype=np.float64)
    reach = np.where(np.isfinite(farthest), farthest, 0.0)  # infinite: there are no others
    return unit * (squares + (np.sqrt(squares) + np.sqrt(reach)) ** 2)


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), _ROWS):
        yield vectors[start : start + _ROWS]


def _candidates(
    gallery: Gallery, query: np.ndarray, cameras: np.ndarray | None, wanted: int, engine: str
) -> tuple[np.ndarray, np.ndarray]:
    """Keys float64 and positions ``(Q, wanted)`` by float32 products, ascending by key."""
    if engine == "faiss" and gallery.allowed is None and cameras is None:
        import faiss

        inner = gallery.metric == "cosine"
        measure = faiss.METRIC_INNER_PRODUCT if inner else faiss.METRIC_L2
        keys, slots = faiss.knn(query, gallery.vectors, wanted, measure)
        return np.where(slots < 0, np.inf, -keys if inner else keys).astype(np.float64), slots
    with _full_precision:
        return _torch_candidates(gallery, query, cameras, wanted)


def _torch_candidates(
    gallery: Gallery, query: np.ndarray, cameras: np.ndarray | None, wanted: int
) -> tuple[np.ndarray, np.ndarray]:
    best_keys = torch.full((len(query), wanted), math.inf)
    best_slots = torch.full((len(query), wanted), -1, dtype=torch.int64)
    for first, vectors in _runs(gallery):
        device = vectors.device
        stop = first + len(vectors)
        allowed = (
            None if gallery.allowed is None else torch.from_numpy(gallery.allowed[first:stop]).to(device)
        )
        item_cameras = None
        if cameras is not None:
            item_cameras = torch.from_numpy(np.ascontiguousarray(gallery.cameras[first:stop])).to(device)
        squares = vectors.square().sum(1) if gallery.metric == "euclidean" else None
        for start in range(0, len(query), _QUERIES):
            rows = slice(start, start + _QUERIES)
            block = torch.from_numpy(query[rows]).to(device)
            if squares is None:
                keys = (block @ vectors.T).neg_()
            else:
                keys = torch.addmm(squares[None, :], block, vectors.T, alpha=-2.0)
                keys += block.square().sum(1)[:, None]
            if allowed is not None:
                keys.masked_fill_(~allowed, math.inf)
            if cameras is not None and item_cameras is not None:
                own = torch.from_numpy(cameras[rows]).to(device)[:, None]
                keys.masked_fill_((item_cameras == own) & (own >= 0), math.inf)
            keys, slots = keys.topk(min(wanted, keys.shape[1]), dim=1, largest=False, sorted=False)
            slots = torch.where(keys == math.inf, -1, slots + first)
            merged = torch.cat([best_keys[rows], keys.cpu()], 1)
            merged_slots = torch.cat([best_slots[rows], slots.cpu()], 1)
            best_keys[rows], chosen = merged.topk(wanted, dim=1, largest=False)
            best_slots[rows] = merged_slots.gather(1, chosen)
    return best_keys.double().numpy(), best_slots.numpy()


def _runs(gallery: Gallery) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows as a tensor) in blocks; a mapped file is read a block at a time."""
    for first, vectors in gallery.placed:
        for start in range(0, len(vectors), _ROWS):
            yield first + start, vectors[start : start + _ROWS]
    if not gallery.placed:
        for index, block in enumerate(_blocks(gallery.vectors)):
            yield index * _ROWS, torch.from_numpy(block if block.flags.writeable else np.array(block))


class _FullPrecision:
    """No TF32 on CUDA, no bfloat16 in oneDNN: their few digits would lose candidates.

    By the settings of each backend: those that came before them (``allow_tf32``) don't give "medium" back,
    and raise where a program has used the new ones. They are the process's: the first of several threads
    lowers them, the last puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Any, str]] = []

    def __enter__(self) -> None:
        backends: Any = torch.backends  # its stubs don't have all
        settings = (backends.cuda.matmul, backends.mkldnn.matmul)
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                before = [(setting, setting.fp32_precision) for setting in settings]
                self._before = [(setting, value) for setting, value in before if value in ("tf32", "bf16")]
                for setting, _ in self._before:
                    setting.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for setting, value in self._before:
                    setting.fp32_precision = "none"  # as torch.backends.fp32_precision has it
                    if setting.fp32_precision != value:
                        setting.fp32_precision = value


_full_precision = _FullPrecision()
