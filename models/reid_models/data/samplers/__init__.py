"""Samplers: which images make a batch. A recipe's ``data.sampler`` names one."""

from .base import TrainSampler
from .fitted import FittedSampler
from .identity import IdentitySampler
from .pairs import PairSampler
from .registry import SAMPLERS, make_sampler
from .shuffled import ShuffledSampler

__all__ = [
    "SAMPLERS",
    "FittedSampler",
    "IdentitySampler",
    "PairSampler",
    "ShuffledSampler",
    "TrainSampler",
    "make_sampler",
]
