"""Arguments that several commands have, and what they mean."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._text import visible

if TYPE_CHECKING:
    from ..data import ImageRecord, ReidDataset
    from ..retrieval.comparison import Comparison
    from ..retrieval.features import Features
    from ..runs.models import Trained
    from .parsing import ArgumentParser, Namespace


#: What a model is, for ``--help``.
MODEL = (
    "a run folder, a file of weights (.safetensors), timm:NAME or timm:NAME@FILE (a network of timm with its "
    "ImageNet weights, or with those of a state dict; no training), or onnx:FILE"
)


def add_model(parser: ArgumentParser, *, required: bool = False, note: str = "") -> None:
    parser.add_argument(
        "--model",
        metavar="MODEL",
        required=required,
        help=f"{MODEL}{note}",
    )


def add_extraction(parser: ArgumentParser, *, flip: bool = True) -> None:
    """How images become features."""
    if flip:
        parser.add_argument(
            "--flip", action="store_true", help="average features over each image and its mirror image"
        )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that decode images")
    parser.add_argument(
        "--autocast",
        choices=["bfloat16", "float16"],
        help="the network's arithmetic, in half precision",
    )
    add_device(parser)


def add_keep(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--no-keep",
        action="store_true",
        help="don't use features that are kept in a run folder again, and keep none",
    )


def add_skip_damaged(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--skip-damaged", action="store_true", help="leave out images that can't be read, instead of stopping"
    )


def usable_images(
    read: Callable[[], Sequence[ImageRecord]], options: Namespace, *, progress: bool = True
) -> tuple[ImageRecord, ...]:
    """The images that ``read`` gives, without those that can't be read; stderr says which and what else.

    Raises:
        ValueError: there are such images and ``--skip-damaged`` is not given, or there are no others.
    """
    from ..data.damage import collected_damage
    from ..data.images import find_damaged
    from ..data.passed_over import counted_files, describe

    with collected_damage() as damage, counted_files() as counts:
        records = tuple(read())
    for line in describe(counts):
        print(visible(line), file=sys.stderr)
    broken = find_damaged(records, progress=progress)
    damage += broken.values()
    if len(damage) > 1 or options.skip_damaged:  # a single one is in the error
        for line in damage:
            print(f"damaged: {visible(line)}", file=sys.stderr)
    kept = tuple(record for record in records if record not in broken)
    if damage and not (options.skip_damaged and kept):
        count = len(kept) + len(damage)
        way = "there are no others" if not kept else "mend them, or leave them out by --skip-damaged"
        which = f"{damage[0]}: it" if len(damage) == 1 else f"{len(damage)} of {count} images"
        raise ValueError(f"{which} can't be read; {way}")
    return kept


def add_device(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, or auto: a GPU where there is one"
    )


def extraction(options: Namespace, trained: Trained) -> dict[str, Any]:
    """The keywords of ``extract_features``."""
    return {
        **trained.extraction,
        "flip_average": bool(options.get("flip", False)),
        "batch_size": options.batch_size,
        "workers": options.workers,
        "autocast": options.autocast,
        "device": options.device,
        "progress": True,
    }


def add_dataset(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", metavar="NAME", help="a dataset's name, see `reid datasets`")
    add_root(parser)


def add_root(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--root", metavar="DIR", help="where the dataset is; none for those that are built in"
    )
    parser.add_argument(
        "--options",
        type=dict[str, Any],
        default={},
        metavar="JSON",
        help="options of the dataset's reader, one by one as in `--options.test_size 1600`",
    )


def dataset(name: str, options: Namespace) -> ReidDataset:
    """The dataset of that name, as the arguments have it."""
    from ..data import read_dataset

    return read_dataset(name, options.root, **options.options)


def add_rerank(parser: ArgumentParser) -> None:
    """The numbers of k-reciprocal re-ranking."""
    parser.add_argument("--k1", type=int, default=20, metavar="N", help="length of neighbour lists")
    add_k2(parser)
    parser.add_argument(
        "--lambda",
        dest="lambda_value",
        type=float,
        default=0.3,
        metavar="X",
        help="weight of the original distance",
    )


def add_k2(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--k2",
        type=int,
        metavar="N",
        help="neighbours in the local expansion; none: 6, or a smaller k1",
    )


def add_preset(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        choices=["zhong", "torchreid", "spcl", "fast-reid"],
        default="zhong",
        help="the public code whose numbers to give",
    )


def rerank_options(options: Namespace) -> dict[str, Any]:
    """The keywords of ``Comparison.rerank``, checked before features are extracted for them."""
    from reid_ops.k_reciprocal.definition import check_numbers, expansion

    k2 = expansion(options.k1, options.k2)
    check_numbers(options.k1, k2, options.lambda_value, "soft", "re-ranking")
    chosen = {"k1": options.k1, "k2": k2, "lambda_value": options.lambda_value}
    if "preset" in options:
        chosen["preset"] = options.preset
    return {**chosen, "dense": True} if options.get("dense", False) else chosen


def add_labels(parser: ArgumentParser) -> None:
    """Of pairs of features files: labels of those made elsewhere, and images that are in both."""
    for name in ("query", "gallery"):
        parser.add_argument(
            f"--{name}-labels",
            metavar="CSV",
            help=f"path, identity and camera of the {name}'s features, made elsewhere; none: NAME.csv beside "
            "them, or what they say themselves",
        )
    parser.add_argument(
        "--exclude-self",
        action="store_true",
        help="leave each query's own image, the one of its name, out of its ranking; done by itself where "
        "both are one file",
    )


def load_pair(options: Namespace) -> tuple[Features, Features, bool]:
    """Features of queries and gallery in one numbering, and whether each query's own image is left out."""
    from ..retrieval.alignment import align
    from ..retrieval.features import load_features
    from ..retrieval.matches import is_same_file

    query = load_features(options.query, part="query", labels=options.query_labels)
    gallery = load_features(options.gallery, part="gallery", labels=options.gallery_labels)
    shared = not set(query.paths).isdisjoint(gallery.paths)
    same = shared and is_same_file(options.query, options.gallery)
    if options.exclude_self and not shared:
        raise ValueError("--exclude-self: no query has the name of an image of the gallery")
    return *align(query, gallery), same or options.exclude_self


def add_metrics(parser: ArgumentParser) -> None:
    """How distances are made and counted."""
    parser.add_argument(
        "--metric",
        choices=["cosine", "euclidean", "xqda", "mahalanobis", "match"],
        help="of features; none: cosine, or match where the network compares pairs",
    )
    parser.add_argument(
        "--fit",
        metavar="FEATURES",
        help="features of training images, for xqda and mahalanobis; none: of the dataset's, by the model",
    )
    parser.add_argument(
        "--match",
        type=dict[str, Any],
        default={},
        metavar="JSON",
        help="options of the network's match, one by one as in `--match.megabytes 256`",
    )
    parser.add_argument(
        "--shortlist",
        type=int,
        metavar="K",
        help="with match: score only each query's K nearest by the network's embeddings; none: all pairs",
    )
    parser.add_argument(
        "--dense",
        action="store_true",
        help="re-rank by xqda, mahalanobis and match a gallery of more than 20,000 images as well, which "
        "takes the distances among all of them",
    )
    parser.add_argument(
        "--expand", type=int, metavar="K", help="query expansion: mean of each query and its K best items"
    )
    parser.add_argument(
        "--expand-alpha", type=float, metavar="A", help="weights of these items: similarity to the power A"
    )
    parser.add_argument(
        "--average-precision",
        choices=["mean_precision", "trapezoid"],
        default="mean_precision",
        help="which definition",
    )


def metric_options(options: Namespace) -> dict[str, Any]:
    """The keywords of ``evaluate_retrieval`` without metric and re-ranking."""
    if options.expand is None and options.expand_alpha is not None:
        raise ValueError("--expand-alpha must come with --expand")
    if options.fit is not None and options.metric not in ("xqda", "mahalanobis"):
        raise ValueError(f"--fit is for --metric xqda and mahalanobis, got {options.metric}")
    expand = None if options.expand is None else {"k": options.expand, "alpha": options.expand_alpha}
    return {"expand": expand, "average_precision": options.average_precision}


def fitting(options: Namespace) -> Features | None:
    """The features of ``--fit``."""
    from ..retrieval.features import load_features

    return None if options.fit is None else load_features(options.fit)


def comparison(options: Namespace, features: Features, model: str | None) -> Comparison:
    """How features of a file are compared.

    Args:
        options: of the command.
        features: of the file.
        model: the network that is asked for ``--metric match``; None: the one that made the features.
    """
    from ..retrieval.comparison import make_comparison
    from ..retrieval.extraction import choose_device

    metric = options.metric or "cosine"
    if metric != "match":
        if metric in ("xqda", "mahalanobis") and options.fit is None:
            raise ValueError(
                f"--fit must be given with --metric {metric}: a file of training images' features"
            )
        return make_comparison(metric, fit=fitting(options))
    path = model or (features.source.path if features.source is not None else "")
    if not path:
        raise ValueError("--metric match needs a model: the features do not say which one they are of")
    from ..runs.models import load_trained

    chosen = {"device": choose_device(options.get("device", "auto")), "progress": True, **options.match}
    network = load_trained(path).model
    return make_comparison("match", network=network, shortlist=options.shortlist, **chosen)


def add_output(parser: ArgumentParser, more: str = "") -> None:
    parser.add_argument("--output", metavar="FILE", help=f"write to a file: .json, .csv or .txt{more}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
