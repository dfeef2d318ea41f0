"""The sizes of the datasets' splits as published, and checking what was read against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from ..._suggest import unknown
from ..records import ReidDataset, identities


@dataclass(frozen=True)
class SplitCounts:
    """Sizes of splits; None where nothing is stated. Test identities are those that queries ask for."""

    train_identities: int | None = None
    train_images: int | None = None
    test_identities: int | None = None
    query_images: int | None = None
    gallery_images: int | None = None


#: By the name in :attr:`ReidDataset.name`. The first five are of HSGNet, section IV-A; what VehicleID's
#: gallery holds follows from its protocol, with one image an identity. The last is counted.
SPLIT_TABLE: Mapping[str, SplitCounts] = MappingProxyType(
    {
        "market1501": SplitCounts(751, 12936, 750, 3368, 19732),
        "veri776": SplitCounts(576, 37746, 200, 1678, 11579),
        "vehicleid_test800": SplitCounts(test_identities=800, gallery_images=800),
        "vehicleid_test1600": SplitCounts(test_identities=1600, gallery_images=1600),
        "vehicleid_test2400": SplitCounts(test_identities=2400, gallery_images=2400),
        "omniglot": SplitCounts(136, 2720, 106, 318, 2120),
    }
)


def count_split(dataset: ReidDataset, draw: int = 0) -> SplitCounts:
    """The sizes of a dataset's splits, with those of one retrieval draw."""
    split = dataset.draws[draw]
    return SplitCounts(
        train_identities=dataset.num_classes,
        train_images=len(dataset.train),
        test_identities=len(identities(split.query)),
        query_images=len(split.query),
        gallery_images=len(split.gallery),
    )


def verify_split(dataset: ReidDataset, expected: SplitCounts | None = None) -> list[str]:
    """Compares a dataset that was read with the published sizes.

    Args:
        dataset: from a reader.
        expected: the sizes; None takes those of :data:`SPLIT_TABLE` for the dataset's name, which for
            VehicleID are those of the convention ``"gallery_one"``.

    Returns:
        What differs, a line each: empty when nothing does.

    Raises:
        ValueError: nothing is known of a dataset of that name.

    Example:
        >>> verify_split(read_market1501("half_a_copy"))
        ['market1501: train_images must be 12936, got 6000 (half_a_copy)']
    """
    if expected is None:
        if dataset.name not in SPLIT_TABLE:
            raise unknown("split table", dataset.name, SPLIT_TABLE)
        expected = SPLIT_TABLE[dataset.name]
    differences = []
    for draw in range(len(dataset.draws)):
        counts = count_split(dataset, draw)
        for field in fields(SplitCounts):
            wanted, got = getattr(expected, field.name), getattr(counts, field.name)
            line = f"{dataset.name}: {field.name} must be {wanted}, got {got} ({dataset.root})"
            if wanted is not None and got != wanted and line not in differences:
                differences.append(line)
    return differences
