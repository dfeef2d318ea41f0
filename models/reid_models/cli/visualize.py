"""``reid visualize``: figures of runs, networks and datasets, and whole reports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._figures import FIGURES, PaperFigure
from .._suggest import unknown
from . import arguments
from .command import Command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..data import ReidDataset
    from ..report.retrieval import Retrieval
    from ..runs.models import Trained
    from .parsing import ArgumentParser, Namespace

SPLITS = ("train", "query", "gallery")


def configure(parser: ArgumentParser) -> None:
    kinds = "; ".join(f"{name}: {kind.summary}" for name, kind in (KINDS | _of_papers()).items())
    parser.add_argument("kind", metavar="KIND", help=kinds)
    parser.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="as KIND says; NAME=RUN shows a run under another name"
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help=".png, .svg or .pdf; for a report .html"
    )
    parser.add_argument("--title", default="", help="of the figure or report")
    arguments.add_dataset(parser)
    # Without defaults, so that an option that a kind does not have can be refused.
    parser.add_argument("--count", type=int, metavar="N", help="ranks, report: queries (5); cam: images (8)")
    parser.add_argument("--top", type=int, metavar="N", help="ranks, report: length of the lists (10)")
    parser.add_argument(
        "--choose",
        metavar="WHICH",
        help="ranks, report: first, worst, best, random, or improved from the first method to the last",
    )
    parser.add_argument(
        "--rerank", action="store_true", default=None, help="ranks, report: re-ranked lists as well"
    )
    parser.add_argument("--target", metavar="WHAT", help="cam: norm of the feature (default), or class")
    parser.add_argument(
        "--layer", metavar="NAME", help="cam: a layer of the networks, such as stage3 (the last)"
    )
    parser.add_argument("--curve", metavar="WHAT", help="curves: training (default) or cmc")
    parser.add_argument("--against", metavar="WHAT", help="curves of training: epoch (default) or step")
    parser.add_argument("--length", type=int, metavar="N", help="curves, cmc: ranks (20)")
    parser.add_argument("--split", metavar="SPLIT", help="montage: train (default), query or gallery")
    parser.add_argument("--identities", type=int, metavar="N", help="montage: rows (6)")
    parser.add_argument("--cameras", type=int, metavar="N", help="montage: columns (8)")
    parser.add_argument("--reported", metavar="NAME", help="stages: the paper's, on market1501 or veri776")
    parser.add_argument(
        "--tables-only", action="store_true", default=None, help="report: don't run the networks"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of random choices (0)")
    arguments.add_rerank(parser)
    arguments.add_extraction(parser)


def run(options: Namespace) -> None:
    kind = _find_kind(options.kind)
    _check_inputs(options, kind)
    given = [name for name in OWN_OPTIONS if options.get(name) is not None]
    for name in given:
        if name not in kind.options:
            raise ValueError(f"--{name.replace('_', '-')} is not an option of {options.kind}")

    from .._output import check_folder
    from ..report.style import check_output

    check_folder(options.output, "--output")
    if options.kind != "report":
        check_output(options.output)
    elif Path(options.output).suffix.lower() != ".html":
        raise ValueError(f"--output of a report must end in .html, got {options.output}")
    kind.draw(options)
    print(f"written: {options.output}")


def _find_kind(name: str) -> _Kind:
    """One of ours, of a paper's, or ``package.module:Name``."""
    known = KINDS | _of_papers()
    if name in known:
        return known[name]
    if ":" in name:
        return _of_paper(FIGURES.find(name))
    raise unknown("kind of figure", name, known)


def _of_papers() -> dict[str, _Kind]:
    return {name: _of_paper(figure) for name, figure in FIGURES.items()}


def _of_paper(figure: PaperFigure) -> _Kind:
    return _Kind(figure.summary, (1, MANY), figure.options, functools.partial(_draw_of_paper, figure))


def _draw_of_paper(figure: PaperFigure, options: Namespace) -> None:
    networks = _named_networks(options)
    given = {name: options[name] for name in figure.options if options.get(name) is not None}
    dataset = _dataset(options, networks)
    _save(options, figure.draw(networks, dataset, **given, title=options.title, device=options.device))


def _check_inputs(options: Namespace, kind: _Kind) -> None:
    least, most = kind.inputs
    if not least <= len(options.inputs) <= most:
        count = f"{least} or more" if most > least else "no" if most == 0 else str(least)
        raise ValueError(f"{options.kind} takes {count} INPUT, got {len(options.inputs)}")


def _save(options: Namespace, figure: Figure) -> None:
    from ..report.style import save_figure

    save_figure(figure, options.output)


def _value(options: Namespace, name: str, default: Any) -> Any:
    value = options.get(name)
    return default if value is None else value


def _networks(paths: Mapping[str, Path]) -> dict[str, Trained]:
    from ..runs.models import load_trained

    return {name: load_trained(path) for name, path in paths.items()}


def _named_networks(options: Namespace) -> dict[str, Trained]:
    """Those of INPUT, by the names to show."""
    from ..runs.folders import name_paths

    return _networks(name_paths(options.inputs))


def _dataset(options: Namespace, networks: dict[str, Trained]) -> ReidDataset:
    """The dataset asked for or else that of the first network's recipe."""
    from ..data import read_dataset

    if options.dataset is not None:
        return arguments.dataset(options.dataset, options)
    if options.root is not None or options.options:
        raise ValueError("--root and --options must come with --dataset")
    recipe = next((trained.data for trained in networks.values() if trained.data.get("dataset")), None)
    if recipe is None:
        raise ValueError("--dataset must be given: no INPUT has a recipe that names one")
    return read_dataset(recipe["dataset"], recipe.get("root"), **(recipe.get("dataset_options") or {}))


def _extraction(options: Namespace) -> dict[str, Any]:
    """The keywords of ``extract_features`` that are the user's, not the network's."""
    names = {"flip": "flip_average", "batch_size": "batch_size", "workers": "workers", "autocast": "autocast"}
    return {keyword: options[name] for name, keyword in names.items()} | {"progress": True}


def _rerank(options: Namespace) -> dict[str, Any] | None:
    return arguments.rerank_options(options) if options.rerank else None


def _rank(options: Namespace, networks: dict[str, Trained], dataset: ReidDataset) -> dict[str, Retrieval]:
    from ..report.retrieval import rank_dataset

    chosen = {**_extraction(options), "device": options.device}
    return rank_dataset(networks, dataset, rerank=_rerank(options), **chosen)


def _check_choice(options: Namespace, networks: int) -> None:
    """Before the networks run, which may take long."""
    from ..report.ranked_lists import CHOICES

    if options.choose is not None and options.choose not in CHOICES:
        raise unknown("choice of queries", options.choose, CHOICES)
    if options.choose == "improved" and networks == 1 and not options.rerank:
        raise ValueError("--choose improved needs two INPUT, or --rerank")


def _draw_ranks(options: Namespace) -> None:
    from ..report.ranked_lists import plot_ranked_lists
    from ..report.retrieval import list_dataset

    _check_choice(options, len(options.inputs))
    networks = _named_networks(options)
    dataset = _dataset(options, networks)
    lists = list_dataset(
        _rank(options, networks, dataset),
        dataset,
        count=_value(options, "count", 5),
        top=_value(options, "top", 10),
        how=_value(options, "choose", "first"),
        seed=_value(options, "seed", 0),
    )
    _save(options, plot_ranked_lists(lists, title=options.title))


def _draw_cam(options: Namespace) -> None:
    from ..report.retrieval import draw_cam, draw_records

    networks = _named_networks(options)
    records = draw_records(
        _dataset(options, networks).draws[0].query,
        _value(options, "count", 8),
        seed=_value(options, "seed", 0),
    )
    figure = draw_cam(
        networks,
        records,
        target=_value(options, "target", "norm"),
        layer=options.layer,
        device=options.device,
        title=options.title,
    )
    _save(options, figure)


def _draw_curves(options: Namespace) -> None:
    from ..report.curves import plot_cmc, plot_training
    from ..runs.folders import name_paths, read_runs
    from ..runs.metrics_log import read_metrics

    what = _value(options, "curve", "training")
    if what == "training":
        if options.length is not None:
            raise ValueError("--length is an option of --curve cmc")
        logs = {name: read_metrics(path) for name, path in name_paths(options.inputs).items()}
        figure = plot_training(logs, against=_value(options, "against", "epoch"), title=options.title)
    elif what == "cmc":
        if options.against is not None:
            raise ValueError("--against is an option of --curve training")
        runs = read_runs(options.inputs)
        for run in runs:
            if not run.cmc:
                raise ValueError(f"{run.path} has no CMC curve: `reid evaluate {run.path}` writes one")
        curves = {run.label(method): curve for run in runs for method, curve in run.cmc.items()}
        figure = plot_cmc(curves, length=_value(options, "length", 20), title=options.title or "CMC")
    else:
        raise unknown("curve", what, ("training", "cmc"))
    _save(options, figure)


def _draw_montage(options: Namespace) -> None:
    from ..report.montage import plot_montage

    if options.dataset is None:
        raise ValueError("--dataset must be given")
    split = _value(options, "split", "train")
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    dataset = arguments.dataset(options.dataset, options)
    draw = dataset.draws[0]
    figure = plot_montage(
        {"train": dataset.train, "query": draw.query, "gallery": draw.gallery}[split],
        identities=_value(options, "identities", 6),
        cameras=_value(options, "cameras", 8),
        seed=_value(options, "seed", 0),
        title=options.title,
    )
    _save(options, figure)


def _draw_stages(options: Namespace) -> None:
    from ..report.bars import plot_stages, reported_stages, stage_scores
    from ..runs.folders import read_runs

    if not options.inputs and options.reported is None:
        raise ValueError("stages takes INPUT or --reported")
    reported = reported_stages(options.reported) if options.reported else None
    measured = stage_scores(read_runs(options.inputs), options.reported)
    _save(options, plot_stages(measured, reported, title=options.title))


def _draw_efficiency(options: Namespace) -> None:
    from ..report.bars import plot_efficiency, read_measurements

    _save(options, plot_efficiency(read_measurements(options.inputs[0]), title=options.title))


def _write_report(options: Namespace) -> None:
    from ..report.html import Section, Table
    from ..report.run_report import describe_machine, picture_sections, report_runs
    from ..retrieval.features import choose_device
    from ..runs.folders import name_paths, read_runs

    runs = read_runs(options.inputs)
    paths = name_paths(options.inputs)
    with_weights = {run.name: paths[run.name] for run in runs if run.weights is not None}
    pictures: list[Section] = []
    if with_weights and not options.tables_only:
        _check_choice(options, len(with_weights))
        networks = _networks(with_weights)
        pictures = picture_sections(
            networks,
            _dataset(options, networks),
            count=_value(options, "count", 5),
            top=_value(options, "top", 10),
            how=options.choose,
            rerank=_rerank(options),
            seed=_value(options, "seed", 0),
            device=options.device,
            **_extraction(options),
        )
    machine = list(describe_machine(choose_device(options.device)).items())
    caption = "On which this page was written."
    pictures.append(Table(("", ""), machine, heading="Machine", caption=caption))
    report_runs(runs, title=options.title, pictures=pictures).write_html(options.output)


@dataclass(frozen=True)
class _Kind:
    """A kind of figure: what it is, the least and most INPUT, its own options, and the function."""

    summary: str
    inputs: tuple[int, int]
    options: tuple[str, ...]
    draw: Callable[[Namespace], None]


MANY = 99
_LISTS = ("count", "top", "choose", "rerank", "seed")
KINDS = {
    "ranks": _Kind("ranked lists of runs", (1, MANY), _LISTS, _draw_ranks),
    "cam": _Kind("Grad-CAM of runs", (1, MANY), ("count", "target", "layer", "seed"), _draw_cam),
    "curves": _Kind("curves of runs", (1, MANY), ("curve", "against", "length"), _draw_curves),
    "montage": _Kind(
        "images of --dataset", (0, 0), ("split", "identities", "cameras", "seed"), _draw_montage
    ),
    "stages": _Kind("HSGM behind stages, of runs", (0, MANY), ("reported",), _draw_stages),
    "efficiency": _Kind("HENet's score, of a CSV file", (1, 1), (), _draw_efficiency),
    "report": _Kind("a page of runs", (1, MANY), (*_LISTS, "tables_only"), _write_report),
}
OWN_OPTIONS = sorted(
    {option for kind in KINDS.values() for option in kind.options}
)  # a paper's are among them

COMMAND = Command(
    name="visualize",
    summary="draws ranked lists, Grad-CAM, curves and other figures, or writes a report of runs",
    example="""
reid visualize ranks runs/baseline runs/hsgnet --choose improved --output ranks.png
reid visualize cam runs/baseline HSGNet=runs/hsgnet --output cam.pdf
reid visualize curves runs/baseline runs/hsgnet --curve cmc --output cmc.svg
reid visualize montage --dataset omniglot --output montage.png
reid visualize report runs/baseline runs/hsgnet --rerank --output report.html
""",
    configure=configure,
    run=run,
)
