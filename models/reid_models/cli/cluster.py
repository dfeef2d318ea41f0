"""``reid cluster``: images or features grouped into whom they may show, without labels."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._text import visible
from . import arguments, results
from .command import Command

if TYPE_CHECKING:
    import numpy as np

    from ..retrieval.features import Features
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="one features file, or images: files and folders"
    )
    arguments.add_model(parser, note="; needed for images")
    parser.add_argument(
        "--eps",
        type=float,
        default=0.6,
        metavar="X",
        help="how far neighbours may be, 0 to 1: more, fewer clusters",
    )
    parser.add_argument(
        "--min-samples", type=int, default=4, metavar="N", help="images near together that make a cluster"
    )
    parser.add_argument("--k1", type=int, default=30, metavar="N", help="length of neighbour lists")
    arguments.add_k2(parser)
    parser.add_argument(
        "--preset",
        choices=["zhong", "torchreid", "spcl", "fast-reid"],
        default="spcl",
        help="of Jaccard distances",
    )
    arguments.add_output(parser)
    arguments.add_skip_damaged(parser)
    arguments.add_extraction(parser)


def run(options: Namespace) -> None:
    results.check_output(options)
    features = _features(options)

    from ..retrieval.clustering import cluster_features

    labels = cluster_features(
        features.features,
        eps=options.eps,
        min_samples=options.min_samples,
        k1=options.k1,
        k2=options.k2,
        preset=options.preset,
    )
    print(_summary(labels, features), file=sys.stderr)
    results.give(options, _written(labels, features.paths, results.form(options)))


def _features(options: Namespace) -> Features:
    from ..retrieval.features import load_features
    from ..retrieval.formats import is_features

    files = [source for source in options.sources if is_features(source)]
    if files:
        if len(options.sources) > 1:
            raise ValueError(f"SOURCE must be one features file or images, got {len(options.sources)} names")
        return load_features(files[0])
    if options.model is None:
        raise ValueError(f"--model must be given for images, such as {options.sources[0]}")
    from ..data import read_images
    from ..retrieval.extraction import extract_features
    from ..runs.models import load_trained

    records = arguments.usable_images(lambda: read_images(options.sources), options)
    trained = load_trained(options.model)
    return extract_features(trained.model, records, **arguments.extraction(options, trained))


def _summary(labels: np.ndarray, features: Features) -> str:
    """What was found in a line; where identities are known, how well it agrees with them."""
    text = f"{labels.max(initial=-1) + 1} clusters; {int((labels < 0).sum())} of {len(labels)} images in none"
    identities = features.identities.numpy()
    known = (identities >= 0) & (labels >= 0)
    if not known.any():
        return text
    from sklearn.metrics import adjusted_rand_score

    score = adjusted_rand_score(identities[known], labels[known])
    return f"{text}; adjusted Rand index with the identities {score:.3f} (1: the same groups)"


def _written(labels: np.ndarray, paths: Sequence[str], form: str) -> str:
    """Clusters in order, what is in none at the end."""
    groups: dict[int, list[str]] = {}
    for label, path in sorted(
        zip(labels.tolist(), paths, strict=True), key=lambda pair: (pair[0] < 0, pair[0])
    ):
        groups.setdefault(label, []).append(path)
    if form == ".json":
        rows = [
            {"cluster": None if label < 0 else label, "images": images} for label, images in groups.items()
        ]
        return results.as_json({"clusters": rows})
    if form == ".csv":
        table = [(path, label if label >= 0 else None) for label, images in groups.items() for path in images]
        return results.as_csv(("path", "cluster"), table)
    lines = []
    for label, images in groups.items():
        lines.append(f"{'in none' if label < 0 else f'cluster {label}'}: {len(images)} images\n")
        lines += [f"  {visible(image)}\n" for image in images]
    return "".join(lines)


COMMAND = Command(
    name="cluster",
    summary="groups images by whom they may show, without labels",
    example="""
reid cluster my_images --model runs/vans --output clusters.csv
reid cluster train.safetensors --eps 0.5 --json
""",
    configure=configure,
    run=run,
)
