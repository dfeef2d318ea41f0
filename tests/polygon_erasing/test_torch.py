"""polygon_erase in torch: results, seeds, gradients, compilation, CUDA graphs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from reid_ops.polygon_erasing.rule import Rule
from tests.conftest import Backend
from tests.cuda_support import capture, on_another_stream
from tests.polygon_erasing.test_erase import DTYPES, random_images

# ------------------------------------------------------------------------------------ results


def test_all_returns(backend: Backend) -> None:
    images = random_images((5, 3, 40, 20), device=backend.device)
    plain = reid_ops.polygon_erase(images, seed=1)
    erased, mask, attempts = reid_ops.polygon_erase(images, seed=1, return_mask=True, return_attempts=True)
    assert torch.equal(plain, erased)
    assert torch.equal(reid_ops.polygon_erase(images, seed=1, return_mask=True)[1], mask)
    assert torch.equal(reid_ops.polygon_erase(images, seed=1, return_attempts=True)[1], attempts)
    assert mask.dtype == torch.bool and mask.shape == (5, 40, 20) and attempts.dtype == torch.int32
    assert torch.equal(mask.any((1, 2)), attempts > 0)
    assert torch.equal((erased != images).any(1), mask)


def test_unchanged_when_nothing_fits(backend: Backend) -> None:
    """Boxes as large as the image hardly ever fit: unchanged after the cap, and counted."""
    images = random_images((6, 3, 12, 48), torch.uint8, backend.device)
    for erase in (reid_ops.polygon_erase, reid_ops.random_erase):
        erased, mask, attempts = erase(
            images, p=1.0, area=(1.0, 1.0), seed=1, max_attempts=7, return_mask=True, return_attempts=True
        )
        assert (attempts == -1).all() and torch.equal(erased, images) and not mask.any()
    images = random_images((60, 1, 20, 20), device=backend.device)
    _, attempts = reid_ops.polygon_erase(
        images, p=1.0, area=(0.02, 0.9), seed=1, max_attempts=1, return_attempts=True
    )
    assert set(attempts.tolist()) == {-1, 1}


def test_probability_zero_and_one(backend: Backend) -> None:
    images = random_images((50, 1, 8, 8), device=backend.device)
    assert torch.equal(reid_ops.polygon_erase(images, p=0.0, seed=1), images)
    _, attempts = reid_ops.polygon_erase(images, p=1.0, seed=1, return_attempts=True)
    assert (attempts > 0).all()


def test_empty_batch(backend: Backend) -> None:
    for dtype in DTYPES:
        images = torch.zeros(0, 3, 8, 4, dtype=dtype, device=backend.device)
        erased, mask, attempts = reid_ops.polygon_erase(
            images, seed=1, return_mask=True, return_attempts=True
        )
        assert erased.shape == images.shape and mask.shape == (0, 8, 4) and attempts.shape == (0,)
        assert reid_ops.random_erase(images, inplace=True) is images
        assert reid_ops.occlude(images, 0.3).shape == images.shape


def test_rectangles_and_polygons_are_independent(backend: Backend) -> None:
    """RE and RPE under one seed: whether both erase is no more likely than by chance."""
    if backend.is_emulated:
        pytest.skip("the same bits as on the CPU")
    images = torch.zeros(20_000, 1, 8, 8, dtype=torch.uint8, device=backend.device)
    _, polygons = reid_ops.polygon_erase(images, seed=1, return_attempts=True)
    _, rectangles = reid_ops.random_erase(images, seed=1, return_attempts=True)
    both = ((polygons != 0) & (rectangles != 0)).double().mean().item()
    assert abs(both - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / 20_000)


# ------------------------------------------------------------------------------------ seeds


def test_seed_as_tensor(backend: Backend) -> None:
    images = random_images((4, 3, 30, 20), device=backend.device)
    seed = torch.tensor([2**40 + 3], device=backend.device)
    expected = reid_ops.polygon_erase(images, seed=2**40 + 3, p=1.0)
    assert torch.equal(reid_ops.polygon_erase(images, seed=seed, p=1.0), expected)
    assert torch.equal(reid_ops.polygon_erase(images, seed=seed[0].cpu(), p=1.0), expected)
    numbered = torch.cat([seed, torch.tensor([5], device=backend.device)])
    alone = reid_ops.polygon_erase(
        images[2:], seed=numbered - torch.tensor([0, 3], device=backend.device), p=1.0
    )
    assert torch.equal(alone, expected[2:])
    further = reid_ops.polygon_erase(images, seed=numbered, first_index=2, p=1.0)
    assert torch.equal(further, reid_ops.polygon_erase(images, seed=2**40 + 3, first_index=7, p=1.0))
    seed += 1
    assert not torch.equal(reid_ops.polygon_erase(images, seed=seed, p=1.0), expected)


def test_seed_from_a_generator(backend: Backend) -> None:
    images = random_images((4, 3, 30, 20), device=backend.device)

    def run(seed: int | None) -> Tensor:
        generator = torch.Generator(backend.device)
        if seed is None:
            torch.manual_seed(5)
            return reid_ops.polygon_erase(images, p=1.0)
        return reid_ops.polygon_erase(images, p=1.0, generator=generator.manual_seed(seed))

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert torch.equal(run(None), run(None))
    assert not torch.equal(reid_ops.polygon_erase(images, p=1.0), reid_ops.polygon_erase(images, p=1.0))
    host = torch.Generator().manual_seed(3)
    assert reid_ops.polygon_erase(images, generator=host).shape == images.shape


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**63, 2**64 - 1])
def test_extreme_seeds(backend: Backend, seed: int) -> None:
    images = random_images((2, 1, 20, 20), device=backend.device)
    expected = reference.polygon_erase(images, seed=seed, p=1.0)
    assert torch.equal(reid_ops.polygon_erase(images, seed=seed, p=1.0), expected)


# ------------------------------------------------------------------------------------ torch


def operator_arguments(
    backend: Backend, dtype: torch.dtype = torch.float32, fill: str = "random"
) -> tuple[Any, ...]:
    images = random_images((3, 3, 12, 9), dtype, backend.device)
    rule = Rule.checked(
        "test", p=1.0, area=(0.2, 0.4), aspect=0.5, points=7, shape="hull", placement="continuous", fill=fill,
        mean=None, max_attempts=100,
    )  # fmt: skip
    values = [0.5] if fill == "mean" else [0.0, 1.0]
    return images, None, 3, 0, rule.encode(), values, True


@pytest.mark.parametrize("name", ["polygon_erase", "polygon_erase_"])
def test_opcheck(backend: Backend, name: str) -> None:
    """Schema (with its mutation), fake kernel, autograd registration, and tracing."""
    operator = getattr(getattr(torch.ops, backend.library), name).default
    for dtype, fill in ((torch.float32, "random"), (torch.uint8, "pixel"), (torch.bfloat16, "mean")):
        torch.library.opcheck(operator, operator_arguments(backend, dtype, fill))
    images, _, *rest = operator_arguments(backend)
    torch.library.opcheck(operator, (images, torch.tensor([4], device=backend.device), *rest))
    last = images.to(memory_format=torch.channels_last)
    torch.library.opcheck(operator, (last, None, *rest[:-1], False))
    if name == "polygon_erase":
        torch.library.opcheck(operator, (images.requires_grad_(), None, *rest))


def test_gradient(backend: Backend) -> None:
    """Erased pixels pass none, the others pass it on; in every float type, and twice."""
    images = random_images((3, 2, 11, 8), torch.float64, backend.device).requires_grad_()
    for options in ({"fill": "pixel"}, {"shape": "star"}, {"sampling": "published_code"}):

        def run(x: Tensor, options: dict[str, str] = options) -> Tensor:  # fmt: skip
            return reid_ops.polygon_erase(x, seed=2, p=1.0, mean=0.5, **options)  # type: ignore[arg-type]

        torch.autograd.gradcheck(run, images)
        torch.autograd.gradgradcheck(run, images)
    for dtype in DTYPES[1:]:
        x = random_images((3, 2, 11, 8), dtype, backend.device).to(memory_format=torch.channels_last)
        seed = torch.tensor([2], device=backend.device)
        erased, mask = reid_ops.polygon_erase(x.requires_grad_(), seed=seed, p=1.0, return_mask=True)
        upstream = torch.randn_like(erased)
        (grad,) = torch.autograd.grad(erased, x, upstream)
        assert grad.dtype == dtype and torch.equal(grad, upstream * ~mask[:, None])
    assert not mask.requires_grad


def test_inplace_and_gradients(backend: Backend) -> None:
    images = random_images((2, 3, 9, 9), device=backend.device).requires_grad_()
    with pytest.raises(RuntimeError, match="inplace=True needs images that require no gradient"):
        reid_ops.polygon_erase(images, inplace=True)
    with torch.no_grad():
        assert reid_ops.polygon_erase(images, inplace=True) is images


def test_compile_and_export(backend: Backend) -> None:
    images = random_images((4, 3, 20, 12), device=backend.device).requires_grad_()

    def step(x: Tensor, seed: Tensor) -> Tensor:
        return reid_ops.polygon_erase(x * 2, seed=seed, p=1.0) + reid_ops.random_erase(x, seed=7, p=1.0)

    seed = torch.tensor([1], device=backend.device)
    results = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        output = function(images, seed)
        results.append((output, *torch.autograd.grad(output.square().sum(), images)))
    for eager, traced in zip(*results, strict=True):
        assert torch.equal(eager, traced)

    def in_place(x: Tensor) -> Tensor:
        y = x.detach().clone()
        reid_ops.polygon_erase(y, seed=3, p=1.0, inplace=True)
        return y + 1

    assert torch.equal(torch.compile(in_place, fullgraph=True, backend="aot_eager")(images), in_place(images))
    program = torch.export.export(reid_ops.RandomPolygonErasing(p=1.0, seed=3), (images.detach(),))
    assert backend.library in program.graph_module.code
    assert torch.equal(
        program.module()(images.detach()), reid_ops.polygon_erase(images.detach(), seed=3, p=1.0)
    )


def test_compile_without_a_seed(backend: Backend) -> None:
    """A drawn seed stays inside the graph: every call erases anew."""
    images = random_images((4, 3, 20, 12), device=backend.device)
    compiled = torch.compile(reid_ops.RandomPolygonErasing(p=1.0), fullgraph=True, backend="aot_eager")
    assert not torch.equal(compiled(images), compiled(images))


@pytest.mark.cuda
class TestCuda:
    """What only a real device can show."""

    def test_graph_replays_draw_anew(self) -> None:
        images = random_images((8, 3, 64, 32), device="cuda")
        seed = torch.tensor([1], device="cuda")
        graph, (drawn, given) = capture(
            lambda: [reid_ops.polygon_erase(images, p=1.0, seed=each) for each in (None, seed)]
        )
        graph.replay()
        first_drawn, first_given = drawn.clone(), given.clone()
        graph.replay()
        assert not torch.equal(drawn, first_drawn) and torch.equal(given, first_given)
        seed.fill_(2)
        graph.replay()
        assert torch.equal(given, reid_ops.polygon_erase(images, p=1.0, seed=2))

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_equals_the_cpu(self, dtype: torch.dtype) -> None:
        images = random_images((16, 3, 128, 64), dtype)
        for options in ({"fill": "pixel"}, {"shape": "star", "fill": "channel"}, {"fill": "mean"}):
            expected = reid_ops.polygon_erase(images, seed=5, p=0.7, **options)  # type: ignore[arg-type]
            actual = reid_ops.polygon_erase(images.cuda(), seed=5, p=0.7, **options)  # type: ignore[arg-type]
            assert torch.equal(actual.cpu(), expected)

    def test_other_stream(self) -> None:
        images = random_images((8, 3, 64, 32), device="cuda")
        expected = reid_ops.polygon_erase(images, seed=1)
        actual = on_another_stream(lambda: reid_ops.polygon_erase(images * 1.0, seed=1))
        assert torch.equal(actual, expected)
