"""``reid index``: features, or images by way of a model, to a gallery that can be searched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import arguments
from .command import Command

if TYPE_CHECKING:
    from reid_ops.search import RecallReport

    from ..data import ImageRecord
    from ..networks import Network
    from ..retrieval.features import Features
    from ..retrieval.gallery import Gallery
    from ..runs.models import Trained
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="features files, or images: files, tables (.csv) of them, and folders with all that is in them; "
        "folders IDENTITY/* and IDENTITY/CAMERA/* keep their identities and cameras",
    )
    parser.add_argument(
        "--labels",
        metavar="CSV",
        help="path, identity and camera of each row of a features file made elsewhere; none: NAME.csv",
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
    parser.add_argument(
        "--metric",
        choices=["cosine", "euclidean", "match"],
        help="of features; match: an index of the embeddings of a network that compares pairs, and a file of "
        "codes; none: match for images and such a network, else cosine",
    )
    parser.add_argument(
        "--codes",
        metavar="FILE",
        help="with match: where the codes of images go (.safetensors); none: beside the index",
    )
    parser.add_argument(
        "--flat", action="store_true", help="folders are only folders, not identities and cameras"
    )
    arguments.add_skip_damaged(parser)
    arguments.add_extraction(parser)


def run(options: Namespace) -> None:
    from .._output import check_folder
    from ..retrieval.formats import is_features

    check_folder(options.output, "--output")
    files = [source for source in options.sources if is_features(source)]
    images = [source for source in options.sources if not is_features(source)]
    if options.labels is not None and len(files) != 1:
        raise ValueError(f"--labels must come with one features file, got {len(files)}")
    if images and options.model is None:
        raise ValueError(f"--model must be given for images, such as {images[0]}")

    records = _records(images, options)  # what is wrong with the data is said before a model is fetched
    trained = _network(files, images, options)
    if trained is not None and _by_match(trained.model, images, options):
        _index_codes(files, records, trained, options)
        return
    if options.codes is not None:
        raise ValueError("--codes is for --metric match and a network that compares pairs")

    from ..retrieval.gallery import Gallery

    gallery, report = Gallery.build(
        _parts(files, records, trained, options),
        kind=options.kind,
        metric=options.metric or "cosine",
        recall=options.recall,
        device=options.device,
    )
    gallery.save(options.output)
    _say(options.output, gallery, report)


def _records(images: list[str], options: Namespace) -> tuple[ImageRecord, ...]:
    """The images that can be used; none where none are given."""
    if not images:
        return ()
    from ..data.datasets.sources import read_sources

    return arguments.usable_images(lambda: read_sources(images, flat=options.flat), options)


def _network(files: list[str], images: list[str], options: Namespace) -> Trained | None:
    """The network that is needed: for images, and for codes the one that made them."""
    if not images and options.metric != "match":
        return None
    from ..runs.models import load_trained

    path = options.model
    if path is None:
        from ..retrieval.features import load_features

        source = load_features(files[0]).source
        path = "" if source is None else source.path
        if not path:
            raise ValueError(f"--model must be given: {files[0]} does not say which model it was made with")
    return load_trained(path)


def _by_match(network: Network, images: list[str], options: Namespace) -> bool:
    from ..retrieval.code_gallery import embeds

    return options.metric == "match" or (options.metric is None and bool(images) and embeds(network))


def _index_codes(
    files: list[str], records: tuple[ImageRecord, ...], trained: Trained, options: Namespace
) -> None:
    """An index of embeddings beside the codes: those of a file, or of images, which are written."""
    from .._output import check_folder
    from ..retrieval.code_gallery import CodeGallery, check_index
    from ..retrieval.extraction import extract_to_file

    if files and (records or len(files) > 1 or options.codes is not None):
        raise ValueError("--metric match takes images, whose codes go to --codes, or one file of codes")
    settings = {"kind": options.kind, "recall": options.recall, "device": options.device}
    check_index(trained.model, **settings)
    codes = files[0] if files else options.codes or f"{options.output}.codes.safetensors"
    if records:
        if not codes.endswith(".safetensors"):
            raise ValueError(f"--codes must end in .safetensors, got {codes}")
        check_folder(codes, "--codes")
        extract_to_file(codes, trained.model, records, **arguments.extraction(options, trained))
        print(f"written: {codes}")
    stored, report = CodeGallery.build(trained.model, codes, **settings)
    stored.save(options.output)
    _say(options.output, stored.gallery, report)


def _say(output: str, gallery: Gallery, report: RecallReport | None) -> None:
    print(f"written: {output} ({_size(gallery)})")
    if report is not None:
        print(f"recall of the {report.k} nearest: {report.recall:.4f} ({report.parameter} {report.value})")


def _size(gallery: Gallery) -> str:
    """Images, and identities and cameras where they are known."""
    counts = [f"{len(gallery)} images"]
    for name, labels in (("identities", gallery.identities), ("cameras", gallery.cameras)):
        known = len({*labels.tolist()} - {-1})
        counts += [f"{known} {name}"] if known else []
    return ", ".join(counts)


def _parts(
    files: list[str], records: tuple[ImageRecord, ...], trained: Trained | None, options: Namespace
) -> Iterator[Features]:
    from ..retrieval.extraction import extract_parts
    from ..retrieval.features import load_features

    for file in files:
        yield load_features(file, part="gallery", labels=options.labels)
    if trained is not None:
        yield from extract_parts(trained.model, records, **arguments.extraction(options, trained))


COMMAND = Command(
    name="index",
    summary="makes a gallery that can be searched, from images and a model or from features",
    example="""
reid index my_images --model runs/vans --output vans.index
reid index animals.csv --model runs/animals --output animals.index
reid index my_images --model timm:vit_small_patch14_dinov2 --output mine.index
reid index gallery.npz --output gallery.index
reid index gallery.safetensors more.safetensors --kind ivf --recall 0.95 --output gallery.index
reid index my_images --model runs/csn --output vans.index       # and vans.index.codes.safetensors
""",
    configure=configure,
    run=run,
)
