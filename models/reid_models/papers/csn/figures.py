"""CSN's kinds of ``reid visualize``: similarity maps (Fig. 4) and pairs (Fig. 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...report.kinds import FigureKind, FigureOption, FigureRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .similarity_maps import PairMaps


def draw_similarity(request: FigureRequest) -> Figure:
    """Similarity maps of some queries with a right and a wrong image (Fig. 4)."""
    from .similarity_maps import plot_similarity_maps

    return plot_similarity_maps(_pairs(request), title=request.title)


def draw_pairs(request: FigureRequest) -> Figure:
    """Right and wrong pairs, framed green and red, with p(match) (Fig. 1)."""
    from .similarity_maps import plot_pairs

    return plot_pairs(_pairs(request), title=request.title)


def _pairs(request: FigureRequest) -> list[PairMaps]:
    from ...retrieval.extraction import choose_device
    from .network import CSN
    from .similarity_maps import choose_pairs, similarity_maps

    networks = request.read_networks()
    ((name, trained),) = networks.items()
    model = trained.model
    if not isinstance(model, CSN):
        raise ValueError(f"{name} must be a csn, whose parts are filters, got {model.name}")
    split = request.read_dataset(networks).draws[0]
    options = request.options
    chosen = choose_pairs(split.query, split.gallery, options["count"], seed=options["seed"])
    model.to(choose_device(request.device))
    try:
        return similarity_maps(model, chosen, trained.extraction["augmentation"])
    finally:
        model.to("cpu")


SEED = FigureOption("seed", int, "of random choices", 0)
FIGURES = {
    "similarity": FigureKind(
        "CSN's similarity maps, of one run",
        draw_similarity,
        (1, 1),
        (FigureOption("count", int, "queries", 2), SEED),
    ),
    "pairs": FigureKind(
        "CSN's right and wrong pairs, of one run",
        draw_pairs,
        (1, 1),
        (FigureOption("count", int, "pairs", 4), SEED),
    ),
}
