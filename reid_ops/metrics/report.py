"""What an evaluation gives: means over queries, and what each query contributed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Measures:
    """Per-query results of a block of queries, each ``(Q,)``. Ranks count from 0; -1: no positive."""

    positives: np.ndarray
    first_rank: np.ndarray
    last_rank: np.ndarray
    mean_precision: np.ndarray
    trapezoid: np.ndarray

    @staticmethod
    def join(blocks: list[Measures]) -> Measures:
        """The blocks' queries one after another."""
        names = ("positives", "first_rank", "last_rank", "mean_precision", "trapezoid")
        return Measures(*(np.concatenate([getattr(block, name) for block in blocks]) for name in names))


@dataclass(frozen=True)
class RankingReport:
    """Result of an evaluation. Means run over the queries that have a positive; the others are counted.

    Attributes:
        cmc: rank -> share of queries whose first positive is among that many items.
        mean_ap: mean of ``per_query_ap``.
        mean_inp: mean of ``per_query_inp``.
        per_query_ap: float64 ``(Q,)``, NaN where a query has no positive.
        per_query_inp: float64 ``(Q,)``, positives over the rank (from 1) of the last positive; NaN likewise.
        first_rank: int64 ``(Q,)``, rank of the first positive counted from 0; -1: none (found).
        positives: int64 ``(Q,)``, how many positives the gallery has for the query.
        evaluated: number of queries with a positive.
        excluded: number of queries without.
        incomplete: queries whose top-K list does not hold all their positives; 0 for distances. For them
            AP counts what is missing as never found and INP is 0: lower bounds.
        average_precision: the definition used.
        backend: ``"host"`` (C++) or ``"torch"``.
    """

    cmc: dict[int, float]
    mean_ap: float
    mean_inp: float
    per_query_ap: np.ndarray = field(repr=False)
    per_query_inp: np.ndarray = field(repr=False)
    first_rank: np.ndarray = field(repr=False)
    positives: np.ndarray = field(repr=False)
    evaluated: int
    excluded: int
    incomplete: int
    average_precision: str
    backend: str

    def __repr__(self) -> str:
        ranks = ", ".join(f"rank-{rank} {share:.4f}" for rank, share in self.cmc.items())
        left_out = f", {self.excluded} without a right item left out" if self.excluded else ""
        return (
            f"<RankingReport: mAP {self.mean_ap:.4f}, mINP {self.mean_inp:.4f}, {ranks}; "
            f"{self.evaluated} queries{left_out}>"
        )

    def cmc_curve(self, length: int) -> np.ndarray:
        """CMC at ranks 1 to ``length``, float64 ``(length,)``."""
        found = self.first_rank[self.first_rank >= 0]
        counts = np.bincount(np.minimum(found, length), minlength=length + 1)[:length]
        return np.cumsum(counts) / self.evaluated


def make_report(
    measures: Measures, ranks: tuple[int, ...], average_precision: str, backend: str, op: str
) -> RankingReport:
    """Means of the queries with a positive; ValueError if there is none."""
    counted = measures.positives > 0
    evaluated = int(counted.sum())
    if evaluated == 0:
        raise ValueError(
            f"{op}: no query has a positive in the gallery (same identity, not removed by camera or as "
            f"junk), got {len(counted)} queries"
        )
    first, last = measures.first_rank, measures.last_rank
    precision = getattr(measures, average_precision)
    inverse = np.where(last >= 0, measures.positives / np.maximum(last + 1, 1), 0.0)
    per_query_ap = np.where(counted, precision, np.nan)
    per_query_inp = np.where(counted, inverse, np.nan)
    return RankingReport(
        cmc={rank: float(((first >= 0) & (first < rank)).sum() / evaluated) for rank in ranks},
        mean_ap=float(precision[counted].mean()),
        mean_inp=float(inverse[counted].mean()),
        per_query_ap=per_query_ap,
        per_query_inp=per_query_inp,
        first_rank=first,
        positives=measures.positives,
        evaluated=evaluated,
        excluded=len(counted) - evaluated,
        incomplete=int((counted & (last < 0)).sum()),
        average_precision=average_precision,
        backend=backend,
    )
