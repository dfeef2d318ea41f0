"""What a run trains with where its recipe is silent: no paper's numbers, but usual ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..losses import LossTerm

NETWORK = "baseline"
#: For networks whose outputs are called ``logits`` and ``features``.
LOSSES: tuple[LossTerm, ...] = (
    LossTerm("triplet", "features", 1.0, MappingProxyType({"margin": 0.3})),
    LossTerm("cross_entropy", "logits", 1.0, MappingProxyType({"label_smoothing": 0.1})),
)
OPTIMIZER: Mapping[str, Any] = MappingProxyType({"name": "Adam", "lr": 3.5e-4, "weight_decay": 5e-4})
SCHEDULE: Mapping[str, Any] = MappingProxyType({"name": "constant"})
SAMPLER: Mapping[str, Any] = MappingProxyType(
    {"name": "identity", "identities_per_batch": 16, "images_per_identity": 4}
)
EPOCHS = 120
