"""The matches of a search as pictures: a figure, or a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from ..data import ImageRecord
from .html import Picture, Report, Section, Text
from .lists import RankedList, plot_ranked_lists

DRAWN = {"figure": 40, "page": 200}  # queries at most: more could not be looked through, or drawn in memory


def matches_of(
    lists: Iterable[tuple[ImageRecord, Sequence[tuple[int, float, ImageRecord]]]],
) -> list[RankedList]:
    """Ranked lists of queries with their (rank, score, image)."""
    return [
        RankedList(query, tuple(item for _, _, item in found), scores=tuple(score for _, score, _ in found))
        for query, found in lists
    ]


def plot_matches(lists: Sequence[RankedList], meaning: str, *, title: str = "") -> Figure:
    """A row for each query: itself, and what was found for it, nearest first, with scores.

    Args:
        lists: at least one; at most the first 40 are drawn.
        meaning: what the scores are.
        title: of the figure.

    Raises:
        ValueError: no lists, or nothing was found for any.

    Example:
        >>> save_figure(plot_matches(matches_of(found.lists()), "cosine similarity"), "matches.png")
    """
    drawn = list(lists)[: DRAWN["figure"]]
    more = f"; the first {len(drawn)} of {len(lists)} queries" if len(drawn) < len(lists) else ""
    note = f"Below each image: {meaning}{more}"
    return plot_ranked_lists({"": drawn}, title=title, note=note, missing=True)


def report_matches(lists: Sequence[RankedList], meaning: str, *, title: str = "") -> Report:
    """A page with a picture for each query.

    Args:
        lists: at least one; at most the first 200 are drawn.
        meaning: what the scores are.
        title: of the page.

    Raises:
        ValueError: as :func:`plot_matches`.
    """
    drawn = list(lists)[: DRAWN["page"]]
    more = f" The first {len(drawn)} of {len(lists)} queries." if len(drawn) < len(lists) else ""
    known = any(verdict is not None for found in drawn for verdict in found.verdicts)
    frames = (
        " Solid green frame and check mark: the query's identity; dashed red frame and cross: another."
        if known
        else ""
    )
    sections: list[Section] = [
        Text([f"Nearest first; the number below each image is the {meaning}.{frames}{more}"])
    ]
    for number, found in enumerate(drawn, start=1):
        names = ", ".join(item.name for item in found.items[:3])
        sections.append(
            Picture(
                plot_ranked_lists({"": [found]}, missing=True),
                f"{found.query.name} and its matches: {names}",
                f"{number}. {found.query.name}",
            )
            if found.items
            else Text(["Nothing was found."], f"{number}. {found.query.name}")
        )
    return Report(title or "Matches", sections, f"{len(lists)} queries")
