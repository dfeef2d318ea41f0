"""CSN's figures in ``reid visualize``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._figures import PaperFigure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...data import ReidDataset
    from ...runs.models import Trained
    from .similarity_maps import PairMaps


def draw_similarity(
    networks: Mapping[str, Trained], dataset: ReidDataset, *, count: int = 2, title: str = "", **options: Any
) -> Figure:
    """Similarity maps of some queries with a right and a wrong image (Fig. 4)."""
    from .similarity_maps import plot_similarity_maps

    return plot_similarity_maps(_pairs(networks, dataset, count, **options), title=title)


def draw_pairs(
    networks: Mapping[str, Trained], dataset: ReidDataset, *, count: int = 4, title: str = "", **options: Any
) -> Figure:
    """Right and wrong pairs, framed green and red, with p(match) (Fig. 1)."""
    from .similarity_maps import plot_pairs

    return plot_pairs(_pairs(networks, dataset, count, **options), title=title)


def _pairs(
    networks: Mapping[str, Trained], dataset: ReidDataset, count: int, *, seed: int = 0, device: str = "auto"
) -> list[PairMaps]:
    from ...retrieval.features import choose_device
    from .network import CSN
    from .similarity_maps import choose_pairs, similarity_maps

    if len(networks) != 1:
        raise ValueError(f"similarity and pairs take one INPUT, got {len(networks)}")
    name, trained = next(iter(networks.items()))
    model = trained.model
    if not isinstance(model, CSN):
        raise ValueError(f"{name} must be a csn, whose parts are filters, got {model.name}")
    split = dataset.draws[0]
    chosen = choose_pairs(split.query, split.gallery, count, seed=seed)
    model.to(choose_device(device))
    try:
        return similarity_maps(model, chosen, trained.extraction["augmentation"])
    finally:
        model.to("cpu")


FIGURES = {
    "similarity": PaperFigure("CSN's similarity maps, of one run", ("count", "seed"), draw_similarity),
    "pairs": PaperFigure("CSN's right and wrong pairs, of one run", ("count", "seed"), draw_pairs),
}
