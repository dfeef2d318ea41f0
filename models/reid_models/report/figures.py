"""Our own kinds of ``reid visualize``; see :mod:`.kinds`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._suggest import unknown
from .kinds import FigureKind, FigureOption, FigureRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .html import Report

SPLITS = ("train", "query", "gallery")

COUNT = FigureOption("count", int, "queries", 5)
TOP = FigureOption("top", int, "length of the lists", 10)
CHOOSE = FigureOption(
    "choose", str, "queries: first, worst, best, random, or improved from the first method to the last"
)
RERANK = FigureOption("rerank", bool, "re-ranked lists as well", False)
SEED = FigureOption("seed", int, "of random choices", 0)
LISTS = (COUNT, TOP, CHOOSE, RERANK, SEED)


def _draw_ranks(request: FigureRequest) -> Figure:
    from ..runs.folders import name_paths
    from .indexes import is_index, list_indexes
    from .lists import plot_ranked_lists
    from .retrieval import describe_rankings, list_dataset, rank_dataset

    options = request.options
    _check_choice(request, len(request.inputs))
    paths = name_paths(request.inputs)
    indexed = [is_index(path) for path in paths.values()]
    if all(indexed):
        listed, note = list_indexes(
            paths,
            queries=options["queries"],
            count=options["count"],
            top=options["top"],
            how=options["choose"] or "first",
            seed=options["seed"],
            rerank=_rerank(request),
            device=request.device,
            **{
                key: value for key, value in request.extraction.items() if key not in ("keep", "flip_average")
            },
        )
        return plot_ranked_lists(listed, title=request.title, note=note, missing=True)
    if any(indexed):
        raise ValueError("INPUT must be runs or files of `reid index`, not both")
    if options["queries"] is not None:
        raise ValueError("--queries are for INPUT that is a file of `reid index`")
    networks = request.read_networks()
    dataset = request.read_dataset(networks)
    rankings = rank_dataset(
        networks,
        dataset,
        rerank=_rerank(request),
        keep=request.keep,
        device=request.device,
        **request.extraction,
    )
    lists = list_dataset(
        rankings,
        dataset,
        count=options["count"],
        top=options["top"],
        how=options["choose"] or "first",
        seed=options["seed"],
    )
    return plot_ranked_lists(lists, title=request.title, note=describe_rankings(rankings))


def _check_choice(request: FigureRequest, networks: int) -> None:
    """Before the networks run, which may take long."""
    from .lists import CHOICES

    how = request.options["choose"]
    if how is not None and how not in CHOICES:
        raise unknown("choice of queries", how, CHOICES)
    if how == "improved" and networks == 1 and not request.options["rerank"]:
        raise ValueError("--choose improved needs two INPUT, or --rerank")


def _rerank(request: FigureRequest) -> dict[str, Any] | None:
    return dict(request.rerank) if request.options["rerank"] else None


def _draw_cam(request: FigureRequest) -> Figure:
    from .cam import draw_cam
    from .pictures import draw_records

    options = request.options
    networks = request.read_networks()
    query = request.read_dataset(networks).draws[0].query
    records = draw_records(query, options["count"], seed=options["seed"])
    return draw_cam(
        networks,
        records,
        target=options["target"],
        layer=options["layer"],
        device=request.device,
        title=request.title,
    )


def _draw_curves(request: FigureRequest) -> Figure:
    from ..runs.folders import name_paths, read_runs
    from ..runs.metrics_log import read_metrics
    from .curves import plot_cmc, plot_training

    options = request.options
    if options["curve"] == "training":
        if options["length"] is not None:
            raise ValueError("--length is an option of --curve cmc")
        logs = {name: read_metrics(path) for name, path in name_paths(request.inputs).items()}
        return plot_training(logs, against=options["against"] or "epoch", title=request.title)
    if options["against"] is not None:
        raise ValueError("--against is an option of --curve training")
    runs = read_runs(request.inputs)
    for run in runs:
        if not run.cmc:
            raise ValueError(f"{run.path} has no CMC curve: `reid evaluate {run.path}` writes one")
    curves = {run.label(method): curve for run in runs for method, curve in run.cmc.items()}
    length = 20 if options["length"] is None else options["length"]
    return plot_cmc(curves, length=length, title=request.title or "CMC")


def _draw_montage(request: FigureRequest) -> Figure:
    from .montage import plot_montage

    options = request.options
    dataset = request.read_dataset()
    draw = dataset.draws[0]
    return plot_montage(
        {"train": dataset.train, "query": draw.query, "gallery": draw.gallery}[options["split"]],
        identities=options["identities"],
        cameras=options["cameras"],
        seed=options["seed"],
        title=request.title,
    )


def _make_report(request: FigureRequest) -> Report:
    from ..retrieval.extraction import choose_device
    from ..runs.folders import name_paths, read_runs
    from ..runs.models import load_trained
    from .html import Section, Table
    from .run_report import describe_machine, picture_sections, report_runs

    options = request.options
    runs = read_runs(request.inputs)
    paths = name_paths(request.inputs)
    with_weights = {run.name: paths[run.name] for run in runs if run.weights is not None}
    pictures: list[Section] = []
    if with_weights and not options["tables_only"]:
        _check_choice(request, len(with_weights))
        networks = {name: load_trained(path) for name, path in with_weights.items()}
        pictures = picture_sections(
            networks,
            request.read_dataset(networks),
            count=options["count"],
            top=options["top"],
            how=options["choose"],
            rerank=_rerank(request),
            seed=options["seed"],
            device=request.device,
            keep=request.keep,
            **request.extraction,
        )
    machine = list(describe_machine(choose_device(request.device)).items())
    caption = "On which this page was written."
    pictures.append(Table(("", ""), machine, heading="Machine", caption=caption))
    return report_runs(runs, title=request.title, pictures=pictures)


QUERIES = FigureOption("queries", str, "of an index: images, a folder, or features; none: what is in it")
RANKS = FigureKind("ranked lists of runs, or of indexes", _draw_ranks, options=(*LISTS, QUERIES))
CAM = FigureKind(
    "Grad-CAM of runs",
    _draw_cam,
    options=(
        FigureOption("count", int, "images", 8),
        FigureOption("target", str, "norm of the feature, or class", "norm", ("norm", "class")),
        FigureOption("layer", str, "a layer of the networks, such as stage3; none: the last"),
        SEED,
    ),
)
CURVES = FigureKind(
    "curves of runs",
    _draw_curves,
    options=(
        FigureOption("curve", str, "training or cmc", "training", ("training", "cmc")),
        FigureOption("against", str, "training: epoch or step"),
        FigureOption("length", int, "cmc: ranks"),
    ),
)
MONTAGE = FigureKind(
    "images of --dataset",
    _draw_montage,
    inputs=(0, 0),
    options=(
        FigureOption("split", str, ", ".join(SPLITS), "train", SPLITS),
        FigureOption("identities", int, "rows", 6),
        FigureOption("cameras", int, "columns", 8),
        SEED,
    ),
)
REPORT = FigureKind(
    "a page of runs",
    _make_report,
    options=(*LISTS, FigureOption("tables_only", bool, "don't run the networks", False)),
    endings=(".html",),
)
