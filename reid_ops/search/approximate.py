"""Approximate search over faiss: inverted lists (with or without product quantisation) and HNSW graphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

KINDS = ("ivf", "ivfpq", "hnsw")

# Candidates taken per result wanted, before exact scores choose: codes of a few bytes mislead, vectors don't.
_REFINE = {"ivf": 1, "ivfpq": 10, "hnsw": 1}
_LEAST_REFINED = 100  # of them at least, where they are chosen by codes
_LINKS = 32  # of an HNSW node
_BUILD_EFFORT = 128
_LEAST_FOR_BYTES = 39 * 256  # items that 256 centroids per sub-quantiser want
LEAST = 16  # items that codes of four bits can be trained with; fewer are searched exactly


@dataclass(frozen=True)
class RecallReport:
    """What a recall target led to, measured on gallery items (or given queries) against exact search.

    Attributes:
        target: recall asked for.
        recall: share of the true ``k`` nearest that were found, mean over the sample.
        reached: whether that is the target or more.
        k: neighbours counted.
        sample: number of queries measured on.
        parameter: ``"nprobe"`` or ``"efSearch"``.
        value: the least tried value of it that reaches the target, or the largest there is.
    """

    target: float
    recall: float
    reached: bool
    k: int
    sample: int
    parameter: str
    value: int


def import_faiss() -> Any:
    """The faiss module, or an error that says how to get it."""
    try:
        import faiss
    except ImportError as error:
        raise RuntimeError(
            "GalleryIndex: this needs faiss, which is not installed: `pip install reid-ops[search]` "
            "(faiss-gpu on Linux x86-64, else faiss-cpu)"
        ) from error
    return faiss


class Approximate:
    """A trained faiss index over positions 0..N-1, and how hard it searches."""

    def __init__(self, kind: str, metric: str, index: Any) -> None:
        self.kind, self.metric, self.index = kind, metric, index
        self.effort = 1 if kind != "hnsw" else 16
        self.report: RecallReport | None = None
        self.trained_on = int(index.ntotal)
        self.gpus: list[int] = []  # where it is searched; more than one: in shards
        self._gpu: Any = None

    @staticmethod
    def build(kind: str, metric: str, vectors: np.ndarray) -> Approximate:
        """Trains on the vectors, at least :data:`LEAST`, then adds them."""
        faiss = import_faiss()
        count, length = vectors.shape
        measure = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(length, _LINKS, measure)
            index.hnsw.efConstruction = _BUILD_EFFORT
        else:
            lists = max(1, min(int(4 * count**0.5), count // 39))
            coarse = faiss.IndexFlat(length, measure)
            if kind == "ivf":
                index = faiss.IndexIVFFlat(coarse, length, lists, measure)
            else:
                bits = 8 if count >= _LEAST_FOR_BYTES else 4
                index = faiss.IndexIVFPQ(coarse, length, lists, _subquantizers(length), bits, measure)
            index.cp.min_points_per_centroid = 1  # small galleries are as the user wants them: no warning
            if kind == "ivfpq":
                index.pq.cp.min_points_per_centroid = 1
                index.pq.cp.max_points_per_centroid = 64  # exact scores choose in the end: good codes
                index.pq.cp.niter = 10  # are found in a tenth of the time that the best take
            step = max(1, count // (256 * lists)) if lists else 1  # faiss samples; don't hand it more
            index.train(np.ascontiguousarray(vectors[::step]))
        result = Approximate(kind, metric, index)
        result.add(vectors)
        result.trained_on = count
        return result

    def add(self, vectors: np.ndarray) -> None:
        """Adds the next positions."""
        for start in range(0, len(vectors), 1 << 16):
            self.index.add(np.ascontiguousarray(vectors[start : start + (1 << 16)]))
        self._gpu = None

    def _on_gpus(self) -> Any:
        """The index's copy on the GPUs, made when it is first needed and after every addition."""
        faiss = import_faiss()
        if self._gpu is None:
            options = faiss.GpuMultipleClonerOptions()
            options.shard = len(self.gpus) > 1
            self._gpu = faiss.index_cpu_to_gpus_list(self.index, options, self.gpus)
        faiss.GpuParameterSpace().set_index_parameter(self._gpu, "nprobe", self.effort)
        return self._gpu

    def candidates(self, query: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        """Positions ``(Q, m)``, m >= k, -1 for none; not in order."""
        faiss = import_faiss()
        wanted = max(_REFINE[self.kind] * k, _LEAST_REFINED if self.kind == "ivfpq" else k)
        wanted = min(wanted, int(self.index.ntotal))
        if self.gpus and allowed is None:
            return self._on_gpus().search(query, wanted)[1]
        selector = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        if self.kind == "hnsw":
            options = faiss.SearchParametersHNSW(efSearch=max(self.effort, wanted), sel=selector)
        else:
            options = faiss.SearchParametersIVF(nprobe=self.effort, sel=selector)
        return self.index.search(query, wanted, params=options)[1]

    @property
    def parameter(self) -> tuple[str, int]:
        """What :attr:`effort` is, and the most that makes sense."""
        return ("efSearch", 4096) if self.kind == "hnsw" else ("nprobe", int(self.index.nlist))

    def tune(
        self, target: float, k: int, truth: np.ndarray, find: Callable[[int], np.ndarray]
    ) -> RecallReport:
        """Sets the least effort that reaches the target.

        ``truth`` ``(S, k)`` holds the true neighbours, -1 for none; ``find(effort)`` those found with it.
        """
        name, most = self.parameter
        tried: dict[int, float] = {}

        def recall(effort: int) -> float:
            if effort not in tried:
                found = find(effort)
                hits = (truth[:, :, None] == found[:, None, :]) & (truth[:, :, None] >= 0)
                wanted = int((truth >= 0).sum())
                tried[effort] = float(hits.any(2).sum() / wanted) if wanted else 1.0
            return tried[effort]

        low, high = 0, 1
        while recall(high) < target and high < most:
            low, high = high, min(2 * high, most)
        while high - low > 1 and recall(high) >= target:
            middle = (low + high) // 2
            low, high = (low, middle) if recall(middle) >= target else (middle, high)
        self.effort = high
        reached = recall(high) >= target
        self.report = RecallReport(target, recall(high), reached, k, len(truth), name, high)
        if not reached:
            warnings.warn(
                f"GalleryIndex: {self.kind} reaches a recall of {recall(high):.4f} at most, not {target}",
                RuntimeWarning,
                stacklevel=3,
            )
        return self.report

    def facts(self) -> dict[str, Any]:
        """What a file must say besides the faiss index itself."""
        report = None if self.report is None else asdict(self.report)
        return {"effort": self.effort, "trained_on": self.trained_on, "report": report}

    def write(self, write_bytes: Callable[[bytes], int]) -> None:
        """Streams the faiss index out."""
        faiss = import_faiss()
        faiss.write_index(self.index, faiss.PyCallbackIOWriter(write_bytes))

    @staticmethod
    def read(kind: str, metric: str, facts: dict[str, Any], read: Callable[[int], bytes]) -> Approximate:
        """The inverse of :meth:`facts` and :meth:`write`."""
        faiss = import_faiss()
        result = Approximate(kind, metric, faiss.read_index(faiss.PyCallbackIOReader(read)))
        result.effort, result.trained_on = int(facts["effort"]), int(facts["trained_on"])
        result.report = None if facts["report"] is None else RecallReport(**facts["report"])
        return result


def _subquantizers(length: int) -> int:
    """Largest divisor of the length with at least eight components to a code."""
    return max(parts for parts in range(1, max(1, length // 8) + 1) if length % parts == 0)
