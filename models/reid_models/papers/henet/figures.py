"""HENet's kinds of ``reid visualize``: Figs. 1 to 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...report.kinds import MANY, FigureKind, FigureOption, FigureRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_efficiency(request: FigureRequest) -> Figure:
    """Accuracy, size and speed of models, of CSV files and of runs, which are measured (Fig. 1)."""
    from ...retrieval.extraction import choose_device
    from ...runs.folders import name_paths
    from ...runs.models import load_trained
    from .scatter import measure_runs, plot_efficiency, read_measurements

    models: dict[str, dict[str, float]] = {}
    for file in (word for word in request.inputs if word.endswith(".csv")):
        models |= read_measurements(file)
    runs = name_paths([word for word in request.inputs if not word.endswith(".csv")])
    for name in models.keys() & runs.keys():
        raise ValueError(f"every model must have a name of its own, but {name!r} comes twice")
    networks = {name: (path, load_trained(path)) for name, path in runs.items()}
    for _, trained in networks.values():
        trained.model.to(choose_device(request.device))
    batch = request.extraction["batch_size"]
    models |= measure_runs(networks, batch_size=batch, repeats=request.options["repeats"])
    return plot_efficiency(models, title=request.title)


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
    """Rank-1 and mAP against the level of occlusion, of an evidence file or of runs (Fig. 5)."""
    from ...runs.folders import name_paths
    from .plots import plot_occlusion, read_occluded_runs, read_occlusion

    if any(word.endswith(".json") for word in request.inputs):
        if len(request.inputs) > 1:
            raise ValueError(f"occlusion takes one evidence file, or runs, got {len(request.inputs)} INPUT")
        return plot_occlusion(read_occlusion(request.inputs[0]), title=request.title)
    return plot_occlusion(read_occluded_runs(name_paths(request.inputs)), title=request.title)


SEED = FigureOption("seed", int, "of random choices", 0)
FIGURES = {
    "efficiency": FigureKind(
        "accuracy, size and speed of models, of CSV files and evaluated runs",
        draw_efficiency,
        (1, MANY),
        (FigureOption("repeats", int, "batches timed, of runs", 10),),
    ),
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
    "occlusion": FigureKind(
        "HENet's Fig. 5, of runs evaluated with --occlude, or of an evidence file", draw_occlusion, (1, MANY)
    ),
}
