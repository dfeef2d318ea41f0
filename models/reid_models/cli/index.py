"""``reid index``: features, or images by way of a model, to a gallery that can be searched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .command import Command

if TYPE_CHECKING:
    from ..retrieval.features import Features
    from ..retrieval.gallery import Gallery
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="features files, or images: files, tables (.csv) of them, and folders with all that is in them; "
        "folders IDENTITY/* and IDENTITY/CAMERA/* keep their identities and cameras",
    )
    arguments.add_model(parser, note="; needed for images")
    parser.add_argument("--output", required=True, metavar="FILE", help="the index")
    parser.add_argument(
        "--kind",
        choices=["flat", "ivf", "ivfpq", "hnsw"],
        default="flat",
        help="flat is exact; others for millions",
    )
    parser.add_argument("--recall", type=float, default=0.99, metavar="X", help="what other kinds must reach")
    parser.add_argument("--metric", choices=["cosine", "euclidean"], default="cosine", help="of features")
    parser.add_argument(
        "--flat", action="store_true", help="folders are only folders, not identities and cameras"
    )
    arguments.add_extraction(parser)


def run(options: Namespace) -> None:
    from .._output import check_folder
    from ..retrieval.formats import is_features

    check_folder(options.output, "--output")
    files = [source for source in options.sources if is_features(source)]
    images = [source for source in options.sources if not is_features(source)]
    if images and options.model is None:
        raise ValueError(f"--model must be given for images, such as {images[0]}")

    from ..retrieval.gallery import Gallery

    gallery, report = Gallery.build(
        _parts(files, images, options),
        kind=options.kind,
        metric=options.metric,
        recall=options.recall,
        device=options.device,
    )
    gallery.save(options.output)
    print(f"written: {options.output} ({_size(gallery)})")
    if report is not None:
        print(f"recall of the {report.k} nearest: {report.recall:.4f} ({report.parameter} {report.value})")


def _size(gallery: Gallery) -> str:
    """Images, and identities and cameras where they are known."""
    counts = [f"{len(gallery)} images"]
    for name, labels in (("identities", gallery.identities), ("cameras", gallery.cameras)):
        known = len({*labels.tolist()} - {-1})
        counts += [f"{known} {name}"] if known else []
    return ", ".join(counts)


def _parts(files: list[str], images: list[str], options: Namespace) -> Iterator[Features]:
    from ..retrieval.extraction import extract_parts
    from ..retrieval.features import load_features
    from ..runs.models import load_trained

    for file in files:
        yield load_features(Path(file))
    if images:
        from ..data.datasets.sources import read_sources

        records = read_sources(images, flat=options.flat)
        trained = load_trained(options.model)
        yield from extract_parts(trained.model, records, **arguments.extraction(options, trained))


COMMAND = Command(
    name="index",
    summary="makes a gallery that can be searched, from images and a model or from features",
    example="""
reid index my_images --model runs/vans --output vans.index
reid index animals.csv --model runs/animals --output animals.index
reid index gallery.safetensors more.safetensors --kind ivf --recall 0.95 --output gallery.index
""",
    configure=configure,
    run=run,
)
