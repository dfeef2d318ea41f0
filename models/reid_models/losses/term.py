"""One term of a training loss, as a recipe declares it: :class:`LossTerm`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._suggest import unknown

TARGETS = ("identity", "image", "pair", "none")
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class LossTerm:
    """One term of a sum: ``weight * loss(outputs[output], target)``.

    Attributes:
        loss: a name in :data:`LOSSES`, or ``package.module:Class``.
        output: the network's output that the loss sees, ``"logits"`` or ``"features"`` for example.
        weight: its factor, at least 0.
        options: arguments of the loss.
        target: what the loss compares with: ``"identity"``, classes (N,) int64; ``"image"``, the images
            (N, 3, H, W) that the network saw, augmented and normalised; ``"pair"``, int64 (B,), 1 where the
            sampler's pair shows one identity; ``"none"``: the loss sees the output alone.
        reduce: an output of several heads, a tuple, gives their ``"mean"`` or ``"sum"``.

    Raises:
        ValueError: weight, target or reduce is not as described.
    """

    loss: str
    output: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    target: str = "identity"
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"WeightedLoss: weight of {self.loss} must be at least 0, got {self.weight}")
        for value, argument, known in ((self.target, "target", TARGETS), (self.reduce, "reduce", REDUCTIONS)):
            if value not in known:
                raise unknown(f"{argument} of {self.loss}", value, known)

    @property
    def name(self) -> str:
        """Under which its value is logged."""
        return f"{self.loss.rpartition(':')[2]}({self.output})"

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> LossTerm:
        """From the fields as a recipe has them.

        Raises:
            ValueError: a field is unknown (the nearest is suggested) or missing, or as the class.
        """
        known = cls.__dataclass_fields__
        for key in fields:
            if key not in known:
                raise unknown("field of a loss term", key, known)
        for key in ("loss", "output"):
            if key not in fields:
                raise ValueError(f"WeightedLoss: a term must have {key!r}, got {dict(fields)}")
        return cls(**fields)
