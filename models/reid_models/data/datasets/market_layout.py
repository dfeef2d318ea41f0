"""Sets named like Market-1501: three folders, and files named by identity and camera."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..records import ImageRecord, ReidDataset, RetrievalSplit, SplitCounts
from .listing import find_root, list_images, named_record
from .naming import Named, number_records
from .splitting import SplitRule, with_protocol

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
NAME = re.compile(r"(?P<identity>-1|\d+)_c(?P<camera>\d+).*")
LAYOUT = """\
  ROOT/
    bounding_box_train/  IDENTITY_cCAMERA..., as in 0002_c1s1_000451_03.jpg or 15010_c12_f0046182.jpg
    query/               likewise
    bounding_box_test/   likewise; identity -1 is junk, and one that no query asks for a distractor"""


def read_market_layout(
    root: str | os.PathLike[str],
    *,
    folders: Sequence[str] = FOLDERS,
    pattern: str | None = None,
    closed_set: bool = False,
    same_camera_counts: bool | None = False,
) -> ReidDataset:
    """Reads a set that is named like Market-1501, of any number of identities, cameras and digits.

    Protocol: as Market-1501's, gallery images of a query's identity from its own camera are junk, and so is
    identity -1.

    Args:
        root: the folder.
        folders: of training, query and gallery images, in it.
        pattern: a regular expression for the whole of file names, with the groups ``identity`` and, unless
            cameras are not known, ``camera``, which may be any text; None: IDENTITY_cCAMERA...
        closed_set: the identities of training are those of test.
        same_camera_counts: whether right images by the query's own camera count.

    Raises:
        FileNotFoundError: the folder has another layout; the message shows the one looked for.
        ValueError: an image is misnamed or empty, a split is, or no query has a right image that counts.

    Example:
        >>> read_market_layout("/data/people", pattern=r"(?P<identity>[a-z]+)-(?P<camera>[a-z]+)-.*")
    """
    name = "market_layout"
    if len(folders) != 3:
        raise ValueError(f"{name}: folders must be those of train, query and gallery, got {list(folders)}")
    path = find_root(root, name, folders, LAYOUT)
    rule = SplitRule(closed_set=closed_set, same_camera_counts=same_camera_counts)
    if pattern is None:
        train, query, gallery = (_numbered(path / folder, NAME, LAYOUT_FORM, name) for folder in folders)
    else:
        compiled = _compile(pattern, name)
        named = [
            [_named(image, compiled, name) for image in list_images(path / folder, name)]
            for folder in folders
        ]
        train, query, gallery = number_records(named)
    return with_protocol(name, str(path), train, RetrievalSplit(query, gallery), rule)


LAYOUT_FORM = "IDENTITY_cCAMERA..., as in 0002_c1s1_000451_03.jpg"


def read_market_like(
    root: str | os.PathLike[str],
    name: str,
    *,
    pattern: re.Pattern[str],
    form: str,
    layout: str,
    nested: str,
    published: SplitCounts,
) -> ReidDataset:
    """A published set in the layout of Market-1501, whose files have one form and whose sizes are known."""
    path = find_root(root, name, FOLDERS, layout, nested=(nested,))
    train, query, gallery = (_numbered(path / folder, pattern, form, name) for folder in FOLDERS)
    return ReidDataset(name, str(path), train, (RetrievalSplit(query, gallery),), published=published)


def _numbered(folder: Path, pattern: re.Pattern[str], form: str, name: str) -> tuple[ImageRecord, ...]:
    return tuple(named_record(image, pattern, form, name) for image in list_images(folder, name))


def _compile(pattern: str, name: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}: pattern must be a regular expression, got {pattern!r} ({error})") from None
    if "identity" not in compiled.groupindex:
        raise ValueError(f"{name}: pattern must have a group (?P<identity>...), got {pattern!r}")
    return compiled


def _named(image: Path, pattern: re.Pattern[str], name: str) -> Named:
    match = pattern.fullmatch(image.name)
    if match is None:
        raise ValueError(f"{name}: {image} must be named {pattern.pattern}")
    return Named(str(image), match["identity"], match.groupdict().get("camera") or "")
