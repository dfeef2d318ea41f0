"""Shuffled batches and batches of pairs, and samplers by name. (P x K batches: test_identity_sampler.py.)"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from reid_models.data import (
    ImageDataset,
    PairSampler,
    ShuffledSampler,
    TrainSampler,
    make_sampler,
    make_synthetic,
    make_train_loader,
)

IDENTITIES = [i for i, count in enumerate([7, 4, 3, 8, 2, 1, 9, 4, 4, 12]) for _ in range(count)]
SAMPLERS: dict[str, dict[str, Any]] = {
    "identity": {"identities_per_batch": 4, "images_per_identity": 3},
    "shuffled": {"batch_size": 8},
    "pairs": {"anchors_per_batch": 4, "negatives": 2},
}
NAMES = sorted(SAMPLERS)


def sampler(name: str, identities: Any = IDENTITIES, **options: Any) -> Any:
    processes = {key: options.pop(key) for key in ("seed", "rank", "world_size") if key in options}
    return make_sampler({"name": name, **SAMPLERS[name], **options}, identities, **processes)


@pytest.mark.parametrize("name", NAMES)
def test_batches_have_their_size_and_epochs_differ_and_repeat(name: str) -> None:
    found = sampler(name)
    epochs = [list(found) for _ in range(3)]
    assert all(len(batch) == found.batch_size for epoch in epochs for batch in epoch)
    assert len(found) == len(epochs[0]) > 0
    assert epochs[0] != epochs[1] != epochs[2] and found.epoch == 3
    again = sampler(name)
    again.set_epoch(2)
    assert list(again) == epochs[2]
    assert list(sampler(name, seed=1)) != epochs[0]


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_processes_share_the_batches(name: str, world_size: int) -> None:
    processes = [sampler(name, rank=rank, world_size=world_size) for rank in range(world_size)]
    parts = [list(process) for process in processes]
    assert [list(itertools.chain(*batches)) for batches in zip(*parts, strict=True)] == list(sampler(name))
    assert all(process.batch_size == sampler(name).batch_size for process in processes)


@pytest.mark.parametrize("name", NAMES)
def test_resumes_in_an_epoch_with_another_number_of_processes(name: str) -> None:
    whole = sampler(name)
    expected = [list(whole) for _ in range(3)]
    stopped = sampler(name)
    stopped.set_epoch(1)
    done = list(itertools.islice(stopped, 2))
    resumed = sampler(name)
    resumed.load_state_dict(stopped.state_dict(batches_done=2))
    resumed.set_epoch(1)  # as a training loop does; it stays where it is
    assert done + list(resumed) == expected[1]
    assert list(resumed) == expected[2]
    halves = [sampler(name, rank=rank, world_size=2) for rank in (0, 1)]
    for half in halves:
        half.load_state_dict(stopped.state_dict(batches_done=1))
    assert [a + b for a, b in zip(*map(list, halves), strict=True)] == expected[1][1:]


def test_shuffled_batches_have_every_image_once_but_the_last_few() -> None:
    found = sampler("shuffled", batch_size=10)
    epochs = [list(itertools.chain(*found)) for _ in range(40)]
    assert all(len(epoch) == len(set(epoch)) == 50 for epoch in epochs)  # of 54 images
    assert set(itertools.chain(*epochs)) == set(range(54))


def test_pairs_are_an_anchor_with_a_positive_and_negatives() -> None:
    found: PairSampler = sampler("pairs", negatives=3)
    assert found.batch_size == 20
    assert found.pairs is not None and found.pairs[:5].tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [5, 6]]
    owner = np.array(IDENTITIES)
    anchors: Counter[int] = Counter()
    for batch in found:
        rows = np.array(batch).reshape(4, 5)
        anchors.update(rows[:, 0].tolist())
        assert (rows[:, 0] != rows[:, 1]).all()
        same = owner[rows] == owner[rows[:, :1]]
        assert same[:, :2].all() and not same[:, 2:].any()
        pairs = np.array(batch)[found.pairs]
        assert (owner[pairs[:, 0]] == owner[pairs[:, 1]]).tolist() == [True, False, False, False] * 4
    # 53 images have another of their identity: 13 batches of 4; none is an anchor twice.
    assert len(anchors) == 52 and set(anchors.values()) == {1}


def test_positives_and_negatives_are_drawn_evenly() -> None:
    identities = [0, 0, 0, 1, 1, 2]
    found = PairSampler(identities, anchors_per_batch=5, negatives=1)
    drawn: dict[tuple[int, str], Counter[int]] = {}
    for batch in itertools.chain(*(list(found) for _ in range(3000))):
        for anchor, positive, negative in np.array(batch).reshape(-1, 3).tolist():
            drawn.setdefault((anchor, "positive"), Counter())[positive] += 1
            drawn.setdefault((anchor, "negative"), Counter())[negative] += 1
    for (anchor, kind), counts in drawn.items():
        fits = [
            i
            for i in range(6)
            if i != anchor and (identities[i] == identities[anchor]) == (kind == "positive")
        ]
        assert sorted(counts) == fits
        share = 1 / len(fits)
        deviation = (share * (1 - share) / 3000) ** 0.5
        assert all(abs(count / 3000 - share) <= 5 * deviation for count in counts.values())


def test_a_process_has_the_pairs_of_its_part() -> None:
    halves = [sampler("pairs", rank=rank, world_size=2) for rank in (0, 1)]
    for half in halves:
        assert half.pairs.tolist() == sampler("pairs").pairs[: len(half.pairs)].tolist()
        assert half.pairs.max() == half.batch_size // 2 - 1


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_number_images_by_the_samplers_size_and_hand_on_pairs(workers: int) -> None:
    dataset = make_synthetic(identities=8, cameras=2, images_per_camera=3, size=(8, 8))
    images = ImageDataset(dataset.train, size=(8, 8), labels=dataset.train_labels)
    found = sampler("pairs", images.identities, rank=1, world_size=2)
    batches = list(make_train_loader(images, found, workers=workers))
    assert [batch.first_index for batch in batches] == [16 * n + 8 for n in range(len(batches))]
    for batch in batches:
        assert batch.pairs is not None and batch.pairs.dtype == torch.int64
        first, second = batch.identity[batch.pairs].unbind(1)
        assert (first == second).tolist() == [True, False, False] * 2
    shuffled = sampler("shuffled", images.identities)
    plain = list(make_train_loader(images, shuffled, workers=workers))
    assert [batch.first_index for batch in plain] == [8 * n for n in range(len(plain))]
    assert all(batch.pairs is None for batch in plain)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shuffled", {"batch_size": 55}, r"at least batch_size \(55\) images, got 54"),
        ("shuffled", {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ("shuffled", {"world_size": 3}, r"batch_size must be a multiple of world_size \(3\), got 8"),
        ("pairs", {"identities": range(10)}, r"must have another of their identity, got 0 of 10 images"),
        ("pairs", {"identities": [5] * 9}, "must be at least two for negative pairs, got 1"),
        ("pairs", {"anchors_per_batch": 54}, r"anchors_per_batch \(54\) images .* got 53 of 54"),
        ("pairs", {"negatives": 0}, "negatives must be at least 1, got 0"),
        ("pairs", {"negatives": 2.0}, "negatives must be an int, got float"),
        ("pairs", {"world_size": 3}, r"anchors_per_batch must be a multiple of world_size \(3\), got 4"),
        ("pairs", {"batch_size": 3}, "unknown argument of sampler pairs 'batch_size'"),
    ],
)
def test_samplers_refuse_what_does_not_fit(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        sampler(name, **options)


def test_names_of_samplers_are_checked() -> None:
    with pytest.raises(ValueError, match='did you mean "shuffled"'):
        make_sampler({"name": "shufled"}, IDENTITIES)
    with pytest.raises(ValueError, match="sampler: name must be given"):
        make_sampler({"batch_size": 4}, IDENTITIES)
    with pytest.raises(ValueError, match="state must have batch_size 8, got 4"):
        sampler("shuffled").load_state_dict(sampler("shuffled", batch_size=4).state_dict())


def test_a_sampler_of_ones_own() -> None:
    class InOrder(TrainSampler):
        def __init__(self, identities: Any, *, batch_size: int = 8, **processes: Any) -> None:
            settings = {"batch_size": batch_size}
            super().__init__(len(identities), batch_size, 1, "batch_size", settings, **processes)

        def make_batches(self, random: np.random.Generator) -> list[np.ndarray]:
            ends = range(self.batch_size, self.images + 1, self.batch_size)
            return [np.arange(end - self.batch_size, end)[:, None] for end in ends]

    assert list(InOrder(IDENTITIES, batch_size=20, rank=1, world_size=2)) == [
        list(range(10, 20)),
        list(range(30, 40)),
    ]
    assert isinstance(sampler("shuffled"), ShuffledSampler)
