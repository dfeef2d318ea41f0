"""The identity sampler: what batches hold, several processes, resuming."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from reid_models.data import IdentitySampler, ImageDataset, make_synthetic

IDENTITIES = [i for i, count in enumerate([7, 4, 3, 8, 2, 1, 9, 4, 4, 12]) for _ in range(count)]


def sampler(identities: Sequence[int] = IDENTITIES, **options: Any) -> IdentitySampler:
    return IdentitySampler(identities, **{"identities_per_batch": 4, "images_per_identity": 3, **options})


def test_batches_are_p_identities_with_k_images() -> None:
    batches = list(sampler())
    assert len(batches) == len(sampler()) > 0
    for batch in batches:
        rows = torch.tensor([IDENTITIES[i] for i in batch]).view(4, 3)
        assert (rows == rows[:, :1]).all() and len(set(rows[:, 0].tolist())) == 4
        for start in range(0, 12, 3):
            images = batch[start : start + 3]
            assert len(set(images)) == min(3, IDENTITIES.count(IDENTITIES[images[0]]))
    seen = Counter(i for batch in batches for i in batch)
    assert all(count == 1 for i, count in seen.items() if IDENTITIES.count(IDENTITIES[i]) >= 3)


def test_epochs_differ_and_repeat() -> None:
    first = sampler()
    epochs = [list(first) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] and first.epoch == 3
    again = sampler()
    again.set_epoch(2)
    assert list(again) == epochs[2]
    assert list(sampler(seed=1)) != epochs[0]


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batches(world_size: int) -> None:
    parts = [list(sampler(rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert [list(itertools.chain(*batches)) for batches in zip(*parts, strict=True)] == list(sampler())


def test_resumes_in_an_epoch() -> None:
    whole = sampler()
    expected = [list(whole) for _ in range(3)]
    stopped = sampler()
    stopped.set_epoch(1)
    batches = iter(stopped)
    done = [next(batches), next(batches)]
    state = stopped.state_dict()
    resumed = sampler()
    resumed.load_state_dict(state)
    resumed.set_epoch(1)  # as a training loop does; it stays where it is
    assert done + list(resumed) == expected[1]
    assert list(resumed) == expected[2]
    resumed.load_state_dict(stopped.state_dict(batches_done=1))  # one of the two had only been fetched
    assert done[:1] + list(resumed) == expected[1]
    half = sampler(rank=1, world_size=2)
    half.load_state_dict(state)
    assert list(half) == [batch[6:] for batch in expected[1][2:]]


def test_sampler_drives_a_data_loader() -> None:
    dataset = make_synthetic(identities=8, cameras=2, images_per_camera=2, size=(8, 8))
    images = ImageDataset(dataset.train, labels=dataset.train_labels)
    batches = sampler(images.identities, identities_per_batch=2, images_per_identity=4)
    loader = torch.utils.data.DataLoader(images, batch_sampler=batches)
    assert len(loader) == 2
    for batch in loader:
        assert batch.image.shape == (8, 3, 8, 8)
        assert sorted(Counter(batch.identity.tolist()).values()) == [4, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images_per_identity": 1}, r"images_per_identity must be at least 2, got 1"),
        ({"identities_per_batch": 11}, r"at least identities_per_batch \(11\) different ones, got 10"),
        ({"identities": []}, r"got 0"),
        ({"identities": range(10)}, r"one image of each"),
        ({"world_size": 3}, r"identities_per_batch must be a multiple of world_size \(3\), got 4"),
        ({"rank": 1}, r"rank must be in \[0, 1\), got 1"),
        ({"seed": 1.5}, r"seed must be an int, got float"),
    ],
)
def test_sampler_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        sampler(**options)


def test_sampler_refuses_states_of_others() -> None:
    state = sampler().state_dict()
    with pytest.raises(ValueError, match=r"state must have seed 1, got 0"):
        sampler(seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match=r"state must have images 54, got 53"):
        sampler().load_state_dict({**state, "images": 53})
    with pytest.raises(ValueError, match=r"state must have batch"):
        sampler().load_state_dict({key: value for key, value in state.items() if key != "batch"})
