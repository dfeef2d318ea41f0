"""Arguments that several commands have, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data import ReidDataset
    from ..runs.models import Trained
    from .parsing import ArgumentParser, Namespace


def add_model(parser: ArgumentParser, *, required: bool = False, note: str = "") -> None:
    parser.add_argument(
        "--model",
        metavar="RUN",
        required=required,
        help=f"a run folder, or a file of weights (.safetensors){note}",
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
    parser.add_argument("--k2", type=int, default=6, metavar="N", help="neighbours in the local expansion")
    parser.add_argument(
        "--lambda",
        dest="lambda_value",
        type=float,
        default=0.3,
        metavar="X",
        help="weight of the original distance",
    )


def add_preset(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--preset",
        choices=["zhong", "torchreid", "spcl", "fast-reid"],
        default="zhong",
        help="the public code whose numbers to give",
    )


def rerank_options(options: Namespace) -> dict[str, Any]:
    """The keywords of ``k_reciprocal_rerank``."""
    chosen = {"k1": options.k1, "k2": options.k2, "lambda_value": options.lambda_value}
    return {**chosen, "preset": options.preset} if "preset" in options else chosen


def add_metrics(parser: ArgumentParser) -> None:
    """How distances are made and counted."""
    parser.add_argument("--metric", choices=["cosine", "euclidean"], default="cosine", help="of features")
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
    """The keywords of ``evaluate_retrieval`` without re-ranking."""
    if options.expand is None and options.expand_alpha is not None:
        raise ValueError("--expand-alpha must come with --expand")
    expand = None if options.expand is None else {"k": options.expand, "alpha": options.expand_alpha}
    return {"metric": options.metric, "expand": expand, "average_precision": options.average_precision}


def add_output(parser: ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", help="write to a file: .json, .csv or .txt")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
