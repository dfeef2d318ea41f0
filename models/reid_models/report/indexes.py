"""Ranked lists of what is in indexes: queries from elsewhere, or the indexed images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import ImageRecord
from ..data.datasets.sources import read_sources
from ..data.records import JUNK, have_positive
from ..retrieval.extraction import extract_features
from ..retrieval.features import Features, load_features
from ..retrieval.formats import is_features
from ..retrieval.gallery import Gallery
from ..runs.models import load_trained
from .lists import RankedList, choose_queries
from .retrieval import rank_features

MOST = 50_000_000  # distances that are made to choose queries by their AP


def is_index(path: Path) -> bool:
    """Whether an INPUT is an index: a file that is no network's."""
    return path.is_file() and not is_features(str(path)) and path.suffix != ".onnx"


def list_indexes(
    paths: Mapping[str, Path],
    *,
    queries: str | None = None,
    count: int = 5,
    top: int = 10,
    how: str = "first",
    seed: int = 0,
    rerank: Mapping[str, Any] | None = None,
    device: str = "auto",
    **extraction: Any,
) -> tuple[dict[str, list[RankedList]], str]:
    """Ranked lists of indexes of the same images, by name; re-ranked ones as ``"NAME, re-ranked"``.

    Args:
        paths: name -> file of ``reid index``.
        queries: images, a folder or a table of them, or a file of features; None: the indexed images of known
            identities, each searched for among all others.
        count: how many queries.
        top: length of the lists.
        how: which queries, see :func:`choose_queries`; other choices than ``"first"`` and ``"random"`` need
            identities.
        seed: of ``"random"``.
        rerank: options of re-ranking; None: none.
        device: that networks run on.
        **extraction: of :func:`reid_models.retrieval.extraction.extract_features`.

    Returns:
        The lists, and a line that says what their scores are.

    Raises:
        ValueError, FileNotFoundError: an index, the queries or a choice can't be used.
    """
    found: dict[str, list[RankedList]] = {}
    meanings: dict[str, None] = {}
    chosen: list[str] | None = None
    for name, path in paths.items():
        gallery = Gallery.load(path, device="cpu")
        asked = _of_gallery(gallery) if queries is None else _read(queries, gallery, path, device, extraction)
        if chosen is None:
            rows = _choose(asked, gallery, count, how, seed)
            chosen = [asked.paths[row] for row in rows]
        places = {query: row for row, query in enumerate(asked.paths)}
        missing = [query for query in chosen if query not in places]
        if missing:
            raise ValueError(f"{path} must have the same images as the first index, and has not {missing[0]}")
        part = asked.rows([places[query] for query in chosen])
        own = gallery.own_rows(part)
        part = gallery.align(part, own)
        for suffix, options in (("", None), (", re-ranked", rerank)):
            if suffix == "" or options is not None:
                scores, items = gallery.search(part, top, rerank=options, own=own)
                found[name + suffix] = _lists(part.records(), scores, items, gallery)
        meanings["cosine similarity" if gallery.index.metric == "cosine" else "euclidean distance"] = None
    if rerank is not None:
        meanings["re-ranked distance (smaller is nearer) where it says so"] = None
    return found, f"Below each image: {', '.join(meanings)}. A query's own image is left out."


def _lists(
    queries: Sequence[ImageRecord], scores: np.ndarray, rows: np.ndarray, gallery: Gallery
) -> list[RankedList]:
    lists = []
    for query, values, places in zip(queries, scores.tolist(), rows.tolist(), strict=True):
        kept = [(score, row) for score, row in zip(values, places, strict=True) if row >= 0]
        items = tuple(gallery.record(row) for _, row in kept)
        lists.append(RankedList(query, items, scores=tuple(score for score, _ in kept)))
    return lists


def _of_gallery(gallery: Gallery) -> Features:
    """The indexed images of known identities, or all where none is."""
    known = np.flatnonzero(gallery.identities != JUNK)
    rows = known if len(known) else np.arange(len(gallery))
    return Features(
        torch.from_numpy(gallery.index.features(rows)),
        torch.from_numpy(np.array(gallery.identities[rows])),
        torch.from_numpy(np.array(gallery.cameras[rows])),
        [gallery.locate(int(row)) for row in rows],
        gallery.source,
        gallery.names,
    )


def _read(queries: str, gallery: Gallery, path: Path, device: str, extraction: Mapping[str, Any]) -> Features:
    """Features of queries by the index's own network, or of a file."""
    if is_features(queries):
        return load_features(queries, part="query")
    source = gallery.source
    if source is None or not source.path:
        raise ValueError(
            f"--queries must be a file of features: {path} does not say which model it was made with"
        )
    trained = load_trained(source.path)
    options = {**trained.extraction, **extraction, "flip_average": source.flip_average}
    return extract_features(trained.model, read_sources([queries], flat=True), device=device, **options)


def _choose(asked: Features, gallery: Gallery, count: int, how: str, seed: int) -> list[int]:
    """Rows of queries."""
    if how in ("first", "random") and not bool((asked.identities != JUNK).any()):
        order = np.arange(len(asked))
        if how == "random":
            order = np.sort(np.random.default_rng(seed).permutation(order)[:count])
        return [int(row) for row in order[:count]]
    if how == "improved":
        raise ValueError("--choose improved is for runs, not for an index")
    every = _of_gallery(gallery)
    query = gallery.align(asked)
    if how == "first":  # those of which the most can be seen, without ranking all of them
        right = have_positive(query.records(), every.records(), False, True)
        return [row for row, found in enumerate(right) if found][:count] or list(
            range(min(count, len(query)))
        )
    if len(query) * len(every) > MOST:
        raise ValueError(
            f"--choose {how} ranks {len(query)} queries in {len(every)} images: choose first, or give "
            "--queries"
        )
    metric = gallery.index.metric
    report = rank_features(query, every, same_camera_is_junk=False, exclude_self=True, metric=metric).report
    return choose_queries([report], count, how=how, seed=seed)
