"""Losses and how a network's outputs are combined into one: :class:`WeightedLoss` over :class:`LossTerm`."""

from .combination import LOSSES, WeightedLoss
from .contrastive import ContrastiveLoss
from .term import HSGNET_LOSSES, LossTerm
from .triplet import TripletLoss

__all__ = ["HSGNET_LOSSES", "LOSSES", "ContrastiveLoss", "LossTerm", "TripletLoss", "WeightedLoss"]
