"""Ranking metrics: CMC, mAP and mINP, single-shot CMC, ROC, and the efficiency score.

Distances come as a matrix, as top-K lists or, block by block, from features; as numpy arrays or torch
tensors. Ties are broken by gallery position everywhere, so every path gives the same numbers.
"""

from .efficiency import EfficiencyScore, efficiency_score
from .multi_query import evaluate_multi_query, pool_queries
from .protocols import PROTOCOLS, Protocol
from .ranking import evaluate_ranking
from .report import RankingReport
from .single_shot import SingleShotReport, single_shot_cmc
from .streaming import RankingAccumulator, evaluate_features
from .tracks import evaluate_tracks
from .verification import VerificationReport, verification_curve

__all__ = [
    "PROTOCOLS",
    "EfficiencyScore",
    "Protocol",
    "RankingAccumulator",
    "RankingReport",
    "SingleShotReport",
    "VerificationReport",
    "efficiency_score",
    "evaluate_features",
    "evaluate_multi_query",
    "evaluate_ranking",
    "evaluate_tracks",
    "pool_queries",
    "single_shot_cmc",
    "verification_curve",
]
