"""``reid search``: the best matches of images or features in an index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments, results
from .command import Command

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..retrieval.code_gallery import CodeGallery
    from ..retrieval.features import Features, Source
    from .parsing import ArgumentParser, Namespace

DEFAULT = 100  # length of a shortlist
PICTURES = (".html", ".png", ".svg", ".pdf")


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "queries",
        nargs="+",
        metavar="QUERY",
        help="images, folders of images, or one features file (.safetensors, .npy, .npz, .mat, .pt)",
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
    parser.add_argument(
        "--codes", metavar="FILE", help="where the codes of an index of codes are now, if they have moved"
    )
    parser.add_argument("-k", "--count", type=int, default=10, metavar="N", help="matches of each query")
    arguments.add_model(parser, note="; none: the one that the index was made with, where that was")
    parser.add_argument("--rerank", action="store_true", help="re-rank each query's best candidates")
    arguments.add_rerank(parser)
    parser.add_argument(
        "--other-cameras", action="store_true", help="leave out the camera of a query, where features tell it"
    )
    parser.add_argument(
        "--with-self",
        action="store_true",
        help="keep a query's own image among its matches, where it is in the index",
    )
    arguments.add_output(parser, ", or to look at: .html, .png, .svg or .pdf")
    arguments.add_extraction(parser, flip=False)


def run(options: Namespace) -> None:
    results.check_output(options, PICTURES)

    if options.index.endswith(".safetensors"):
        _search_codes(options)
        return

    from ..retrieval.code_gallery import CodeGallery, has_codes
    from ..retrieval.extraction import choose_device
    from ..retrieval.gallery import Gallery

    # Mapped, so that it may be larger than memory; what is mapped is searched on the CPU.
    mapped = choose_device(options.device).type == "cpu"
    gallery = Gallery.load(options.index, device=options.device, mmap=mapped, verify=True)
    if has_codes(gallery):
        _search_codes(options, CodeGallery.of(gallery, options.index, codes=options.codes))
        return
    for name in ("shortlist", "codes"):
        if options[name] is not None:
            raise ValueError(f"--{name} is for --index of codes, of a network that compares pairs")
    query = _query(options, gallery.source)
    own = None if options.with_self else gallery.own_rows(query)
    query = gallery.align(query, own)
    chosen = arguments.rerank_options(options) if options.rerank else None
    scores, rows = gallery.search(
        query, options.count, rerank=chosen, other_cameras=options.other_cameras, own=own
    )
    if options.rerank:
        meaning = "re-ranked distance"
    else:
        meaning = "cosine similarity" if gallery.index.metric == "cosine" else "euclidean distance"
    _say_own(own)
    _give(options, results.Matches(query.records(), scores, rows, gallery.record, meaning))


def _say_own(own: np.ndarray | None) -> None:
    """How many queries were found in the index and left out of their own matches."""
    inside = 0 if own is None else int((own >= 0).sum())
    if own is not None and inside:
        them = "the query itself is" if len(own) == 1 else f"{inside} of {len(own)} queries themselves are"
        print(f"left out of their own matches: {them} in the index (--with-self keeps them)", file=sys.stderr)


def _give(options: Namespace, found: results.Matches) -> None:
    """Writes or prints the matches; as pictures, if the output ends so."""
    form = results.form(options)
    if form not in PICTURES:
        results.give(options, found.text(form))
        return
    from ..report.matches import matches_of, plot_matches, report_matches
    from ..report.style import save_figure

    lists = matches_of(found.lists())
    gone = {item.path for listed in lists for item in listed.items if not Path(item.path).is_file()}
    if form == ".html":
        report_matches(lists, found.described).write_html(options.output)
    else:
        save_figure(plot_matches(lists, found.described), options.output)
    if gone:
        print(f"{len(gone)} images are not where the index has them, such as {min(gone)}", file=sys.stderr)
    print(f"written: {options.output}")


def _search_codes(options: Namespace, stored: CodeGallery | None = None) -> None:
    """In two stages: a shortlist by embedding, then the network's scores.

    Args:
        options: of the command.
        stored: the index and its codes; None: the index is a file of codes, indexed here.
    """
    if options.rerank or options.other_cameras:
        raise ValueError("--rerank and --other-cameras are for an index of features, not for codes")
    if stored is None and options.codes is not None:
        raise ValueError("--codes is for a file of `reid index`: this index is a file of codes itself")
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, got {options.count}")

    import numpy as np

    from ..retrieval.alignment import align
    from ..retrieval.comparison import prepare_pair
    from ..retrieval.extraction import choose_device
    from ..retrieval.features import load_features
    from ..retrieval.matches import drop_rows, own_rows
    from ..retrieval.pair_scores import Shortlisted
    from ..runs.models import load_trained

    gallery = load_features(options.index) if stored is None else stored.codes
    path = options.model or (gallery.source.path if gallery.source is not None else "")
    if not path:
        raise ValueError(f"--model must be given: {options.index} does not say which model it was made with")
    size = min(DEFAULT, len(gallery)) if options.shortlist is None else options.shortlist
    network = load_trained(path).model
    comparison = Shortlisted(network, size, device=choose_device(options.device), progress=True)
    query = _query(options, gallery.source)
    gallery, query = align(gallery, query)
    if stored is None:
        found = comparison.best(*prepare_pair(comparison, query, gallery))
        paths, locate, record = gallery.paths, None, gallery.record
    else:
        found = stored.search(comparison, query)
        paths, locate, record = stored.gallery.paths, stored.gallery.locate, stored.gallery.record
    own = None if options.with_self else own_rows(query.paths, paths, locate)
    _say_recall(query, gallery, found[1])
    scores, rows = (part.cpu().numpy() for part in found)
    none = np.full(len(query), -1)
    scores, rows = drop_rows(scores, rows, none if own is None else own, options.count)
    meaning = f"the network's similarity, of a shortlist of {size}"
    _say_own(own)
    _give(options, results.Matches(query.records(), scores, rows, record, meaning))


def _say_recall(query: Features, gallery: Features, rows: Tensor) -> None:
    """How often a shortlist has a right image, where identities tell."""
    from ..retrieval.protocol import Protocol

    protocol = Protocol()
    if protocol.has_positive(query, gallery):
        share = 100 * protocol.measure_lists(query, gallery, rows.cpu())
        text = f"a right image is on the shortlist of {rows.shape[1]}: {share:.2f} % of queries"
        print(text, file=sys.stderr)


def _query(options: Namespace, source: Source | None) -> Features:
    """The queries' features: of a file, or by the model and the settings of the index."""
    from ..retrieval.extraction import extract_features
    from ..retrieval.features import load_features
    from ..retrieval.formats import is_features

    files = [name for name in options.queries if is_features(name)]
    if files:
        if len(options.queries) > 1:
            raise ValueError(f"QUERY must be one features file or images, got {len(options.queries)} names")
        return load_features(files[0], part="query")

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
reid search queries --index vans.index --output matches.html
reid search QUERY.jpg --index csn.index --shortlist 50
""",
    configure=configure,
    run=run,
)
