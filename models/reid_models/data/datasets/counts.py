"""Counting a dataset's splits, and comparing a copy with the published sizes."""

from __future__ import annotations

from dataclasses import fields

from ..records import ReidDataset, SplitCounts, identities


def count_split(dataset: ReidDataset, draw: int = 0) -> SplitCounts:
    """The sizes of a dataset's splits, with those of one retrieval draw.

    Without draws (training images alone) nothing is said of tests.
    """
    train = {"train_identities": dataset.num_classes, "train_images": len(dataset.train)}
    if not dataset.draws:
        return SplitCounts(**train)
    split = dataset.draws[draw]
    return SplitCounts(
        **train,
        test_identities=len(identities(split.query)),
        query_images=len(split.query),
        gallery_images=len(split.gallery),
    )


def verify_split(dataset: ReidDataset, expected: SplitCounts | None = None) -> list[str]:
    """Compares a dataset that was read with the published sizes.

    Args:
        dataset: from a reader.
        expected: the sizes; None takes :attr:`ReidDataset.published`.

    Returns:
        What differs, a line each: empty when nothing does.

    Raises:
        ValueError: nothing is published for the dataset as it was read.

    Example:
        >>> verify_split(read_market1501("half_a_copy"))
        ['market1501: train_images must be 12936, got 6000 (half_a_copy)']
    """
    expected = dataset.published if expected is None else expected
    if expected is None:
        raise ValueError(f"verify_split: no sizes are published for {dataset.name} as it was read")
    differences = []
    for draw in range(max(1, len(dataset.draws))):
        counts = count_split(dataset, draw)
        for field in fields(SplitCounts):
            wanted, got = getattr(expected, field.name), getattr(counts, field.name)
            line = f"{dataset.name}: {field.name} must be {wanted}, got {got} ({dataset.root})"
            if wanted is not None and got != wanted and line not in differences:
                differences.append(line)
    return differences
