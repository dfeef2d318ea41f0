"""What a reader gives: image records, split for training and retrieval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

JUNK = -1  # identity of images that are neither right nor wrong, as in Market-1501


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: where it is, whom it shows, which camera took it.

    Attributes:
        path: of the file; for images that are in memory a name to show.
        identity: a number at least 0, or -1 for junk, which evaluation leaves out.
        camera: a number at least 0, or -1 where nothing is known.
        content: the encoded image, for images that are in memory.
    """

    path: str
    identity: int
    camera: int
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RetrievalSplit:
    """Queries and the gallery that they are searched in."""

    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]


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
        published: the sizes that a whole copy has, as far as they are known for the options it was read with.

    Raises:
        ValueError: a split is empty, or an identity is in both training and test.
    """

    name: str
    root: str
    train: tuple[ImageRecord, ...]
    draws: tuple[RetrievalSplit, ...]
    same_camera_is_junk: bool = True
    published: SplitCounts | None = None

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
            if both:
                raise ValueError(
                    f"{self.name}: training and test must have different identities, but {len(both)} are in "
                    f"both, such as {min(both)} ({self.root})"
                )

    @cached_property
    def train_labels(self) -> dict[int, int]:
        """Identity to class number, 0 to K-1, in the order of identities."""
        return {identity: label for label, identity in enumerate(sorted(identities(self.train)))}

    @property
    def num_classes(self) -> int:
        """Identities in training."""
        return len(self.train_labels)


def identities(records: Iterable[ImageRecord]) -> set[int]:
    """The identities of records, without junk."""
    return {record.identity for record in records if record.identity != JUNK}
