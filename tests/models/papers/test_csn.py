"""CSN against the published definition: sizes, parameters, parts, Eqs. 1, 2, 5 and 7."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_models.papers.csn.layers import halve
from reid_models.papers.csn.localisation import Localiser, central_crop, divide, sample
from reid_models.papers.csn.network import CSN

SMALL: dict[str, Any] = {"image_size": (32, 24), "part_sizes": (4, 2, 2)}


def small(seed: int = 0, **options: Any) -> CSN:
    """A small network whose statistics and transformers are not those it starts with."""
    torch.manual_seed(seed)
    model = CSN(2, **{**SMALL, **options})
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "transform.weight")):
            value.copy_(0.1 * torch.randn_like(value))
        elif name.endswith("running_var"):
            value.fill_(30.0 if "head" in name else 1.0)
    return model.eval()


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, *SMALL["image_size"], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("options", "millions", "depth"),
    [
        ({}, 0.4785, 12),
        ({"levels": (2, 3, 4)}, 0.647, 16),
        ({"levels": (2, 3, 4), "l4_variant": "table5"}, 0.814, 18),
    ],
)
def test_parameters_and_depth(options: dict[str, Any], millions: float, depth: int) -> None:
    """Those that fit Table 5."""
    model = CSN(2, **options)
    digits = 4 if millions == 0.4785 else 3
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, digits) == millions
    assert model.depth == depth


@pytest.mark.parametrize(
    ("options", "size", "channels"),
    [
        ({}, (10, 4), 1152),
        ({"similarity_size": (10, 4)}, (10, 4), 1152),
        ({"similarity_size": (20, 8)}, (20, 8), 1152),
        ({"pooling": "floor"}, (10, 3), 1152),
        ({"pooling": "floor", "similarity_size": (20, 7)}, (20, 7), 1152),
        ({"levels": (2,)}, (10, 4), 576),
        ({"levels": (3,)}, (10, 4), 576),
        ({"levels": (4,)}, (10, 4), 576),
        ({"levels": (2, 3, 4)}, (10, 4), 1728),
        ({"levels": (2, 3, 4), "parts": "none"}, (10, 4), 576),
        ({"levels": (2, 3, 4), "parts": "none", "undivided_parts": 3}, (10, 4), 1728),
        ({"levels": (2, 3, 4), "parts": "central"}, (10, 4), 1728),
        ({"inclusive_rows": True}, (10, 4), 1152),
    ],
)
def test_sizes(options: dict[str, Any], size: tuple[int, int], channels: int) -> None:
    """Table 1, section 4.2 and Table 4: the maps that are decided on."""
    torch.manual_seed(0)
    model = CSN(2, **options).eval()
    with torch.no_grad():
        codes = model.codes(torch.randn(2, 3, 160, 60))
        maps = model.similarity(codes, codes, torch.tensor([[0, 1]]))
    assert model.similarity_size == size and maps.shape == (1, channels, *size)
    rows = {2: 40, 3: 20, 4: 10}
    for level, found in codes.maps.items():
        assert found.shape[1:3] == (96, rows[level])
        f = {2: 10, 3: 5, 4: 3}[level]
        assert codes.parts[level].shape[2:] == (96, f, f)
    torch.testing.assert_close(codes.embedding.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("height", "rows"),
    [
        (40, [(0, 20), (10, 30), (20, 40)]),
        (20, [(0, 10), (5, 15), (10, 20)]),
        (10, [(0, 5), (2, 7), (5, 10)]),
    ],
)
def test_rows_of_the_parts(height: int, rows: list[tuple[int, int]]) -> None:
    assert [(part.start, part.stop) for part in divide(height)] == rows
    inclusive = [(max(0, start - 1), stop) for start, stop in rows]
    assert [(part.start, part.stop) for part in divide(height, inclusive=True)] == inclusive


def test_samples_by_the_definition() -> None:
    """Eq. 1 and bilinear sampling, pixel by pixel."""
    random = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 7, 5, generator=random, dtype=torch.float64)
    transforms = torch.tanh(torch.randn(2, 2, 2, 3, generator=random, dtype=torch.float64))
    found = sample(maps, transforms, 4)
    assert found.shape == (2, 2, 3, 4, 4)
    padded = F.pad(maps, (1, 1, 1, 1))
    centres = (2 * torch.arange(4, dtype=torch.float64) + 1) / 4 - 1
    for image, part, i, j in torch.cartesian_prod(*(torch.arange(n) for n in (2, 2, 4, 4))).tolist():
        across, down = (
            transforms[image, part] @ torch.stack([centres[j], centres[i], torch.tensor(1.0)]).double()
        )
        x, y = ((across + 1) * 5 - 1) / 2, ((down + 1) * 7 - 1) / 2
        expected = torch.zeros(3, dtype=torch.float64)
        for row in (int(y.floor()), int(y.floor()) + 1):
            for column in (int(x.floor()), int(x.floor()) + 1):
                weight = (1 - (y - row).abs()) * (1 - (x - column).abs())
                if -1 <= row <= 7 and -1 <= column <= 5:
                    expected += weight * padded[image, :, row + 1, column + 1]
        torch.testing.assert_close(found[image, part, :, i, j], expected)


@pytest.mark.parametrize(("height", "width", "f"), [(20, 15, 10), (10, 8, 5), (20, 16, 10)])
def test_transformers_start_in_the_middle(height: int, width: int, f: int) -> None:
    localiser = Localiser((height, width), f).eval()
    maps = torch.randn(2, 96, height, width)
    with torch.no_grad():
        transforms = localiser(maps)
        found = sample(maps, transforms, f)[:, 0]
    torch.testing.assert_close(transforms[0, 0], torch.tensor([[f / width, 0, 0], [0, f / height, 0]]))
    if (width - f) % 2 == 0:
        torch.testing.assert_close(found, central_crop(maps, f), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(20, 15), (6, 15), (20, 7), (6, 7)])
def test_central_crop(shape: tuple[int, int]) -> None:
    maps = torch.arange(float(shape[0] * shape[1])).view(1, 1, *shape) + 1
    found = central_crop(maps, 10)
    assert found.shape == (1, 1, 10, 10)
    assert int((found > 0).sum()) == min(10, shape[0]) * min(10, shape[1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"levels": (2, 3, 4)},
        {"parts": "none", "undivided_parts": 3},
        {"parts": "central"},
        {"levels": (3,)},
    ],
)
def test_scores_by_hand(options: dict[str, Any]) -> None:
    """Of a pair: Eq. 2 by grouped convolution, pooling, the head, Eqs. 5 and 7."""
    model = small(**options)
    with torch.no_grad():
        left, right = model.codes(images(1)), model.codes(images(1, seed=2))
        maps = []
        for level in model.levels:
            for signal, filters in ((left, right), (right, left)):
                f = model.part_sizes[level]
                before = (f - 1) // 2
                padded = F.pad(signal.maps[level], (before, f - 1 - before, before, f - 1 - before))
                parts = [F.conv2d(padded, part[:, None], groups=96) for part in filters.parts[level][0]]
                found = torch.cat(parts, dim=1)
                for _ in range(4 - level):
                    found = F.max_pool2d(found, 2, ceil_mode=True)
                maps.append(found)
        probability = model.head(torch.cat(maps, dim=1)).softmax(dim=1)[0, 1]
        distance = (left.embedding - right.embedding).norm()
        codes = left.flatten(), right.flatten()
        plain = model.match(*codes, score="probability")
        scored = model.match(*codes)
    assert 0.001 < float(probability) < 0.999
    torch.testing.assert_close(plain[0, 0], probability, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scored[0, 0], probability + 0.2 / (distance + 1e-4), rtol=1e-4, atol=1e-4)


def test_fused_and_reference_agree() -> None:
    model, other = small(), small(impl="reference")
    with torch.no_grad():
        codes = model.encode(images(5))
        torch.testing.assert_close(other.encode(images(5)), codes)
        pairs = torch.tensor([[0, 1], [4, 2], [3, 3]])
        left = model.layout.split(codes)
        found = model.similarity(left, left, pairs)
        torch.testing.assert_close(other.similarity(left, left, pairs), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("megabytes", [0.01, 1.0, 64.0])
def test_all_pairs_are_those_listed(megabytes: float) -> None:
    model = small()
    codes_a, codes_b = model.encode(images(4)).detach(), model.encode(images(7, seed=3)).detach()
    found = model.match(codes_a, codes_b, megabytes=megabytes)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(7))
    listed = model.match_pairs(codes_a, codes_b, pairs, megabytes=megabytes)
    torch.testing.assert_close(found, listed.view(4, 7), rtol=1e-5, atol=1e-5)
    assert model.match(codes_a[:0], codes_b).shape == (0, 7) and model.match(codes_a, codes_b[:0]).shape == (
        4,
        0,
    )
    assert model.match_pairs(codes_a, codes_b, pairs[:0]).shape == (0,)
    model.train()
    torch.testing.assert_close(model.match(codes_a, codes_b), found, rtol=1e-5, atol=1e-5)
    assert model.training and model.head.training


def test_codes_are_rows_of_views() -> None:
    model = small(levels=(2, 3, 4))
    with torch.no_grad():
        codes = model.codes(images(3))
    flat = codes.flatten()
    assert flat.shape == (3, model.feature_length)
    again = model.layout.split(flat)
    for level in model.levels:
        assert torch.equal(again.maps[level], codes.maps[level])
        assert torch.equal(again.parts[level], codes.parts[level])
        assert again.maps[level].untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
    assert torch.equal(model.embed(flat), codes.embedding)


def test_training_sees_the_pairs() -> None:
    model = small().train()
    pairs = torch.tensor([[0, 1], [0, 2], [0, 3], [4, 5]])
    outputs = model(images(6), pairs=pairs)
    assert outputs["logits"].shape == (4, 2) and outputs["embeddings"].shape == (4, 2, 256)
    assert [tuple(t.shape) for t in outputs["transforms"]] == [(6, 3, 2, 3)] * 2
    loss = F.cross_entropy(outputs["logits"], torch.tensor([1, 0, 0, 1])) + outputs["embeddings"][:, 0].sum()
    (loss + sum(t.square().sum() for t in outputs["transforms"])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert "transforms" not in small(parts="central").train()(images(6), pairs=pairs)


def test_halve() -> None:
    assert halve((160, 60), "ceil", 3) == (20, 8) and halve((160, 60), "floor", 3) == (20, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ()}, "levels must be of (2, 3, 4), got ()"),
        ({"levels": (1, 2)}, "levels must be of"),
        ({"l4_variant": "table4"}, "l4_variant must be of 'text', 'table5', got 'table4'"),
        ({"similarity_size": (9, 4)}, "similarity_size must be (20, 8) or (10, 4) for levels (2, 3)"),
        ({"similarity_size": (20, 8), "levels": (2, 3, 4)}, "similarity_size must be (10, 4) for levels"),
        ({"parts": "all"}, "parts must be of 'stn', 'central', 'none', got 'all'"),
        ({"part_sizes": (10, 5)}, "part_sizes must be three"),
        ({"part_sizes": (10, 5, 0)}, "part_sizes must be at least 1, got 0"),
        ({"image_size": (8, 8)}, "image_size must leave level 3 2 rows or more, got (8, 8), which leave 1"),
        ({"score_epsilon": 0.0}, "score_epsilon must be above 0"),
        ({"pretrained": True}, "pretrained must be of False"),
        ({"backbone": "resnet50"}, "backbone must be of 'csn', got 'resnet50'"),
        ({"impl": "fast"}, "impl must be of"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        CSN(2, **options)
    assert message in str(caught.value) and str(caught.value).startswith("csn: ")


def test_bad_input() -> None:
    model = small()
    codes = model.encode(images(2)).detach()
    with pytest.raises(ValueError, match=r"images must have the image_size \(32, 24\), got \(32, 32\)"):
        model(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"outputs needs pairs .* \{name: pairs\}"):
        model.train()(images(2))
    model.eval()
    with pytest.raises(
        ValueError, match=r"codes_b must have shape \(N, \d+\), as encode gives, got \(2, 3\)"
    ):
        model.match(codes, codes[:, :3])
    with pytest.raises(TypeError, match="codes_a must be a floating tensor"):
        model.match(codes.long(), codes)
    with pytest.raises(ValueError, match="score must be of similarity, probability, got 'cosine'"):
        model.match(codes, codes, score="cosine")
    with pytest.raises(ValueError, match="megabytes must be above 0, got 0"):
        model.match(codes, codes, megabytes=0)
    with pytest.raises(TypeError, match="pairs must be an int64"):
        model.match_pairs(codes, codes, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"pairs must have shape \(P, 2\)"):
        model.match_pairs(codes, codes, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"pairs\[0, 1\] must be in \[0, 2\), got 5"):
        model.match_pairs(codes, codes, torch.tensor([[0, 5]]))
