"""Losses and how a network's outputs are combined into one: :class:`WeightedLoss` over :class:`LossTerm`."""

from .combination import HSGNET_LOSSES, LOSSES, LossTerm, WeightedLoss
from .triplet import TripletLoss

__all__ = ["HSGNET_LOSSES", "LOSSES", "LossTerm", "TripletLoss", "WeightedLoss"]
