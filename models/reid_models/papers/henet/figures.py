"""HENet's kinds of ``reid visualize``: heat-maps (Fig. 2), erasing (3), probability (4), occlusion (5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...report.kinds import MANY, FigureKind, FigureOption, FigureRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_branches(request: FigureRequest) -> Figure:
    """Heat-maps of every branch over some queries (Fig. 2)."""
    from ...report.pictures import draw_records
    from ...retrieval.extraction import choose_device
    from .plots import plot_branches

    networks = request.read_networks()
    (trained,) = networks.values()
    queries = request.read_dataset(networks).draws[0].query
    records = draw_records(queries, request.options["count"], seed=request.options["seed"])
    trained.model.to(choose_device(request.device))
    try:
        return plot_branches(
            trained.model, records, augmentation=trained.extraction["augmentation"], title=request.title
        )
    finally:
        trained.model.to("cpu")


def draw_erasing(request: FigureRequest) -> Figure:
    """Images, or some of a dataset, erased by RE and RPE (Fig. 3)."""
    from ...data import read_images
    from ...report.pictures import load_picture
    from .plots import plot_erasing

    if bool(request.inputs) == bool(request.dataset):
        raise ValueError("erasing takes images as INPUT, or --dataset")
    count = request.options["count"]
    if count < 1:
        raise ValueError(f"--count must be at least 1, got {count}")
    records = read_images(request.inputs) if request.inputs else request.read_dataset().train
    pictures = [load_picture(record) for record in records[:count]]
    return plot_erasing(pictures, seed=request.options["seed"], title=request.title)


def draw_probability(request: FigureRequest) -> Figure:
    """Rank-1 and mAP of the recipes of Fig. 4 that were run."""
    from .plots import plot_probability, read_probability

    return plot_probability(read_probability(request.inputs[0]), title=request.title)


def draw_occlusion(request: FigureRequest) -> Figure:
    """Rank-1 and mAP against the level of occlusion (Fig. 5)."""
    from .plots import plot_occlusion, read_occlusion

    return plot_occlusion(read_occlusion(request.inputs[0]), title=request.title)


SEED = FigureOption("seed", int, "of random choices", 0)
FIGURES = {
    "branches": FigureKind(
        "heat-maps of HENet's branches, of one run",
        draw_branches,
        (1, 1),
        (FigureOption("count", int, "images", 6), SEED),
    ),
    "erasing": FigureKind(
        "RE and RPE, of images or of --dataset",
        draw_erasing,
        (0, MANY),
        (FigureOption("count", int, "images at most", 4), SEED),
    ),
    "probability": FigureKind("HENet's Fig. 4, of a folder of runs", draw_probability, (1, 1)),
    "occlusion": FigureKind("HENet's Fig. 5, of an evidence file", draw_occlusion, (1, 1)),
}
