"""Weighted sums of losses, declared as data (HSGNet, Eq. 12)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._registry import Registry, check_class, table
from .contrastive import ContrastiveLoss
from .oim import OIMLoss
from .reconstruction import ReconstructionLoss
from .term import LossTerm
from .triplet import TripletLoss

#: Losses by name, with those of papers (``LOSSES`` in ``losses.py``); a term may also name
#: ``package.module:Class``. Label smoothing by Eqs. 13 and 14 is PyTorch's: ``{"label_smoothing": 0.1}``.
LOSSES: Registry[type[nn.Module]] = Registry(
    "loss",
    {
        "contrastive": ContrastiveLoss,
        "cross_entropy": nn.CrossEntropyLoss,
        "oim": OIMLoss,
        "reconstruction": ReconstructionLoss,
        "triplet": TripletLoss,
    },
    "losses",
    table("LOSSES"),
    check_class(nn.Module),
)

#: Of an output's tensors, one for each head.
Output = Tensor | tuple[Tensor, ...]


class WeightedLoss(nn.Module):
    """The weighted sum of losses over a network's named outputs.

    A loss whose signature names ``num_classes`` or ``feature_length`` gets them. Every head of an output
    with several has a loss of its own, so that a loss with a state (buffers, which are in checkpoints) has
    one for each. With several processes all see the joint batch, and their states stay alike.

    Args:
        terms: :class:`LossTerm`, or mappings with its fields as they come from a recipe in YAML. Two terms
            may not have the same loss and output.
        num_classes: training identities.
        widths: of the network's outputs by name, the last dimension of every head: see
            :func:`reid_models.training.trial.output_widths`. None: every output has one head, or losses have
            no state and need no ``feature_length``.

    Raises:
        TypeError, ValueError: no terms, an unknown loss, a weight below 0, an option that the loss refuses
            or that it lacks, or an output that is not in ``widths``.

    Example:
        >>> terms = [{"loss": "triplet", "output": "features"}, {"loss": "cross_entropy", "output": "logits"}]
        >>> losses = WeightedLoss(terms)(model(images), identities)
        >>> losses["total"].backward()
        >>> sorted(losses)
        ['cross_entropy(logits)', 'total', 'triplet(features)']
    """

    def __init__(
        self,
        terms: Sequence[LossTerm | Mapping[str, Any]],
        *,
        num_classes: int | None = None,
        widths: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        self.terms = tuple(t if isinstance(t, LossTerm) else LossTerm.from_mapping(t) for t in terms)
        if not self.terms:
            raise ValueError("WeightedLoss: terms must hold at least one term, got none")
        self._first = True  # no batch has come yet
        self.names = tuple(term.name for term in self.terms)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"WeightedLoss: terms must differ in loss or output, got {self.names}")
        for term in self.terms:
            LOSSES.find(term.loss)
            if widths is not None:
                _check_output(term, widths)
        self.losses = nn.ModuleList(
            nn.ModuleList(_heads(term, num_classes, None if widths is None else widths[term.output]))
            for term in self.terms
        )

    @property
    def targets(self) -> frozenset[str]:
        """Targets that the terms have."""
        return frozenset(term.target for term in self.terms)

    def forward(
        self,
        outputs: Mapping[str, Output],
        identities: Tensor,
        *,
        images: Tensor | None = None,
        same: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Every term without its weight, by name, and their weighted sum as ``"total"``.

        Args:
            outputs: of the network in training.
            identities: (N,) int64 in [0, num_classes).
            images: (N, 3, H, W), where a term's target is ``image``.
            same: (B,) int64, 1 where a pair shows one identity, where a term's target is ``pair``.

        Raises:
            ValueError: the network has no such output, a target is not given, or an identity is no class of
                a cross-entropy's output. On CUDA, where looking waits for the device, identities are looked
                at in the first batch alone.
        """
        targets = {"identity": identities, "image": images, "pair": same}
        values: dict[str, Tensor] = {}
        total: Tensor | None = None
        looked_at = not torch.compiler.is_compiling() and (self._first or identities.device.type == "cpu")
        self._first = False
        for term, losses in zip(self.terms, self.losses, strict=True):
            _check_output(term, outputs)
            arguments: tuple[Tensor, ...] = ()
            if term.target != "none":
                target = targets[term.target]
                if target is None:
                    raise ValueError(f"WeightedLoss: {term.name} must have a target {term.target}, got none")
                arguments = (target,)
            output = outputs[term.output]
            heads = (output,) if isinstance(output, Tensor) else output
            if term.target == "identity" and looked_at:
                _check_classes(losses, heads, identities)
            found = [loss(head, *arguments) for loss, head in _matched(term, losses, heads)]
            values[term.name] = found[0] if len(found) == 1 else getattr(torch.stack(found), term.reduce)()
            weighted = term.weight * values[term.name]
            total = weighted if total is None else total + weighted
        assert total is not None
        return {"total": total, **values}


def _heads(term: LossTerm, num_classes: int | None, widths: Sequence[int] | None) -> Iterator[nn.Module]:
    """A term's losses, one for each head of its output."""
    make = LOSSES.find(term.loss)
    asked = inspect.signature(make).parameters
    for width in widths or (None,):
        known = {"num_classes": num_classes, "feature_length": width}
        handed = {name: value for name, value in known.items() if name in asked and name not in term.options}
        for name, value in handed.items():
            if value is None:
                raise ValueError(f"WeightedLoss: {name} must be known for {term.name}, got none")
        yield make(**term.options, **handed)


def _matched(term: LossTerm, losses: Any, heads: Sequence[Tensor]) -> Iterator[tuple[nn.Module, Tensor]]:
    """Every head with its loss."""
    if len(losses) == len(heads):
        return zip(losses, heads, strict=True)
    if len(losses) > 1 or next(losses.buffers(), None) is not None:
        raise ValueError(
            f"WeightedLoss: outputs must have {len(losses)} tensors in {term.output!r}, got {len(heads)}"
        )
    return ((losses[0], head) for head in heads)


def _check_classes(losses: Any, heads: Sequence[Tensor], identities: Tensor) -> None:
    """That identities are classes, before an indexing of CUDA's fails, after which nothing runs there."""
    for loss in losses:
        if not isinstance(loss, nn.CrossEntropyLoss) or identities.is_floating_point():
            continue
        classes = min(head.shape[1] for head in heads)
        wrong = ((identities < 0) | (identities >= classes)) & (identities != loss.ignore_index)
        if bool(wrong.any()):
            raise ValueError(
                f"WeightedLoss: identities must be classes of the model, which has {classes} "
                f"(0-{classes - 1}), got identity {int(identities[wrong][0])}"
            )


def _check_output(term: LossTerm, outputs: Mapping[str, Any]) -> None:
    if term.output not in outputs:
        raise ValueError(
            f"WeightedLoss: outputs must have {term.output!r} for {term.name}, got {', '.join(outputs)}"
        )
