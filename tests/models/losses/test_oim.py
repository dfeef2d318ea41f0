"""OIM against its definition written out, an image at a time; reconstruction; what both refuse."""

from __future__ import annotations

import io
import math
import multiprocessing
from typing import Any

import pytest
import torch
from torch import Tensor

from reid_models.losses import OIMLoss, ReconstructionLoss

CLASSES, LENGTH, QUEUE, TEMPERATURE, MOMENTUM = 7, 5, 6, 0.1, 0.5


class Definition:
    """HENet, Eqs. 7 and 8 with the minus sign, in plain floats."""

    def __init__(self) -> None:
        self.table = [[0.0] * LENGTH for _ in range(CLASSES)]
        self.queue = [[0.0] * LENGTH for _ in range(QUEUE)]
        self.oldest = 0

    def step(self, features: Tensor, identities: Tensor) -> float:
        unit = [self.unit(row) for row in features.tolist()]
        values = []
        for x, y in zip(unit, identities.tolist(), strict=True):
            if y < 0:
                continue
            scores = [math.exp(self.dot(v, x) / TEMPERATURE) for v in (*self.table, *self.queue)]
            values.append(-math.log(scores[y] / sum(scores)))
        for x, y in zip(unit, identities.tolist(), strict=True):
            if y < 0:
                self.queue[self.oldest] = x
                self.oldest = (self.oldest + 1) % QUEUE
            else:
                moved = [MOMENTUM * v + (1 - MOMENTUM) * u for v, u in zip(self.table[y], x, strict=True)]
                self.table[y] = self.unit(moved)
        return sum(values) / len(values) if values else 0.0

    @staticmethod
    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    @classmethod
    def unit(cls, row: list[float]) -> list[float]:
        length = math.sqrt(cls.dot(row, row))
        return [value / length for value in row]


def batches(count: int = 100) -> list[tuple[Tensor, Tensor]]:
    """Of 8 images, many of one identity, 0 to 6 of them unlabelled, once in a while all of a kind."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for number in range(count):
        features = torch.randn(8, LENGTH, dtype=torch.float64, generator=generator)
        identities = torch.randint(CLASSES, (8,), generator=generator)
        unlabelled = torch.randperm(8, generator=generator)[: number % (QUEUE + 1)]
        identities[unlabelled] = -1
        found.append((features, identities))
    return found


def oim() -> OIMLoss:
    options: dict[str, Any] = {"temperature": TEMPERATURE, "momentum": MOMENTUM, "queue": QUEUE}
    return OIMLoss(CLASSES, LENGTH, **options).double()


def assert_is(loss: OIMLoss, definition: Definition) -> None:
    for found, expected in ((loss.table, definition.table), (loss.waiting, definition.queue)):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-13)
    assert loss.oldest.item() == definition.oldest


def test_a_hundred_updates_are_the_definition_with_the_queue_wrapping() -> None:
    loss, definition = oim(), Definition()
    for features, identities in batches():
        expected = definition.step(features, identities)
        assert loss(features, identities).item() == pytest.approx(expected, rel=1e-10)
        assert_is(loss, definition)
    assert loss.waiting.abs().sum(1).min() > 0  # every place was taken; 300 images in 6 places


def _share(rank: int, path: str, count: int) -> None:
    """One of two processes, each with half of every batch."""
    from lightning.pytorch import LightningModule

    from reid_models.training.joint_batch import joint
    from tests.models.training.process_support import _FewTrainer

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    module: Any = LightningModule()
    module._trainer = _FewTrainer(2)
    loss, values = oim(), []
    for features, identities in batches(count):
        part = slice(rank * 4, rank * 4 + 4)
        values.append(loss(joint(module, features[part]), joint(module, identities[part])).item())
    torch.save({"values": values, "state": loss.state_dict()}, f"{path}.{rank}")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_table_of_one(tmp_path: Any) -> None:
    path, context = str(tmp_path / "store"), multiprocessing.get_context("spawn")
    processes = [context.Process(target=_share, args=(rank, path, 100)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    definition = Definition()
    expected = [definition.step(features, identities) for features, identities in batches()]
    for rank in range(2):
        found = torch.load(f"{path}.{rank}", weights_only=True)
        assert found["values"] == pytest.approx(expected, rel=1e-10)
        again = oim()
        again.load_state_dict(found["state"])
        assert_is(again, definition)


def test_the_gradient_is_that_of_the_loss_before_its_update() -> None:
    loss = oim()
    for features, identities in batches(5):
        loss(features, identities)
    features, identities = batches(6)[-1]
    loss.eval()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, identities), features)
    expected = torch.autograd.grad(loss(features, identities), features)[0]
    assert all(torch.equal(before[key], value) for key, value in loss.state_dict().items())
    found = torch.autograd.grad(loss.train()(features, identities), features)[0]
    torch.testing.assert_close(found, expected)
    assert not torch.equal(before["table"], loss.table)


def test_a_saved_state_goes_on_exactly() -> None:
    whole, stopped = oim(), oim()
    for number, (features, identities) in enumerate(batches(40)):
        whole(features, identities)
        if number == 20:
            file = io.BytesIO()
            torch.save(stopped.state_dict(), file)
            file.seek(0)
            stopped = oim()
            stopped.load_state_dict(torch.load(file, weights_only=True))
        stopped(features, identities)
    assert all(torch.equal(whole.state_dict()[key], value) for key, value in stopped.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_types_are_taken_as_float32(dtype: torch.dtype) -> None:
    loss = OIMLoss(4, 3)
    value = loss(torch.rand(4, 3).to(dtype), torch.arange(4))
    assert value.dtype == torch.float32 and value.item() == pytest.approx(math.log(4))
    torch.testing.assert_close(loss.table.norm(dim=1), torch.ones(4))


def test_unlabelled_images_alone_give_zero() -> None:
    features = torch.rand(2, 3, requires_grad=True)
    value = OIMLoss(4, 3, queue=2)(features, torch.tensor([-1, -1]))
    value.backward()
    assert value.item() == 0 and features.grad is not None and features.grad.abs().max() == 0


def test_bad_batches_are_refused_and_change_nothing() -> None:
    loss = OIMLoss(4, 3, queue=2)
    state = {key: value.clone() for key, value in loss.state_dict().items()}
    features = torch.rand(3, 3)
    for bad, message in (
        ((features, torch.tensor([-1, -1, -1])), r"queue must hold a batch's unlabelled images \(3\), got 2"),
        ((features, torch.tensor([0, 4, 1])), r"identities must be in \[0, 4\), or -1 .*, got 4"),
        ((features, torch.tensor([0, -2, 1])), "got -2"),
        ((features, torch.tensor([0, 1])), r"identities must have shape \(3,\), got \(2,\)"),
        ((features, torch.tensor([0, 1, 2]).int()), "identities must be int64, got int32"),
        ((torch.rand(3, 2), torch.tensor([0, 1, 2])), r"features must have shape \(N, 3\), got \(3, 2\)"),
        ((features.long(), torch.tensor([0, 1, 2])), "features must be floating, got int64"),
        (([1], torch.tensor([0, 1, 2])), "features must be a torch.Tensor, got list"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            loss(*bad)
    assert all(torch.equal(state[key], value) for key, value in loss.state_dict().items())
    with pytest.raises(ValueError, match=r"queue .* unlabelled images \(1\), got 0"):
        OIMLoss(4, 3)(features, torch.tensor([0, -1, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"feature_length": 2.0}, "feature_length must be an int, got float"),
        ({"queue": -1}, "queue must be at least 0, got -1"),
        ({"temperature": 0.0}, "temperature must be finite and above 0, got 0.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": "0"}, "momentum must be a number, got str"),
    ],
)
def test_oim_refuses_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        OIMLoss(**{"num_classes": 3, "feature_length": 2, **options})


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reconstruction_is_the_squared_difference_from_the_small_input(reduction: str) -> None:
    images = torch.rand(2, 3, 8, 4, dtype=torch.float64)
    small = torch.rand(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    # Bilinear at half the size with antialiasing: a triangle of 4 pixels, cut at the border.
    weights = torch.zeros(4, 8, dtype=torch.float64)
    for row in range(4):
        centre = 2 * row + 1
        for pixel in range(8):
            weights[row, pixel] = max(0.0, 1 - abs(pixel + 0.5 - centre) / 2)
    weights /= weights.sum(1, keepdim=True)
    wanted = torch.einsum("ih,jw,nchw->ncij", weights, weights[:2, :4] / weights[:2, :4].sum(1, True), images)
    loss = ReconstructionLoss(reduction)
    expected = getattr((small - wanted).square(), reduction)()
    torch.testing.assert_close(loss(small, images), expected)
    assert torch.autograd.gradcheck(lambda x: loss(x, images), small)


def test_reconstruction_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match='reduction must be "mean" or "sum", got'):
        ReconstructionLoss("none")
    loss = ReconstructionLoss()
    with pytest.raises(ValueError, match=r"as many images and channels as images, \(2, 3\), got \(1, 3\)"):
        loss(torch.rand(1, 3, 4, 4), torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match="images must have four dimensions"):
        loss(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8))
    with pytest.raises(TypeError, match="images must be floating, got uint8"):
        loss(torch.rand(2, 3, 4, 4), torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
