"""Weighted sums of losses, declared as data (HSGNet, Eq. 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from .._suggest import unknown
from .triplet import TripletLoss

#: Losses by name. Label smoothing by Eqs. 13 and 14 is PyTorch's: ``{"label_smoothing": 0.1}``.
LOSSES: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"cross_entropy": nn.CrossEntropyLoss, "triplet": TripletLoss}
)


@dataclass(frozen=True)
class LossTerm:
    """One term of a sum: ``weight * loss(outputs[output], identities)``.

    Attributes:
        loss: a name in :data:`LOSSES`.
        output: the network's output that the loss sees, ``"logits"`` or ``"features"``.
        weight: its factor, at least 0.
        options: arguments of the loss.
    """

    loss: str
    output: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


#: HSGNet's total loss, Eqs. 12 to 15: triplet (batch-hard) with alpha 0.5, cross-entropy with beta 1.0.
HSGNET_LOSSES: tuple[LossTerm, ...] = (
    LossTerm("triplet", "features", 0.5, MappingProxyType({"margin": 1.2})),
    LossTerm("cross_entropy", "logits", 1.0, MappingProxyType({"label_smoothing": 0.1})),
)


class WeightedLoss(nn.Module):
    """The weighted sum of losses over a network's named outputs.

    Args:
        terms: :class:`LossTerm`, or mappings with its fields as they come from a recipe in YAML. Two terms
            may not have the same loss and output.

    Raises:
        TypeError, ValueError: no terms, an unknown loss, a weight below 0 or an option that the loss refuses.

    Example:
        >>> losses = WeightedLoss(HSGNET_LOSSES)(model(images), identities)
        >>> losses["total"].backward()
        >>> sorted(losses)
        ['cross_entropy(logits)', 'total', 'triplet(features)']
    """

    def __init__(self, terms: Sequence[LossTerm | Mapping[str, Any]]) -> None:
        super().__init__()
        self.terms = tuple(term if isinstance(term, LossTerm) else _term(term) for term in terms)
        if not self.terms:
            raise ValueError("WeightedLoss: terms must hold at least one term, got none")
        for term in self.terms:
            if term.loss not in LOSSES:
                raise unknown("loss", term.loss, LOSSES)
            if not 0 <= term.weight < float("inf"):
                raise ValueError(f"WeightedLoss: weight of {term.loss} must be at least 0, got {term.weight}")
        self.names = tuple(f"{term.loss}({term.output})" for term in self.terms)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"WeightedLoss: terms must differ in loss or output, got {self.names}")
        self.losses = nn.ModuleList(LOSSES[term.loss](**term.options) for term in self.terms)

    def forward(self, outputs: Mapping[str, Tensor], identities: Tensor) -> dict[str, Tensor]:
        """Every term without its weight, by name, and their weighted sum as ``"total"``.

        Args:
            outputs: of the network in training.
            identities: (N,) int64 in [0, num_classes).

        Raises:
            ValueError: the network has no such output.
        """
        values: dict[str, Tensor] = {}
        total: Tensor | None = None
        for name, term, loss in zip(self.names, self.terms, self.losses, strict=True):
            if term.output not in outputs:
                raise ValueError(
                    f"WeightedLoss: outputs must have {term.output!r} for {name}, got {', '.join(outputs)}"
                )
            values[name] = loss(outputs[term.output], identities)
            weighted = term.weight * values[name]
            total = weighted if total is None else total + weighted
        assert total is not None
        return {"total": total, **values}


def _term(fields: Mapping[str, Any]) -> LossTerm:
    known = LossTerm.__dataclass_fields__
    for key in fields:
        if key not in known:
            raise unknown("field of a loss term", key, known)
    for key in ("loss", "output"):
        if key not in fields:
            raise ValueError(f"WeightedLoss: a term must have {key!r}, got {dict(fields)}")
    return LossTerm(**fields)
