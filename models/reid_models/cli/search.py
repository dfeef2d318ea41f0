"""``reid search``: the best matches of images or features in an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import arguments, results
from .command import Command

if TYPE_CHECKING:
    from ..retrieval.features import Features, Source
    from .parsing import ArgumentParser, Namespace

DEFAULT = 100  # length of a shortlist


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "queries",
        nargs="+",
        metavar="QUERY",
        help="images, folders of images, or one features file (.safetensors)",
    )
    parser.add_argument(
        "--index",
        required=True,
        metavar="FILE",
        help="a file of `reid index`, or the gallery's codes of a network that compares pairs",
    )
    parser.add_argument(
        "--shortlist",
        type=int,
        metavar="K",
        help="of codes: score each query's K nearest by the network's embeddings (100, or the whole gallery)",
    )
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

    if options.index.endswith(".safetensors"):
        _search_codes(options)
        return
    if options.shortlist is not None:
        raise ValueError("--shortlist is for --index CODES.safetensors, of a network that compares pairs")

    from ..retrieval.extraction import choose_device
    from ..retrieval.gallery import Gallery

    # Mapped, so that it may be larger than memory; what is mapped is searched on the CPU.
    mapped = choose_device(options.device).type == "cpu"
    gallery = Gallery.load(options.index, device=options.device, mmap=mapped, verify=True)
    query = _query(options, gallery.source)
    chosen = arguments.rerank_options(options) if options.rerank else None
    scores, rows = gallery.search(query, options.count, rerank=chosen, other_cameras=options.other_cameras)
    if options.rerank:
        meaning = "re-ranked distance"
    else:
        meaning = "cosine similarity" if gallery.index.metric == "cosine" else "euclidean distance"
    names = query.paths, scores, rows, gallery.paths, gallery.identities.tolist()
    results.give(options, results.ranked_lists(*names, meaning=meaning, form=results.form(options)))


def _search_codes(options: Namespace) -> None:
    """In two stages: a shortlist by embedding, then the network's scores."""
    if options.rerank or options.other_cameras:
        raise ValueError("--rerank and --other-cameras are for a file of `reid index`, not for codes")
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, got {options.count}")

    from ..retrieval.comparison import prepare_pair
    from ..retrieval.extraction import choose_device
    from ..retrieval.features import load_features
    from ..retrieval.pair_scores import Shortlisted
    from ..runs.models import load_trained

    gallery = load_features(options.index)
    path = options.model or (gallery.source.path if gallery.source is not None else "")
    if not path:
        raise ValueError(f"--model must be given: {options.index} does not say which model it was made with")
    size = min(DEFAULT, len(gallery)) if options.shortlist is None else options.shortlist
    network = load_trained(path).model
    comparison = Shortlisted(network, size, device=choose_device(options.device), progress=True)
    query = _query(options, gallery.source)
    scores, rows = (
        found[:, : options.count] for found in comparison.best(*prepare_pair(comparison, query, gallery))
    )
    names = query.paths, scores, rows, gallery.paths, gallery.identities.tolist()
    meaning = f"the network's similarity, of a shortlist of {size}"
    results.give(options, results.ranked_lists(*names, meaning=meaning, form=results.form(options)))


def _query(options: Namespace, source: Source | None) -> Features:
    """The queries' features: of a file, or by the model and the settings of the index."""
    from ..retrieval.extraction import extract_features
    from ..retrieval.features import load_features

    files = [name for name in options.queries if name.endswith(".safetensors")]
    if files:
        if len(options.queries) > 1:
            raise ValueError(f"QUERY must be one features file or images, got {len(options.queries)} names")
        return load_features(files[0])

    from ..data import read_images
    from ..runs.models import load_trained

    records = read_images(options.queries)
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
reid search QUERY.jpg --index codes.safetensors --shortlist 50
""",
    configure=configure,
    run=run,
)
