"""Samplers: which images make a batch."""

from .identity import IdentitySampler

__all__ = ["IdentitySampler"]
