"""``reid rerank``: features re-ranked, as lists and, where identities are known, measured."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from . import arguments, results
from .command import Command

if TYPE_CHECKING:
    from ..retrieval.features import Features
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", help="features file of the queries")
    parser.add_argument("gallery", metavar="GALLERY", help="features file of the gallery")
    parser.add_argument("-k", "--count", type=int, default=10, metavar="N", help="matches of each query")
    arguments.add_rerank(parser)
    arguments.add_preset(parser)
    arguments.add_metrics(parser)
    parser.add_argument(
        "--same-camera-counts", action="store_true", help="measure with images of the query's own camera"
    )
    parser.add_argument(
        "--no-measure",
        action="store_true",
        help="only lists, in memory that grows with queries + gallery, not with their product",
    )
    arguments.add_output(parser)


def run(options: Namespace) -> None:
    results.check_output(options)

    from reid_ops import k_reciprocal_rerank

    from ..retrieval.evaluation import comparable_features, evaluate_draws
    from ..retrieval.features import load_features

    query, gallery = load_features(options.query), load_features(options.gallery)
    rerank, measures = arguments.rerank_options(options), arguments.metric_options(options)
    left, right = comparable_features(query, gallery, options.metric, measures["expand"])
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, got {options.count}")
    values, rows = k_reciprocal_rerank(left, right, topk=min(options.count, len(gallery)), **rerank)
    names = query.paths, values, rows, gallery.paths, gallery.identities.tolist()
    results.give(
        options, results.ranked_lists(*names, meaning="re-ranked distance", form=results.form(options))
    )
    known = bool((query.identities >= 0).any()) and bool((gallery.identities >= 0).any())
    if known and not options.no_measure and not (options.json and options.output is None):
        same_camera_is_junk = not options.same_camera_counts
        if not _has_positive(query, gallery, same_camera_is_junk):
            print("not measured: no query has an image of its identity in the gallery that counts")
            return
        evaluation = evaluate_draws(
            [(query, gallery)], rerank=rerank, same_camera_is_junk=same_camera_is_junk, **measures
        )
        print(results.metrics_table(evaluation.rankings)[".txt"], end="")


def _has_positive(query: Features, gallery: Features, same_camera_is_junk: bool) -> bool:
    cameras: dict[int, set[int]] = defaultdict(set)
    for identity, camera in zip(gallery.identities.tolist(), gallery.cameras.tolist(), strict=True):
        cameras[identity].add(camera)
    return any(
        identity >= 0 and bool(cameras.get(identity, set()) - ({camera} if same_camera_is_junk else set()))
        for identity, camera in zip(query.identities.tolist(), query.cameras.tolist(), strict=True)
    )


COMMAND = Command(
    name="rerank",
    summary="re-ranks a gallery for queries, from their features",
    example="""
reid rerank query.safetensors gallery.safetensors --output matches.csv
reid rerank query.safetensors gallery.safetensors --k1 30 --k2 6 --lambda 0.2 --preset torchreid
""",
    configure=configure,
    run=run,
)
