"""``reid search``: the best matches of images or features in an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import arguments, results
from .command import Command

if TYPE_CHECKING:
    from ..retrieval.features import Features
    from ..retrieval.gallery import Gallery
    from .parsing import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "queries",
        nargs="+",
        metavar="QUERY",
        help="images, folders of images, or one features file (.safetensors)",
    )
    parser.add_argument("--index", required=True, metavar="FILE", help="a file of `reid index`")
    parser.add_argument("-k", "--count", type=int, default=10, metavar="N", help="matches of each query")
    arguments.add_model(parser, note="; none: the one that the index was made with, where that was")
    parser.add_argument("--rerank", action="store_true", help="re-rank each query's best candidates")
    arguments.add_rerank(parser)
    parser.add_argument(
        "--other-cameras", action="store_true", help="leave out the camera of a query, where features tell it"
    )
    arguments.add_output(parser)
    arguments.add_extraction(parser, flip=False)


def run(options: Namespace) -> None:
    results.check_output(options)

    from ..retrieval.features import choose_device
    from ..retrieval.gallery import Gallery

    # Mapped, so that it may be larger than memory; what is mapped is searched on the CPU.
    mapped = choose_device(options.device).type == "cpu"
    gallery = Gallery.load(options.index, device=options.device, mmap=mapped, verify=True)
    query = _query(options, gallery)
    chosen = arguments.rerank_options(options) if options.rerank else None
    scores, rows = gallery.search(query, options.count, rerank=chosen, other_cameras=options.other_cameras)
    if options.rerank:
        meaning = "re-ranked distance"
    else:
        meaning = "cosine similarity" if gallery.index.metric == "cosine" else "euclidean distance"
    names = query.paths, scores, rows, gallery.paths, gallery.identities.tolist()
    results.give(options, results.ranked_lists(*names, meaning=meaning, form=results.form(options)))


def _query(options: Namespace, gallery: Gallery) -> Features:
    """The queries' features: of a file, or by the model and the settings of the index."""
    from ..retrieval.features import extract_features, load_features

    files = [name for name in options.queries if name.endswith(".safetensors")]
    if files:
        if len(options.queries) > 1:
            raise ValueError(f"QUERY must be one features file or images, got {len(options.queries)} names")
        return load_features(files[0])

    from ..data import read_images
    from ..runs.models import load_trained

    records = read_images(options.queries)
    source = gallery.source
    path = options.model or (source.path if source is not None else "")
    if not path:
        raise ValueError(f"--model must be given: {options.index} does not say which model it was made with")
    trained = load_trained(path)
    chosen = arguments.extraction(options, trained)
    if source is not None:
        chosen["flip_average"] = source.flip_average
    return extract_features(trained.model, records, **chosen)


COMMAND = Command(
    name="search",
    summary="finds the best matches of images in an index",
    example="""
reid search QUERY.jpg --index vans.index
reid search queries --index vans.index -k 20 --rerank --output matches.csv
""",
    configure=configure,
    run=run,
)
