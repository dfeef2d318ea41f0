"""Single-shot protocols: identities split at random, one image from each of two camera views."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from ..records import ImageRecord, RetrievalSplit

QUERIES = ("one", "all")


def draw_identities(
    candidates: Iterable[int], sizes: Sequence[int], *, split: int, seed: int, name: str
) -> list[set[int]]:
    """Disjoint sets of identities at random, of the given sizes, then all others.

    The sets of split s follow from ``seed`` and s alone.

    Raises:
        ValueError: there are fewer identities than asked for, or none is left.
    """
    shuffled = sorted(candidates)
    needed = sum(sizes) + 1
    if len(shuffled) < needed:
        raise ValueError(f"{name}: a split needs at least {needed} identities, got {len(shuffled)}")
    np.random.default_rng((seed, split)).shuffle(shuffled)
    ends = np.cumsum([0, *sizes]).tolist()
    drawn = [set(shuffled[start:end]) for start, end in pairwise(ends)]
    return [*drawn, set(shuffled[ends[-1] :])]


def seen_by_both(records: Iterable[ImageRecord], cameras: tuple[int, int]) -> set[int]:
    """Identities with images from both camera views."""
    views: dict[int, set[int]] = defaultdict(set)
    for record in records:
        views[record.identity].add(record.camera)
    return {identity for identity, seen in views.items() if seen >= set(cameras)}


def draw_single_shot(
    records: Sequence[ImageRecord],
    *,
    cameras: tuple[int, int],
    draws: int,
    seed: tuple[int, ...],
    queries: str = "one",
) -> tuple[RetrievalSplit, ...]:
    """Retrieval splits with one gallery image an identity, from the second camera view.

    Queries are of the first view: one of each identity, or ``"all"``. Draw d follows from ``seed`` and d
    alone. Identities that the first view lacks stay in the gallery; those that the second lacks are left out.
    """
    views: dict[int, dict[int, list[ImageRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        views[record.identity][record.camera].append(record)
    first, second = cameras

    def draw(random: np.random.Generator) -> RetrievalSplit:
        query: list[ImageRecord] = []
        gallery: list[ImageRecord] = []
        for _, by_camera in sorted(views.items()):
            if not by_camera[second]:
                continue
            gallery.append(by_camera[second][int(random.integers(len(by_camera[second])))])
            asked = by_camera[first]
            if asked and queries == "one":
                asked = [asked[int(random.integers(len(asked)))]]
            query += asked
        return RetrievalSplit(tuple(query), tuple(gallery))

    return tuple(draw(np.random.default_rng((*seed, number))) for number in range(draws))
