"""Losses and how a network's outputs are combined into one: :class:`WeightedLoss` over :class:`LossTerm`."""

from .combination import LOSSES, WeightedLoss
from .contrastive import ContrastiveLoss
from .oim import OIMLoss
from .reconstruction import ReconstructionLoss
from .term import LossTerm
from .triplet import TripletLoss

__all__ = [
    "LOSSES",
    "ContrastiveLoss",
    "LossTerm",
    "OIMLoss",
    "ReconstructionLoss",
    "TripletLoss",
    "WeightedLoss",
]
