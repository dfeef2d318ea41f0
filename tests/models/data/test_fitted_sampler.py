"""Batches whose shape follows the data."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from reid_models.data.samplers import FittedSampler, make_sampler


@pytest.mark.parametrize(
    ("identities", "images", "shape"),
    [(2, 2, (2, 2)), (4, 5, (4, 4)), (4, 3, (4, 3)), (15, 9, (15, 4)), (4000, 4, (16, 4))],
)
def test_shape(identities: int, images: int, shape: tuple[int, int]) -> None:
    rows = [i for i in range(identities) for _ in range(images)]
    sampler = FittedSampler(rows)
    assert (sampler.identities_per_batch, sampler.images_per_identity) == shape
    batch = next(iter(sampler))
    assert Counter(Counter(rows[i] for i in batch).values()) == {shape[1]: shape[0]}


def test_every_image_is_used_however_unequal_identities_are() -> None:
    """The identity sampler would end this epoch with the only group of the smallest identity."""
    counts = [2, 40, 40, 40]
    rows = [identity for identity, count in enumerate(counts) for _ in range(count)]
    sampler = FittedSampler(rows)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 10
    assert set(itertools.chain(*batches)) == set(range(len(rows)))
    for batch in batches:
        assert {rows[i] for i in batch} == {0, 1, 2, 3}
    seen = Counter(itertools.chain(*batches))
    assert all(seen[i] == 1 for i, identity in enumerate(rows) if identity > 0)


def test_many_identities_come_once_an_epoch() -> None:
    rows = [i for i in range(37) for _ in range(8)]
    batches = list(FittedSampler(rows))
    assert len(batches) == 5  # 74 groups, 16 a batch: the last is filled up
    seen = Counter(itertools.chain(*batches))
    assert set(seen) == set(range(len(rows))) and max(seen.values()) <= 2


def test_least_batches_and_resuming() -> None:
    rows = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    sampler = FittedSampler(rows, least_batches=6)
    batches = list(sampler)
    assert len(batches) == 6 and len(set(map(tuple, batches))) > 3
    stopped = FittedSampler(rows, least_batches=6)
    begun = iter(stopped)
    done = [next(begun), next(begun)]
    resumed = FittedSampler(rows, least_batches=6)
    resumed.load_state_dict(stopped.state_dict())
    assert done + list(resumed) == batches
    with pytest.raises(ValueError, match="state must have least_batches 5, got 6"):
        FittedSampler(rows, least_batches=5).load_state_dict(stopped.state_dict())


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches(world_size: int) -> None:
    rows = [i for i in range(7) for _ in range(5)]
    parts = [list(FittedSampler(rows, rank=rank, world_size=world_size)) for rank in range(world_size)]
    joint = [list(itertools.chain(*batches)) for batches in zip(*parts, strict=True)]
    assert all(len(batch) == (7 - 7 % world_size) * 4 for batch in joint)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([0, 0, 0], {}, "identities must be at least two, to be told apart, got 1"),
        ([0, 1, 2], {}, "one image of each: there are no positive pairs"),
        ([0, 0, 1, 1], {"world_size": 3}, r"at least as many as processes \(3\), got 2"),
        ([0, 0, 1, 1], {"least_batches": 0}, "least_batches must be at least 1, got 0"),
        ([0, 0, 1, 1], {"identities_per_batch": 1}, "identities_per_batch must be at least 2, got 1"),
    ],
)
def test_refusals(rows: list[int], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FittedSampler(rows, **options)


def test_by_name() -> None:
    assert isinstance(make_sampler({"name": "fitted", "least_batches": 2}, [0, 0, 1, 1]), FittedSampler)
