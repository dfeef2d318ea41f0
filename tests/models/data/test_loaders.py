"""The input pipeline: augmentation by the operator, and loaders whose random numbers can be repeated."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_models.data import (
    Augmentation,
    IdentitySampler,
    ImageDataset,
    TrainBatch,
    make_evaluation_loader,
    make_synthetic,
    make_train_loader,
)
from reid_models.data.images import Sample
from reid_models.data.loaders import _Place as Place

SIZE = (24, 16)
AFFINE = {"degrees": 20, "translate": [0.1, 0.2], "scale": [0.8, 1.2], "shear": 5, "fill": 255}
DATASET = make_synthetic(identities=8, cameras=2, images_per_camera=3, size=(20, 12))
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def images() -> ImageDataset:
    return ImageDataset(DATASET.train, size=SIZE, labels=DATASET.train_labels)


@pytest.fixture
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (6, 3, *SIZE), generator=generator, dtype=torch.uint8)


def batches(
    images: ImageDataset, epochs: int, start: dict[str, int] | None = None, **options: Any
) -> list[TrainBatch]:
    """Batches of some epochs, or of what is left of them from a sampler's state on."""
    ranks = {key: options.pop(key) for key in ("rank", "world_size") if key in options}
    sampler = IdentitySampler(images.identities, identities_per_batch=2, images_per_identity=2, **ranks)
    if start is not None:
        sampler.load_state_dict(start)
    loader = make_train_loader(images, sampler, **{"workers": 0, "affine": AFFINE, **options})
    return [batch for _ in range(sampler.epoch, epochs) for batch in loader]


def same(a: TrainBatch, b: TrainBatch) -> bool:
    tensors = all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
    return tensors and a[3:] == b[3:]


def test_training_is_the_operator(pixels: Tensor) -> None:
    augmentation = Augmentation(pad=3, erase={"p": 1.0, "fill": "mean"}, polygon=0.5)
    expected = reid_ops.augment(
        pixels, size=SIZE, pad=3, erase={"p": 1.0, "fill": "mean"}, polygon={"p": 0.5}, seed=5, first_index=7
    )
    assert torch.equal(augmentation.train(pixels, seed=5, first_index=7), expected)
    assert not torch.equal(augmentation.train(pixels, seed=6, first_index=7), expected)
    one_by_one = [augmentation.train(pixels[i : i + 1], seed=5, first_index=7 + i) for i in range(6)]
    assert torch.equal(torch.cat(one_by_one), expected)
    assert augmentation.train(pixels, seed=5, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_evaluation_only_normalises(pixels: Tensor) -> None:
    augmentation = Augmentation(flip=1.0, pad=4, erase=1.0, polygon=1.0)
    expected = (pixels / 255 - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(augmentation.evaluation(pixels), expected)
    assert augmentation.evaluation(pixels[:0]).shape == (0, 3, *SIZE)


def test_a_recipe_gives_an_augmentation() -> None:
    given = {"flip": 0.0, "erase": None, "affine": AFFINE, "mean": [0.5] * 3, "std": [0.25] * 3}
    assert Augmentation.from_mapping(given) == Augmentation(**given)
    assert Augmentation.from_mapping({}) == Augmentation()
    with pytest.raises(ValueError, match=r"unknown field of augmentation 'eraze'; did you mean \"erase\""):
        Augmentation.from_mapping({"eraze": 0.5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, r"flip must be in \[0, 1\], got 1.5"),
        ({"pad": -1}, r"pad must be in .* got -1"),
        ({"pad": 2.5}, r"pad must be an int, got float"),
        ({"erase": 2.0}, r"p must be in \[0, 1\], got 2"),
        ({"erase": {"q": 1}}, r"unexpected keyword argument 'q'"),
        ({"erase": "often"}, r"erase must be a RandomErasing, a mapping"),
        ({"polygon": {"points": 1}}, r"points must be in"),
        ({"mean": [0.5]}, r"mean must hold a value for each of 3 channels"),
        ({"std": [0.0, 1.0, 1.0]}, r"std must be in"),
        ({"affine": {"rotate": 5}}, r"unknown field of affine 'rotate'"),
        ({"affine": {"translate": [2, 2]}}, r"affine is refused by torchvision: .*between 0 and 1"),
        ({"affine": 5}, r"affine must be a mapping or None, got int"),
    ],
)
def test_bad_augmentations(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Augmentation(**options)


def test_train_batches_are_bytes_of_classes(images: ImageDataset) -> None:
    found = batches(images, 1, affine=None)
    for number, batch in enumerate(found):
        assert batch.image.shape == (4, 3, *SIZE) and batch.image.dtype == torch.uint8
        assert batch.identity.dtype == batch.camera.dtype == torch.int64
        assert sorted(torch.bincount(batch.identity).tolist())[-2:] == [2, 2]
        assert batch.first_index == 4 * number and batch.seed == found[0].seed
    sampler = IdentitySampler(images.identities, identities_per_batch=2, images_per_identity=2)
    expected = torch.stack([images[index].image for index in next(iter(sampler))])
    assert torch.equal(found[0].image, expected)


def test_affine_turns_every_image_its_own_way(images: ImageDataset) -> None:
    plain, turned = batches(images, 2, affine=None), batches(images, 2)
    for a, b in zip(plain, turned, strict=True):
        assert torch.equal(a.identity, b.identity) and not torch.equal(a.image, b.image)
    # One image over and over: no two places of an epoch, no epochs and no seeds have the same turn.
    single = ImageDataset([DATASET.train[0]] * 4, size=SIZE)
    sampler = IdentitySampler(single.identities, identities_per_batch=1, images_per_identity=2)
    seen = [image for seed in (0, 1) for _ in range(2)
            for batch in make_train_loader(single, sampler, workers=0, affine=AFFINE, seed=seed)
            for image in batch.image]  # fmt: skip
    assert len({image.numpy().tobytes() for image in seen}) == len(seen) == 16


def test_torchs_own_generator_is_left_alone(images: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError("torch.manual_seed seeds the generators of GPUs as well")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    state = torch.get_rng_state()
    places = [(0, 0, 0), (1, 0, 1)]
    sampler = IdentitySampler(images.identities, identities_per_batch=2, images_per_identity=2)
    dataset = make_train_loader(images, sampler, workers=0, affine=AFFINE).dataset
    dataset.__getitems__([Place(*place) for place in places])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_matter(workers: int, images: ImageDataset) -> None:
    expected, found = batches(images, 2), batches(images, 2, workers=workers)
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))


def test_a_resumed_run_sees_what_the_whole_run_sees(images: ImageDataset) -> None:
    whole = batches(images, 3)
    sampler = IdentitySampler(images.identities, identities_per_batch=2, images_per_identity=2)
    sampler.set_epoch(1)
    left = batches(images, 3, start=sampler.state_dict(batches_done=2), workers=1)
    assert len(left) < len(whole)
    assert all(same(a, b) for a, b in zip(whole[-len(left) :], left, strict=True))


def test_two_processes_see_together_what_one_sees(images: ImageDataset) -> None:
    augmentation = Augmentation(pad=3, polygon=0.5)

    def augmented(batch: TrainBatch) -> Tensor:
        return augmentation.train(batch.image, seed=batch.seed, first_index=batch.first_index)

    one = batches(images, 2)
    two = [batches(images, 2, rank=rank, world_size=2) for rank in range(2)]
    for whole, *parts in zip(one, *two, strict=True):
        assert torch.equal(torch.cat([part.identity for part in parts]), whole.identity)
        assert torch.equal(torch.cat([augmented(part) for part in parts]), augmented(whole))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_are_in_order(workers: int) -> None:
    records = DATASET.draws[0].gallery
    loader = make_evaluation_loader(records, image_size=SIZE, batch_size=7, workers=workers)
    found = list(loader)
    assert [len(batch.image) for batch in found[:-1]] == [7] * (len(found) - 1)
    assert isinstance(found[0], Sample) and found[0].image.dtype == torch.uint8
    assert torch.cat([batch.identity for batch in found]).tolist() == [r.identity for r in records]
    assert torch.cat([batch.camera for batch in found]).tolist() == [r.camera for r in records]
    expected = torch.stack([sample.image for sample in ImageDataset(records, size=SIZE)])
    assert torch.equal(torch.cat([batch.image for batch in found]), expected)


def test_loaders_reach_workers_that_are_started_afresh(images: ImageDataset) -> None:
    sampler = IdentitySampler(images.identities, identities_per_batch=2, images_per_identity=2)
    loader = make_train_loader(images, sampler, affine=AFFINE)
    places = [Place(1, 0, 4), Place(3, 0, 5)]
    expected = loader.dataset.__getitems__(places)
    assert same(pickle.loads(pickle.dumps(loader.dataset)).__getitems__(places), expected)
    assert pickle.loads(pickle.dumps(loader.collate_fn))(expected) is expected


def test_bad_loaders(images: ImageDataset) -> None:
    sampler = IdentitySampler(images.identities, identities_per_batch=2, images_per_identity=2)
    with pytest.raises(ValueError, match=r"images must have a size"):
        make_train_loader(ImageDataset(DATASET.train), sampler)
    with pytest.raises(ValueError, match=r"make_train_loader: workers must be at least 0, got -1"):
        make_train_loader(images, sampler, workers=-1)
    with pytest.raises(TypeError, match=r"make_train_loader: seed must be an int, got float"):
        make_train_loader(images, sampler, seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"make_evaluation_loader: batch_size must be at least 1, got 0"):
        make_evaluation_loader(DATASET.train, image_size=SIZE, batch_size=0)


def test_channels_in_another_order() -> None:
    """Blue first, less a mean of each: what Caffe's networks take."""
    images = torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8)
    mean = (104.0, 117.0, 124.0)
    options: dict[str, Any] = {"mean": tuple(m / 255 for m in mean), "std": (1 / 255,) * 3, "channels": "bgr"}
    augmentation = Augmentation(flip=0.0, erase=None, **options)
    expected = images.flip(1).float() - torch.tensor(mean)[:, None, None]
    torch.testing.assert_close(augmentation.evaluation(images), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(augmentation.train(images, seed=0), expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(ValueError, match=r'channels must be "rgb" or "bgr", got \'gbr\''):
        Augmentation(channels="gbr")
