"""What a reader gives: image records, split for training and retrieval."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

JUNK = -1  # identity of images that are neither right nor wrong, as in Market-1501
UNKNOWN_CAMERA = -1  # which is no other's: it leaves nothing out
BOX = re.compile(r"(?P<path>.+)#xywh=(?P<box>\d+,\d+,[1-9]\d*,[1-9]\d*)")  # W3C Media Fragments, 4.2.2

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: where it is, whom it shows, which camera took it.

    Attributes:
        path: of the file; for images that are in memory a name to show.
        identity: a number at least 0, or -1 for junk, which evaluation leaves out.
        camera: a number at least 0, or -1 where nothing is known.
        content: the encoded image, for images that are in memory.
        box: the part of the image that is meant, in pixels of the upright image: left, top, width, height;
            None: all of it.
        identity_name: the user's own name of the identity; "": it has none but its number.
        camera_name: likewise of the camera.
    """

    path: str
    identity: int
    camera: int
    content: bytes | None = field(default=None, repr=False)
    box: Box | None = None
    identity_name: str = ""
    camera_name: str = ""

    @property
    def name(self) -> str:
        """The path, with a box as ``PATH#xywh=LEFT,TOP,WIDTH,HEIGHT``: what tells images apart."""
        return self.path if self.box is None else f"{self.path}#xywh={','.join(map(str, self.box))}"

    @property
    def who(self) -> str:
        """The identity to show: its own name, or its number; of -1 ``"unknown"``."""
        return self.identity_name or ("unknown" if self.identity == JUNK else str(self.identity))

    @property
    def where(self) -> str:
        """The camera to show: its own name, or its number; "" where it is not known."""
        return self.camera_name or ("" if self.camera == UNKNOWN_CAMERA else str(self.camera))


def split_name(name: str) -> tuple[str, Box | None]:
    """Path and box of a :attr:`ImageRecord.name`."""
    match = BOX.fullmatch(name)
    if match is None:
        return name, None
    left, top, width, height = (int(number) for number in match["box"].split(","))
    return match["path"], (left, top, width, height)


@dataclass(frozen=True)
class RetrievalSplit:
    """Queries and the gallery that they are searched in."""

    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]

    def __repr__(self) -> str:
        return f"<RetrievalSplit of {len(self.query)} queries, {len(self.gallery)} gallery images>"


@dataclass(frozen=True)
class SplitCounts:
    """Sizes of splits; None where nothing is stated. Test identities are those that queries ask for."""

    train_identities: int | None = None
    train_images: int | None = None
    test_identities: int | None = None
    query_images: int | None = None
    gallery_images: int | None = None


@dataclass(frozen=True)
class ReidDataset:
    """A dataset with its protocol.

    Attributes:
        name: the reader's name.
        root: where it was read from, to show.
        train: images for training.
        draws: the retrieval splits; results are means over them. Most protocols have one; a dataset that only
            adds training images to others has none.
        same_camera_is_junk: whether gallery images of a query's identity from its own camera are left out.
            An unknown camera (-1) leaves nothing out.
        exclude_self: whether queries are in the gallery and are left out of their own rankings.
        closed_set: whether test shows identities of training, as a catalogue of known animals does.
        published: the sizes that a whole copy has, as far as they are known for the options it was read with.

    Raises:
        ValueError: a split is empty, or an identity is in both training and test of a set that is not closed.
    """

    name: str
    root: str
    train: tuple[ImageRecord, ...]
    draws: tuple[RetrievalSplit, ...]
    same_camera_is_junk: bool = True
    published: SplitCounts | None = None
    exclude_self: bool = False
    closed_set: bool = False

    def __repr__(self) -> str:
        return (
            f"<ReidDataset {self.name}: {len(self.train)} training images of {self.num_classes} identities, "
            f"{', '.join(map(repr, self.draws[:1])) or 'no test'} ({self.root})>"
        )

    def __post_init__(self) -> None:
        splits = {"train": self.train}
        if not self.train:
            raise ValueError(f"{self.name}: the train split is empty ({self.root})")
        for draw in self.draws:
            splits |= {"query": draw.query, "gallery": draw.gallery}
            for split, records in splits.items():
                if not records:
                    raise ValueError(f"{self.name}: the {split} split is empty ({self.root})")
            both = identities(self.train) & (identities(draw.query) | identities(draw.gallery))
            if both and not self.closed_set:
                example = next(record.who for record in self.train if record.identity == min(both))
                raise ValueError(
                    f"{self.name}: training and test must have different identities, but {len(both)} are in "
                    f"both, such as {example} ({self.root}); a catalogue of known individuals is a closed "
                    "set (closed_set true, where the reader has it)"
                )

    @cached_property
    def train_labels(self) -> dict[int, int]:
        """Identity to class number, 0 to K-1, in the order of identities."""
        return {identity: label for label, identity in enumerate(sorted(identities(self.train)))}

    @property
    def num_classes(self) -> int:
        """Identities in training."""
        return len(self.train_labels)

    def answerable(self, draw: int = 0) -> list[bool]:
        """For each query of a draw, whether the gallery has an image of its identity that counts."""
        split = self.draws[draw]
        return have_positive(split.query, split.gallery, self.same_camera_is_junk, self.exclude_self)


def have_positive(
    query: Iterable[ImageRecord],
    gallery: Iterable[ImageRecord],
    same_camera_is_junk: bool = True,
    exclude_self: bool = False,
) -> list[bool]:
    """For each query, whether the gallery has an image of its identity that is not left out."""
    seen: dict[int, list[ImageRecord]] = defaultdict(list)
    for item in gallery:
        seen[item.identity].append(item)

    def counts(probe: ImageRecord, item: ImageRecord) -> bool:
        camera = same_camera_is_junk and item.camera == probe.camera != UNKNOWN_CAMERA
        return not camera and not (exclude_self and item.name == probe.name)

    def answers() -> Iterator[bool]:
        for probe in query:
            items = () if probe.identity == JUNK else seen.get(probe.identity, ())
            yield any(counts(probe, item) for item in items)

    return list(answers())


def identities(records: Iterable[ImageRecord]) -> set[int]:
    """The identities of records, without junk."""
    return {record.identity for record in records if record.identity != JUNK}
