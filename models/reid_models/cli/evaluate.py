"""``reid evaluate``: CMC, mAP and mINP of a run, a model on a dataset, or features; re-ranked as well."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runs.files import EVALUATION, OCCLUDED
from . import arguments, results
from .command import Command

if TYPE_CHECKING:
    from ..data import ImageRecord, ReidDataset
    from ..retrieval.evaluation import Evaluation
    from ..retrieval.features import Features
    from ..runs.models import Trained
    from .parsing import ArgumentParser, Namespace

#: What changes its numbers: `reid recipes --table` and reports show them beside those of other runs.
DEFINITIONS = (
    "metric", "fit", "match", "shortlist", "expand", "expand_alpha", "average_precision", "k1", "k2",
    "lambda_value", "preset", "flip", "autocast", "occlude",
)  # fmt: skip


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help=arguments.MODEL)
    arguments.add_dataset(parser)
    parser.add_argument("--query", metavar="FILE", help="features of the queries, instead of MODEL")
    parser.add_argument("--gallery", metavar="FILE", help="features of the gallery, instead of MODEL")
    arguments.add_labels(parser)
    parser.add_argument(
        "--multi-query",
        choices=["mean", "max"],
        help="of features: the queries of an identity by one camera ask together, by their pooled features",
    )
    parser.add_argument(
        "--same-camera-counts",
        action="store_true",
        help="of features: measure with images of the query's own camera; a dataset has its own rule",
    )
    parser.add_argument("--no-rerank", action="store_true", help="only the plain ranking")
    arguments.add_rerank(parser)
    arguments.add_preset(parser)
    arguments.add_metrics(parser)
    parser.add_argument(
        "--single-shot",
        type=int,
        default=0,
        metavar="N",
        help="also CMC with one gallery image an identity, N draws",
    )
    parser.add_argument(
        "--occlude",
        metavar="KIND:LEVEL",
        help="of RUN: every test image loses boxes of this share; re, rpe or re+rpe (HENet, Fig. 5)",
    )
    arguments.add_output(parser)
    arguments.add_keep(parser)
    arguments.add_extraction(parser)


def run(options: Namespace) -> None:
    results.check_output(options)
    if options.single_shot < 0:
        raise ValueError(f"--single-shot must be at least 0, got {options.single_shot}")
    measures = {
        **arguments.metric_options(options),
        "rerank": None if options.no_rerank else arguments.rerank_options(options),
        "single_shot": options.single_shot,
    }
    if options.query or options.gallery:
        evaluation = _of_features(options, measures)
    elif options.model is None:
        raise ValueError("RUN, or --query and --gallery, must be given")
    else:
        evaluation = _of_model(options, measures)
    if evaluation.shortlist_recall is not None:
        share = 100 * evaluation.shortlist_recall
        _say([f"a right image is on the shortlist of {options.shortlist}: {share:.2f} % of queries"], options)
    if results.form(options) == ".json":
        results.give(options, evaluation.to_json())
    else:
        text = results.metrics_table(evaluation.rankings)[results.form(options)]
        results.give(options, text + (_counted(evaluation) if results.form(options) == ".txt" else ""))


def _counted(evaluation: Evaluation) -> str:
    """How many queries the figures are of."""
    total = evaluation.queries + evaluation.excluded
    line = f"{evaluation.queries} of {total} queries counted, in a gallery of {evaluation.gallery} images"
    if evaluation.excluded:
        line += f"; for {evaluation.excluded} nothing right that counts is in it"
    return f"{line}\n"


def _of_features(options: Namespace, measures: dict[str, Any]) -> Evaluation:
    from ..retrieval.evaluation import evaluate_draws
    from ..retrieval.multi_query import pool_features

    if options.occlude is not None:
        raise ValueError("--occlude must come with RUN: features are of images as they were")
    if not (options.query and options.gallery) or options.dataset:
        raise ValueError("--query and --gallery must be given together, without RUN and --dataset")
    if options.model and options.metric != "match":
        raise ValueError("--query and --gallery must be given without RUN, which only --metric match asks")
    query, gallery, exclude_self = arguments.load_pair(options)
    metric = arguments.comparison(options, query, options.model)
    _say(metric.notes, options)
    if options.multi_query is not None:
        if exclude_self:
            raise ValueError("--multi-query pools queries, which can't be left out of their own rankings")
        query = pool_features(query, options.multi_query)
    if exclude_self:
        _say(["each query is left out of its own ranking"], options)
    return evaluate_draws(
        [(query, gallery)],
        same_camera_is_junk=not options.same_camera_counts,
        exclude_self=exclude_self,
        metric=metric,
        **measures,
    )


def _of_model(options: Namespace, measures: dict[str, Any]) -> Evaluation:
    from ..data.occlusion import Occlusion
    from ..retrieval.comparison import default_metric
    from ..retrieval.evaluation import evaluate_dataset
    from ..retrieval.kept import kept_features
    from ..retrieval.protocol import draw_images
    from ..runs.models import load_trained

    if options.same_camera_counts:
        raise ValueError("--same-camera-counts is for features: a dataset has its own rule")
    for name in ("query_labels", "gallery_labels", "exclude_self", "multi_query"):
        if options[name]:
            raise ValueError(f"--{name.replace('_', '-')} is for --query and --gallery")
    occlusion = None if options.occlude is None else Occlusion.parse(options.occlude)
    # What is wrong with the data is said first: a network may have to be fetched.
    named = None if options.dataset is None else arguments.dataset(options.dataset, options)
    trained = load_trained(options.model)
    dataset = _its_dataset(options, trained) if named is None else named
    chosen = arguments.extraction(options, trained)

    def kept(records: Sequence[ImageRecord]) -> Features:
        return kept_features(trained, records, keep=not options.no_keep, **chosen)

    evaluation = evaluate_dataset(
        trained.model,
        dataset,
        metric=options.metric,
        fit=arguments.fitting(options) or (lambda: kept(dataset.train)),
        features=None if occlusion else (lambda: kept(draw_images(dataset))),
        match=options.match,
        shortlist=options.shortlist,
        occlusion=occlusion,
        **measures,
        **chosen,
    )
    _say(evaluation.settings.get("notes", ()), options)
    its_own = options.dataset is None and not options.options
    if its_own and Path(options.model).is_dir():
        _keep(options, evaluation, default_metric(trained.model))
    return evaluation


def _keep(options: Namespace, evaluation: Evaluation, metric: str) -> None:
    """Writes the run's file, unless its numbers would mean something else than those of other runs.

    Of occluded images there is one for each kind and level, for Fig. 5 of HENet.
    """
    file = Path(options.model) / EVALUATION
    from reid_ops.k_reciprocal.definition import expansion

    from .parsing import make_parser

    defaults = make_parser(COMMAND).get_defaults()
    if options.metric is not None:
        defaults.metric = metric
    if options.k2 == expansion(defaults.k1, None):  # said, but the default
        defaults.k2 = options.k2
    changed = [name for name in DEFINITIONS if options[name] != defaults[name]]
    if changed == ["occlude"]:
        occlusion = evaluation.settings["occlusion"]
        file = Path(options.model) / OCCLUDED / f"{occlusion['kind']}_{occlusion['level']}.json"
        file.parent.mkdir(exist_ok=True)
        results.write_text(file, evaluation.to_json())
        _say([f"written: {file}"], options)
    elif changed:
        names = ", ".join(f"--{name.removesuffix('_value').replace('_', '-')}" for name in changed)
        _say([f"not written: {file}, which is for the default measures ({names})"], options)
    else:
        results.write_text(file, evaluation.to_json())
        _say([f"written: {file}"], options)


def _say(lines: Iterable[str], options: Namespace) -> None:
    for line in lines:
        print(line, file=sys.stderr if options.json else sys.stdout)


def _its_dataset(options: Namespace, trained: Trained) -> ReidDataset:
    """The dataset that the run was trained on, which may have moved to another root."""
    from ..data import read_dataset

    name = trained.data.get("dataset")
    if name is None:
        raise ValueError(f"--dataset must be given: {options.model} does not say what it was trained on")
    root = options.root or trained.data.get("root")
    return read_dataset(name, root, **{**(trained.data.get("dataset_options") or {}), **options.options})


COMMAND = Command(
    name="evaluate",
    summary="measures rank-k, mAP and mINP, plain and re-ranked",
    example="""
reid evaluate runs/vans
reid evaluate hsgnet.safetensors --dataset market1501 --root /data/market --flip --output market.json
reid evaluate timm:convnext_tiny --dataset folder --root my_images
reid evaluate runs/hcn --metric xqda
reid evaluate runs/henet --occlude rpe:0.3
reid evaluate --query animals.npz --gallery animals.npz --same-camera-counts
reid evaluate --query query.safetensors --gallery gallery.safetensors --no-rerank
""",
    configure=configure,
    run=run,
)
