"""``reid rerank``: features re-ranked, as lists and, where identities are known, measured."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from . import arguments, results
from .command import Command

if TYPE_CHECKING:
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", help="features file of the queries")
    parser.add_argument("gallery", metavar="GALLERY", help="features file of the gallery")
    parser.add_argument("-k", "--count", type=int, default=10, metavar="N", help="matches of each query")
    arguments.add_labels(parser)
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

    import numpy as np

    from ..retrieval.comparison import prepare_pair
    from ..retrieval.evaluation import evaluate_draws
    from ..retrieval.matches import drop_rows, own_rows
    from ..retrieval.protocol import Protocol

    query, gallery, same = arguments.load_pair(options)
    rerank, measures = arguments.rerank_options(options), arguments.metric_options(options)
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, got {options.count}")
    metric = arguments.comparison(options, query, None)
    for note in metric.notes:
        print(note, file=sys.stderr)
    left, right = prepare_pair(metric, query, gallery, measures["expand"])
    own = own_rows(query.paths, gallery.paths) if same else np.full(len(query), -1)
    topk = min(options.count + int(same), len(gallery))
    lists = metric.rerank(left, right, topk=topk, **rerank)
    scores, nearest = (part.cpu().numpy() for part in lists)
    values, rows = drop_rows(scores, nearest, own, options.count)
    if same:
        print("each query is left out of its own matches", file=sys.stderr)
    found = results.Matches(query.records(), values, rows, gallery.record, "re-ranked distance")
    results.give(options, found.text(results.form(options)))
    known = bool((query.identities >= 0).any()) and bool((gallery.identities >= 0).any())
    if known and not options.no_measure and not (options.json and options.output is None):
        same_camera_is_junk = not options.same_camera_counts
        if not Protocol(same_camera_is_junk, exclude_self=same).has_positive(query, gallery):
            print("not measured: no query has an image of its identity in the gallery that counts")
            return
        evaluation = evaluate_draws(
            [(query, gallery)],
            rerank=rerank,
            same_camera_is_junk=same_camera_is_junk,
            exclude_self=same,
            metric=metric,
            **measures,
        )
        print(results.metrics_table(evaluation.rankings)[".txt"], end="")


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
