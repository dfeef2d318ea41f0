"""polygon_erase, random_erase and occlude: bit for bit the reference, on every backend.

No tolerance anywhere except in the statistical tests, whose bounds are stated in standard deviations.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from reid_ops import reference
from reid_ops.polygon_erasing.rule import Rule
from reid_ops.reference import polygon_erasing as steps
from reid_ops.reference.philox import philox4x32
from tests.conftest import Backend, other_thread_count

DTYPES = [torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16]
FILLS = ["random", "channel", "pixel", "mean"]


def random_images(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype).to(device)
    return torch.rand(shape, dtype=torch.float64).to(dtype).to(device)


def check_polygon(images: Tensor, seed: int, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Out of place and in place against the reference."""
    before = images.clone()
    actual = reid_ops.polygon_erase(images, seed=seed, return_mask=True, return_attempts=True, **options)
    expected = reference.polygon_erase(images, seed=seed, return_mask=True, return_attempts=True, **options)
    assert torch.equal(images, before)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    assert actual[0].stride() == torch.empty_like(images).stride()
    in_place = reid_ops.polygon_erase(images, seed=seed, inplace=True, **options)
    assert in_place is images and torch.equal(images, expected[0])
    return expected


# ------------------------------------------------------------------------------------ bit for bit


@pytest.mark.sanitize
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", ["hull", "star"])
@pytest.mark.parametrize("sampling", ["continuous", "published_code"])
def test_equals_the_reference(backend: Backend, sampling: str, shape: str, fill: str) -> None:
    images = random_images((4, 3, 43, 21), device=backend.device)
    check_polygon(images, 5, p=0.8, points=9, sampling=sampling, shape=shape, fill=fill)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fill", FILLS)
def test_dtypes(backend: Backend, fill: str, dtype: torch.dtype) -> None:
    images = random_images((3, 3, 30, 17), dtype, backend.device)
    check_polygon(images, 11, p=1.0, fill=fill)
    images = random_images((3, 2, 30, 17), dtype, backend.device)
    check_polygon(
        images,
        12,
        p=1.0,
        fill=fill,
        mean=(0.25, 0.75),
        value_range=(0.0, 0.5) if dtype.is_floating_point else (3, 200),
    )


@pytest.mark.sanitize
@pytest.mark.parametrize("points", [3, 4, 31, 32, 33, 128, 256])
@pytest.mark.parametrize("shape", ["hull", "star"])
def test_numbers_of_points(backend: Backend, points: int, shape: str) -> None:
    for sampling in ("continuous", "published_code"):
        images = random_images((2, 1, 40, 33), torch.uint8, backend.device)
        check_polygon(images, points, p=1.0, points=points, shape=shape, sampling=sampling, area=(0.3, 0.6))


@pytest.mark.sanitize
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (3, 5), (129, 65), (7, 300)], ids=str)
def test_sizes(backend: Backend, size: tuple[int, int]) -> None:
    for shape in ("hull", "star"):
        images = random_images((5, 3, *size), device=backend.device)
        check_polygon(images, 3, p=1.0, shape=shape, area=(0.01, 1.0), points=5)


@pytest.mark.sanitize
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("anchor", ["corner", "center"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (43, 21), (90, 31)], ids=str)
def test_rectangles_equal_the_reference(
    backend: Backend, size: tuple[int, int], anchor: str, fill: str
) -> None:
    images = random_images((6, 3, *size), device=backend.device)
    actual = reid_ops.random_erase(
        images, seed=2, p=0.9, anchor=anchor, fill=fill, return_mask=True, return_attempts=True
    )
    expected = reference.random_erase(
        images, seed=2, p=0.9, anchor=anchor, fill=fill, return_mask=True, return_attempts=True
    )
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


def test_layouts(backend: Backend) -> None:
    plain = random_images((3, 3, 35, 24), device=backend.device)
    expected = reid_ops.polygon_erase(plain, seed=4, p=1.0, fill="pixel")
    wide = torch.zeros(3, 3, 35, 49, device=backend.device)
    wide[..., 1::2] = plain
    for images in (
        plain.to(memory_format=torch.channels_last),
        wide[..., 1::2],
        plain.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
    ):
        assert not images.is_contiguous() and torch.equal(images, plain)
        output = reid_ops.polygon_erase(images, seed=4, p=1.0, fill="pixel")
        assert torch.equal(output, expected)
        for fill in ("random", "channel"):
            assert torch.equal(
                reid_ops.polygon_erase(images, seed=4, p=1.0, fill=fill),
                reid_ops.polygon_erase(plain, seed=4, p=1.0, fill=fill),
            )
        assert torch.equal(
            reid_ops.polygon_erase(images, seed=4, p=1.0, fill="pixel", inplace=True), expected
        )
    last = plain.to(memory_format=torch.channels_last)
    assert reid_ops.polygon_erase(last, seed=4).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.sanitize
def test_independent_of_the_batch(backend: Backend) -> None:
    """Image i of a batch is image i alone; also under another number of threads."""
    images = random_images((7, 3, 40, 20), torch.uint8, backend.device)
    whole = reid_ops.polygon_erase(images, seed=9, first_index=100, p=0.9, fill="pixel")
    for n in range(7):
        alone = reid_ops.polygon_erase(images[n : n + 1], seed=9, first_index=100 + n, p=0.9, fill="pixel")
        assert torch.equal(alone[0], whole[n])
    with other_thread_count():
        assert torch.equal(
            reid_ops.polygon_erase(images, seed=9, first_index=100, p=0.9, fill="pixel"), whole
        )
    assert not torch.equal(
        reid_ops.polygon_erase(images, seed=10, first_index=100, p=0.9, fill="pixel"), whole
    )


def test_image_numbers_beyond_32_bits(backend: Backend) -> None:
    images = random_images((2, 1, 20, 20), device=backend.device)
    for first_index in (2**32 - 1, 2**62):
        check_polygon(images.clone(), -1, p=1.0, first_index=first_index)
    low = reid_ops.polygon_erase(images, seed=0, p=1.0)
    assert not torch.equal(low, reid_ops.polygon_erase(images, seed=2**32, p=1.0))
    assert not torch.equal(low, reid_ops.polygon_erase(images, seed=0, p=1.0, first_index=2**32))


# ------------------------------------------------------------------------------------ random numbers


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Random123's published known answers for philox4x32, 10 rounds (kat_vectors).
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert tuple(philox4x32(key, counter).tolist()) == expected


def boxes(backend: Backend, count: int, **options: Any) -> Tensor:
    """Box of each image's erased rectangle: (count, 4) left, top, width, height, in pixels."""
    images = torch.zeros(count, 1, 64, 32, dtype=torch.uint8, device=backend.device)
    _, mask = reid_ops.random_erase(images, p=1.0, seed=77, return_mask=True, **options)
    rows, columns = mask.any(2).int(), mask.any(1).int()
    return torch.stack([columns.argmax(1), rows.argmax(1), columns.sum(1), rows.sum(1)], 1).cpu()


def test_draws_are_uniform_and_independent(backend: Backend) -> None:
    """The words' statistics: Kolmogorov distance and correlations within 4.5 standard deviations."""
    if backend.is_emulated:
        pytest.skip("the same bits as on the CPU, shown above")
    count = 20_000
    words = torch.stack(
        [
            philox4x32((1, 2), (0, 0, torch.arange(count), 0)),
            philox4x32((1, 2), (1, 0, torch.arange(count), 0)),
        ],
        1,
    )
    uniform = words.view(count, 8).double() / 2**32
    ordered = uniform.sort(0).values
    steps_up = torch.arange(1, count + 1, dtype=torch.float64)[:, None] / count
    assert (ordered - steps_up).abs().max() < 2.5 / math.sqrt(count)  # Kolmogorov: P < 1e-5
    correlation = torch.corrcoef(torch.cat([uniform[:-1], uniform[1:]], 1).T) - torch.eye(
        16, dtype=torch.float64
    )
    assert correlation.abs().max() < 4.5 / math.sqrt(count)

    images = torch.zeros(count, 1, 16, 16, dtype=torch.uint8, device=backend.device)
    erased, mask, attempts = reid_ops.polygon_erase(
        images, seed=3, p=0.3, points=40, area=(0.5, 0.5), aspect=1.0, return_mask=True, return_attempts=True
    )
    share = (attempts > 0).double().mean()
    assert abs(share - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / count)
    fills = erased.amax((1, 2, 3))[attempts > 0].double()
    assert abs(fills.mean() - 127.5) < 4.5 * 73.9 / math.sqrt(len(fills))
    assert len(fills.unique()) == 256
    # Left-right and up-down symmetric: the mean mask equals its mirror images.
    mean = mask.double().mean(0)
    for axis in (0, 1):
        assert (mean - mean.flip(axis)).abs().max() < 5 * math.sqrt(2 * 0.25 / count)


def test_rectangles_follow_the_published_distribution(backend: Backend) -> None:
    """Area, aspect and place of rectangles, at a size where rounding to pixels is small."""
    if backend.is_emulated:
        pytest.skip("the same bits as on the CPU, shown above")
    drawn = boxes(backend, 20_000, area=(0.1, 0.1), aspect=1.0).double()
    assert (drawn[:, 2:] == 14).all()  # sqrt(.1 * 64 * 32) = 14.3
    for axis, size in ((0, 32), (1, 64)):
        places = torch.bincount(drawn[:, axis].long(), minlength=size - 14 + 1).double()
        expected = 20_000 / (size - 14 + 1)
        assert len(places) == size - 14 + 1
        freedom = len(places) - 1
        chi_square = ((places - expected).square() / expected).sum()
        assert abs(chi_square - freedom) < 4.5 * math.sqrt(2 * freedom)
    drawn = boxes(backend, 20_000, area=(0.1, 0.3), aspect=0.5).double()
    area = drawn[:, 2] * drawn[:, 3] / (64 * 32)
    assert area.min() > 0.09 and area.max() < 0.31
    aspect = drawn[:, 3] / drawn[:, 2]
    assert aspect.min() > 0.42 and aspect.max() < 2.4
    centered = boxes(backend, 20_000, area=(0.1, 0.1), aspect=1.0, anchor="center").double()
    assert (centered[:, 2] < 14).double().mean() == pytest.approx(13 / 32, abs=0.02)  # cut off on either side


@pytest.mark.parametrize(("points", "coverage"), [(10, 0.437), (20, 0.625), (40, 0.766)])
def test_coverage_of_the_box(backend: Backend, points: int, coverage: float) -> None:
    """The mean share of the box that the hull covers, 20,000 draws."""
    if backend.is_emulated:
        pytest.skip("the same bits as on the CPU, shown above")
    images = torch.zeros(20_000, 1, 96, 96, dtype=torch.uint8, device=backend.device)
    _, mask = reid_ops.polygon_erase(
        images, p=1.0, area=(0.5, 0.5), aspect=1.0, points=points, seed=1, return_mask=True
    )
    assert mask.double().mean().item() / 0.5 == pytest.approx(coverage, abs=0.005)


def test_acceptance_rate_of_the_box(backend: Backend) -> None:
    """.846 of the boxes fit at 384 x 128."""
    if backend.is_emulated:
        pytest.skip("the same bits as on the CPU, shown above")
    images = torch.zeros(1, 1, 384, 128, dtype=torch.uint8, device=backend.device).repeat(4000, 1, 1, 1)
    _, attempts = reid_ops.polygon_erase(images, p=1.0, seed=1, inplace=True, return_attempts=True)
    assert 1 / attempts.double().mean().item() == pytest.approx(0.846, abs=0.025)


# ------------------------------------------------------------------------------------ the raster rule


@pytest.mark.parametrize("points", [3, 10, 20, 100])
def test_raster_rule_is_exact_against_scipy(backend: Backend, points: int) -> None:
    """Scipy's ConvexHull on the same points; then exact integers decide for every pixel centre."""
    spatial = pytest.importorskip("scipy.spatial")
    height, width = 37, 29
    images = torch.zeros(6, 1, height, width, dtype=torch.uint8, device=backend.device)
    for sampling in ("continuous", "published_code"):
        options = {"p": 1.0, "area": (0.1, 0.7), "points": points}
        _, mask = reid_ops.polygon_erase(images, seed=points, sampling=sampling, return_mask=True, **options)
        rule = Rule.checked(
            "test",
            aspect=0.35,
            shape="hull",
            placement=sampling,
            fill="random",
            mean=None,
            max_attempts=100,
            **options,
        )
        for n in range(len(images)):
            words = steps.Words(points, n)
            drawn = steps.draw_points(rule, words, steps.draw_box(rule, words, height, width)).numpy()
            corners = drawn[spatial.ConvexHull(drawn).vertices]  # counter-clockwise
            inside = torch.ones(height, width, dtype=torch.bool)
            x = torch.arange(width) * 4096 + 2048
            y = (torch.arange(height) * 4096 + 2048)[:, None]
            for (ax, ay), (bx, by) in zip(
                corners.tolist(), [*corners[1:].tolist(), corners[0].tolist()], strict=True
            ):
                inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
            assert torch.equal(mask[n].cpu(), inside)


def test_published_code_against_pil_polygons(backend: Backend) -> None:
    """The authors' way, a union of drawn triangles, differs at most along its outline."""
    image_module = pytest.importorskip("PIL.Image")
    draw_module = pytest.importorskip("PIL.ImageDraw")
    numpy = pytest.importorskip("numpy")
    images = torch.zeros(4, 3, 96, 48, device=backend.device)
    erased, mask = reid_ops.polygon_erase(
        images, seed=1, p=1.0, points=8, fill="mean", sampling="published_code", return_mask=True
    )
    assert erased[0, :, mask[0]].unique(dim=1).squeeze(1).tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    rule = reid_ops.RandomPolygonErasing.published_code(p=1.0, points=8).rule
    for n in range(4):
        words = steps.Words(1, n)
        points = steps.draw_points(rule, words, steps.draw_box(rule, words, 96, 48)) // steps.PIXEL
        corners = [tuple(point) for point in points.tolist()]
        canvas = image_module.new("L", (48, 96))
        for i in range(6):
            for j in range(8):
                draw_module.Draw(canvas).polygon([corners[i], corners[i + 1], corners[j]], fill=1)
        drawn = torch.from_numpy(numpy.array(canvas)).bool()
        ours = mask[n].cpu()
        assert not (ours & ~drawn).any()  # every pixel of the hull is drawn
        grown = torch.nn.functional.max_pool2d(ours[None, None].float(), 3, 1, 1)[0, 0].bool()
        assert not (drawn & ~grown).any()  # and at most one pixel around it


@pytest.mark.parametrize("shape", ["hull", "star"])
def test_degenerate_points(backend: Backend, shape: str) -> None:
    """Boxes of no width, height or size: a segment or a point erases the centres it meets, or none."""
    for area, aspect in (((0.0, 0.0), 1.0), ((1e-9, 1e-9), 1 / 256), ((0.001, 0.001), (256.0, 256.0))):
        images = random_images((20, 1, 8, 8), device=backend.device)
        _, mask, attempts = check_polygon(images, 1, p=1.0, area=area, aspect=aspect, shape=shape)
        assert (attempts == 1).all() and mask.sum() <= 20 * 8
    images = random_images((40, 1, 9, 9), device=backend.device)
    check_polygon(images, 1, p=1.0, area=(0.02, 0.06), sampling="published_code", shape=shape)
