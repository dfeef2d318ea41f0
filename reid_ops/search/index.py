"""GalleryIndex: features in, ranked identifiers out."""

from __future__ import annotations

import importlib.util
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_ops import _checks
from reid_ops.k_reciprocal import k_reciprocal_rerank
from reid_ops.k_reciprocal.definition import MAX_K1, check_numbers, expansion

from . import exact
from .approximate import KINDS, LEAST, Approximate, RecallReport, import_faiss
from .contents import REBUILD_DEAD
from .files import Files
from .rows import NO_CAMERA, Rows, check_features

_OP = "GalleryIndex"
_METRICS = ("cosine", "euclidean")
_REBUILD_GROWTH = 2  # an approximate index is trained anew when the gallery has grown so many times
_FEW = 0.05  # a filter that leaves a smaller share is searched exactly
_LEAST_COUNTED, _MOST_COUNTED = 10, 100  # neighbours that recall counts, around the k of the first search
_SAMPLE = 256  # gallery items that recall is measured with


class GalleryIndex(Files):
    """Searches a gallery of features; keeps identifiers and cameras beside them.

    ``kind="flat"`` is exact, by faiss or by torch, with the same answers: scores are computed in float64 from
    the stored float32 vectors and rounded to float32; equal scores are ranked by position. ``"ivf"``,
    ``"ivfpq"`` and ``"hnsw"`` are faiss's approximate indexes; they are trained at the first search, their
    effort (``nprobe``, ``efSearch``) is the least that reaches the recall target on a sample, and their
    candidates get the same scores.

    Args:
        dim: length D of the features.
        metric: ``"cosine"`` (features are L2-normalised when they come in; scores are similarities, largest
            first) or ``"euclidean"`` (scores are distances, smallest first).
        kind: ``"flat"``, ``"ivf"``, ``"ivfpq"`` or ``"hnsw"``.
        device: ``"auto"`` (CUDA if torch sees a GPU), ``"cpu"`` or a CUDA device. Approximate kinds use
            the GPU if faiss does, and the CPU for filtered searches; ``"hnsw"`` always runs on the CPU.
        shards: spread the vectors over so many GPUs (on the CPU: search them in so many runs); None: 1.
        backend: of the flat kind: ``"faiss"``, ``"torch"``, or ``"auto"``: faiss on the CPU where it is
            installed, otherwise torch. Filtered flat searches always run in torch.
        recall: target of approximate kinds, in (0, 1].

    Attributes:
        attachments: bytes by name that are saved and loaded along and never looked into, such as the names of
            the items; empty at first.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
        RuntimeError: faiss is needed and not installed.

    Any number of threads may search at once; of their first searches one trains an approximate kind, and the
    others wait. Not to be changed by one thread while another one searches. Any number of processes may read
    a file that one writes: see :meth:`save`.

    Example:
        >>> index = GalleryIndex(2)
        >>> index.add(np.array([[1.0, 0.0], [0.0, 1.0]]), ids=[10, 20], cameras=[0, 1])
        array([10, 20])
        >>> index.search(np.array([[3.0, 4.0]]), k=2)
        (array([[0.8, 0.6]], dtype=float32), array([[20, 10]]))
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: str = "cosine",
        kind: str = "flat",
        device: str | torch.device = "auto",
        shards: int | None = None,
        backend: str = "auto",
        recall: float = 0.99,
    ) -> None:
        _checks.check_integer(dim, "dim", 1, 1 << 20, _OP)
        for argument, value, allowed in (
            ("metric", metric, _METRICS),
            ("kind", kind, ("flat", *KINDS)),
            ("backend", backend, ("auto", "faiss", "torch")),
        ):
            if value not in allowed:
                names = ", ".join(f'"{name}"' for name in allowed)
                raise ValueError(f"{_OP}: {argument} must be one of {names}, got {value!r}")
        if not 0.0 < recall <= 1.0:
            raise ValueError(f"{_OP}: recall must be in (0, 1], got {recall}")
        if kind != "flat" and backend == "torch":
            raise ValueError(f'{_OP}: backend "torch" is exact: kind must be "flat", got {kind!r}')
        self.dim, self.metric, self.kind, self.recall = dim, metric, kind, float(recall)
        self.device = _device(device)
        self.shards = _shards(shards, self.device)
        if kind != "flat" or backend == "faiss":
            import_faiss()
        on_cpu = self.device.type == "cpu" and self.shards == 1
        installed = importlib.util.find_spec("faiss") is not None
        self.backend = ("faiss" if on_cpu and installed else "torch") if backend == "auto" else backend
        self.generation = 0
        self.attachments: dict[str, bytes] = {}
        self._rows = Rows(dim)
        self._next_id = 0
        self._approximate: Approximate | None = None
        self._placed: tuple[tuple[int, Tensor], ...] = ()
        self._mapped = False
        self._source = None
        self._building = threading.RLock()

    def __repr__(self) -> str:
        options = f"metric={self.metric!r}, kind={self.kind!r}, device={str(self.device)!r}"
        return f"<GalleryIndex({self.dim}, {options}) of {len(self)} items>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_building"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _building=threading.RLock())

    # --------------------------------------------------------------------------------------- search

    def search(
        self, query: Any, k: int, *, cameras: Any = None, only: Any = None, exclude: Any = None
    ) -> tuple[Any, Any]:
        """The k best items of each query.

        Args:
            query: features ``(Q, D)``, numpy or torch, any floating type.
            k: from 1; may exceed the number of items N.
            cameras: the queries' cameras ``(Q,)``: items of the same camera are left out. A camera of -1,
                of query or item, is unknown and leaves nothing out.
            only: identifiers ``(n,)`` to search among; all must be known.
            exclude: identifiers ``(n,)`` to leave out; unknown ones do no harm.

        Returns:
            scores float32 ``(Q, min(k, N))``, best first, and identifiers int64 of that shape; where filters
            leave fewer items, NaN and -1. Torch tensors on the query's device if the query is one, else numpy
            arrays.

        Raises:
            TypeError, ValueError: an argument is refused (NaN and infinities name their row).
        """
        found_scores, slots, rows = self._search(query, k, cameras, only, exclude)
        return _like(query, found_scores, _names(rows, slots))

    def rerank(
        self,
        query: Any,
        k: int,
        k1: int = 20,
        k2: int | None = None,
        lambda_value: float = 0.3,
        *,
        candidates: int | None = None,
        cameras: Any = None,
        only: Any = None,
        exclude: Any = None,
    ) -> tuple[Any, Any]:
        """k-reciprocal re-ranking of each query's best candidates, each query for itself.

        Only the candidates' features meet, so a query costs O(candidates^2 D) whatever the gallery's size,
        and its result does not depend on the other queries. Neighbourhoods are those among the candidates:
        with as many candidates as items this is :func:`reid_ops.k_reciprocal_rerank` of one query.

        Args:
            query: features ``(Q, D)``.
            k: results per query, from 1.
            k1: as in :func:`reid_ops.k_reciprocal_rerank`.
            k2: as there.
            lambda_value: as there.
            candidates: how many items are re-ranked; None: 10 k, at least 5 k1 and 100.
            cameras: as in :meth:`search`.
            only: as there.
            exclude: as there.

        Returns:
            distances float32 ``(Q, min(k, N))``, smallest first, and identifiers, as :meth:`search`.

        Raises:
            TypeError, ValueError: as :meth:`search` and ``k_reciprocal_rerank``.
        """
        _checks.check_integer(k, "k", 1, 1 << 31, _OP)
        _checks.check_integer(k1, "k1", 1, MAX_K1, _OP)
        k2 = expansion(k1, k2)
        check_numbers(k1, k2, lambda_value, "soft", _OP)
        if candidates is None:
            candidates = max(10 * k, 5 * k1, 100)
        _checks.check_integer(candidates, "candidates", k, 1 << 31, _OP)
        _, slots, table = self._search(query, candidates, cameras, only, exclude)
        vectors = check_features(query, "query", self.dim, self.metric == "cosine")
        k = min(k, table.living)
        distances = np.full((len(vectors), k), np.nan, np.float32)
        names = np.full((len(vectors), k), -1, np.int64)
        for row, found in enumerate(slots):
            found = np.sort(found[found >= 0])  # by position, so that equal distances are ranked by it
            if len(found) == 0:
                continue
            values, order = k_reciprocal_rerank(
                torch.from_numpy(vectors[row : row + 1]).to(self.device),
                torch.from_numpy(table.vectors[found]).to(self.device),
                k1=k1, k2=k2, lambda_value=lambda_value, topk=min(k, len(found)),
            )  # fmt: skip
            width = values.shape[1]
            distances[row, :width] = values[0].cpu().numpy()
            names[row, :width] = table.ids[found[order[0].cpu().numpy()]]
        return _like(query, distances, names)

    def build(self, *, queries: Any = None, k: int = 10) -> RecallReport | None:
        """Trains an approximate kind now and sets its effort; a flat index has nothing to do.

        Args:
            queries: features ``(S, D)`` like those to come; None: a sample of the gallery, each item looking
                for its neighbours other than itself. Real queries lie farther from their neighbours, so
                the recall measured on them is the one to trust.
            k: neighbours that recall counts, from 1.

        Returns:
            What was measured, also at :attr:`recall_report`; None for a flat index, and for fewer than 16
            items, which every kind searches exactly.
        """
        _checks.check_integer(k, "k", 1, 1 << 31, _OP)
        if self.kind == "flat":
            return None
        with self._building:
            return self._build(queries, k)

    def _build(self, queries: Any, k: int) -> RecallReport | None:
        """Rows and what is trained on them are put in place at the end, for searches of other threads."""
        rows = self._rows
        if rows.dead:
            self._check_writable()
            rows = rows.compacted()
        vectors = rows.vectors
        itself = None
        if queries is None:
            itself = np.random.default_rng(0).choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False)
            sample = np.array(vectors[itself])
        else:
            sample = check_features(queries, "queries", self.dim, self.metric == "cosine")
            if len(sample) == 0:
                raise ValueError(f"{_OP}: queries must have at least one row")
        if len(vectors) < LEAST:
            self._rows, self._approximate = rows, None
            return None
        approximate = Approximate.build(self.kind, self.metric, vectors)
        gallery = self._gallery(rows, None)
        wanted = min(k + (itself is not None), len(vectors))
        truth = exact.search(gallery, sample, None, wanted, self._engine())[1]
        if itself is not None:
            truth[truth == itself[:, None]] = -1

        def find(effort: int) -> np.ndarray:
            approximate.effort = effort
            return _best_candidates(approximate, gallery, sample, wanted)[1]

        report = approximate.tune(self.recall, k, truth, find)
        self._rows, self._approximate = rows, approximate
        self._to_gpus()
        return report

    @property
    def recall_report(self) -> RecallReport | None:
        """What the recall target led to; None before an approximate index is built, and for a flat one."""
        return None if self._approximate is None else self._approximate.report

    # -------------------------------------------------------------------------------------- internal

    def _search(
        self, query: Any, k: int, cameras: Any, only: Any, exclude: Any
    ) -> tuple[np.ndarray, np.ndarray, Rows]:
        """Scores and positions ``(Q, min(k, N))``, and the table that these are of."""
        _checks.check_integer(k, "k", 1, 1 << 31, _OP)
        vectors = check_features(query, "query", self.dim, self.metric == "cosine")
        seen = self._check_cameras(cameras, len(vectors))
        rows, approximate = self._ready(k)
        k = min(k, rows.living)
        allowed = self._allowed(rows, only, exclude)
        if k == 0:
            return np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64), rows
        if approximate is None:
            return *exact.search(self._gallery(rows, allowed), vectors, seen, k, self._engine()), rows
        if seen is None:
            return *self._search_group(rows, approximate, vectors, k, allowed), rows
        scores = np.empty((len(vectors), k), np.float32)
        slots = np.empty((len(vectors), k), np.int64)
        for camera in np.unique(seen):
            group = seen == camera
            mask = allowed
            if camera != NO_CAMERA:
                other = rows.cameras != camera
                mask = other if allowed is None else allowed & other
            scores[group], slots[group] = self._search_group(rows, approximate, vectors[group], k, mask)
        return scores, slots, rows

    def _search_group(
        self, rows: Rows, approximate: Approximate, vectors: np.ndarray, k: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """An approximate search under one filter; exact where the filter leaves few items."""
        gallery = self._gallery(rows, allowed)
        if allowed is not None and allowed.sum() <= max(_FEW * len(allowed), k):
            return exact.search(gallery, vectors, None, k, self._engine())
        return _best_candidates(approximate, gallery, vectors, k)

    def _ready(self, k: int) -> tuple[Rows, Approximate | None]:
        """The table and, of an approximate kind, what is trained on it: one belongs to the other."""
        if self.kind == "flat":
            return self._rows, None
        with self._building:
            built, rows = self._approximate, self._rows
            if built is None:
                stale = rows.living >= LEAST
            else:
                stale = rows.living > _REBUILD_GROWTH * max(1, built.trained_on)
                stale = (stale or rows.dead > REBUILD_DEAD * rows.count) and not self._mapped
            if stale:
                self.build(k=min(max(k, _LEAST_COUNTED), _MOST_COUNTED))
            return self._rows, self._approximate

    def _gallery(self, rows: Rows, allowed: np.ndarray | None) -> exact.Gallery:
        spread = self.device.type == "cuda" or self.shards > 1
        # A mapped gallery may be too large for any memory: it is searched block by block as it is read.
        if (
            spread
            and not self._placed
            and self._engine() == "torch"
            and self.kind == "flat"
            and not self._mapped
        ):
            self._placed = exact.place(rows.vectors, self.device, self.shards)
        return exact.Gallery(rows.vectors, rows.cameras, allowed, self.metric, self._placed)

    def _engine(self) -> str:
        return self.backend if self.kind == "flat" else "torch"

    def _to_gpus(self) -> None:
        if self._approximate is None or self.device.type != "cuda" or self.kind == "hnsw":
            return
        first = (self.device.index or 0) if self.shards == 1 else 0
        if import_faiss().get_num_gpus() >= first + self.shards:
            self._approximate.gpus = list(range(first, first + self.shards))


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f'{_OP}: device must be "auto", "cpu" or a CUDA device, got {device!r}')
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{_OP}: device is {device!r}, but torch sees no CUDA device")
    return chosen


def _shards(shards: int | None, device: torch.device) -> int:
    if shards is None:
        return 1
    _checks.check_integer(shards, "shards", 1, 1024, _OP)
    if device.type == "cuda" and shards > torch.cuda.device_count():
        raise ValueError(f"{_OP}: shards must be at most the {torch.cuda.device_count()} GPUs, got {shards}")
    return shards


def _best_candidates(
    approximate: Approximate, gallery: exact.Gallery, vectors: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and positions ``(Q, k)`` of what the approximate search finds."""
    candidates = approximate.candidates(vectors, k, gallery.allowed)
    scores, slots, _ = exact.rescore(gallery, vectors, candidates)
    padding = ((0, 0), (0, max(0, k - slots.shape[1])))
    return (
        np.pad(scores[:, :k], padding, constant_values=np.nan),
        np.pad(slots[:, :k], padding, constant_values=-1),
    )


def _names(rows: Rows, slots: np.ndarray) -> np.ndarray:
    """Identifiers of positions, -1 where there is none."""
    return np.where(slots >= 0, rows.ids[np.maximum(slots, 0)], -1) if rows.count else slots


def _like(query: Any, scores: np.ndarray, names: np.ndarray) -> tuple[Any, Any]:
    if isinstance(query, Tensor):
        return torch.from_numpy(scores).to(query.device), torch.from_numpy(names).to(query.device)
    return scores, names
