"""Losses and how a network's outputs are combined into one: :class:`WeightedLoss` over :class:`LossTerm`."""

from .combination import LOSSES, WeightedLoss
from .contrastive import ContrastiveLoss
from .term import LossTerm
from .triplet import TripletLoss

__all__ = ["LOSSES", "ContrastiveLoss", "LossTerm", "TripletLoss", "WeightedLoss"]
