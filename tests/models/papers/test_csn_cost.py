"""What CSN costs, against multiply-accumulates counted by hand from the sizes of the paper's Table 1."""

from __future__ import annotations

from typing import Any

import pytest

from reid_models.networks import create_model
from reid_models.papers.csn.cost import pair_cost
from reid_models.papers.csn.network import CSN
from reid_models.recipes import list_recipes, load_recipe

# Height and width of the maps behind the pooling of each level, of their parts, and the samples' f.
MAPS = {2: (40, 15), 3: (20, 8), 4: (10, 4)}
SAMPLES = {2: 10, 3: 5, 4: 3}


def up(length: int) -> int:
    """Half, in ceil mode."""
    return -(-length // 2)


def convolution(height: int, width: int, inputs: int, outputs: int, kernel: int) -> int:
    return height * width * inputs * outputs * kernel * kernel


def extractor(levels: tuple[int, ...], table5: bool) -> int:
    total = convolution(160, 60, 3, 32, 5) + convolution(80, 30, 32, 96, 3)
    wide = 2 if table5 and 4 in levels else 1  # Table 5's variant has two convolutions before pools 3 and 4
    if max(levels) >= 3:
        total += wide * convolution(40, 15, 96, 96, 3)
    if max(levels) >= 4:
        total += wide * convolution(20, 8, 96, 96, 3)
    return total


def localiser(height: int, width: int) -> int:
    """Of one part: 3x3 96-32, pool, 3x3 32-32, pool, 1x1 32-128, average, linear 128-6."""
    total = convolution(height, width, 96, 32, 3)
    height, width = up(height), up(width)
    total += convolution(height, width, 32, 32, 3)
    height, width = up(height), up(width)
    return total + convolution(height, width, 32, 128, 1) + 128 * 6


def ranking(levels: tuple[int, ...], parts: int) -> int:
    """3x3 of each part, pool, 3x3 of the parts one below the other; linear of all levels to 256."""
    total = 0
    for f in (SAMPLES[level] for level in levels):
        total += parts * convolution(f, f, 96, 96, 3) + convolution(parts * up(f), up(f), 96, 96, 3)
    return total + 96 * len(levels) * 256


def correlation(levels: tuple[int, ...], parts: int) -> int:
    """Eq. 2: both directions, each part, 96 channels."""
    return sum(2 * parts * 96 * MAPS[level][0] * MAPS[level][1] * SAMPLES[level] ** 2 for level in levels)


def decision(levels: tuple[int, ...], parts: int, size: tuple[int, int]) -> int:
    """conv4 1x1, conv5 3x3, pool, conv6 1x1, average, linear 500-2."""
    height, width = size
    total = convolution(height, width, 96 * 2 * parts * len(levels), 32, 1)
    total += convolution(height, width, 32, 32, 3) + convolution(up(height), up(width), 32, 500, 1)
    return total + 500 * 2


@pytest.mark.parametrize("size", [(10, 4), (20, 8)])
@pytest.mark.parametrize("levels", [(2,), (3,), (2, 3)])
def test_operations_of_two_levels_by_hand(levels: tuple[int, ...], size: tuple[int, int]) -> None:
    model = CSN(2, levels=levels, similarity_size=size)
    cost = pair_cost(model)
    places = 3 * sum(localiser(MAPS[level][0] // 2, MAPS[level][1]) for level in levels)
    assert cost.image_macs == extractor(levels, False) + places + ranking(levels, 3)
    assert cost.pair_macs == correlation(levels, 3) + decision(levels, 3, size)
    assert cost.gflops == 2 * (2 * cost.image_macs + cost.pair_macs) / 1e9
    assert model.training


@pytest.mark.parametrize("variant", ["text", "table5"])
@pytest.mark.parametrize("parts", ["stn", "central", "none"])
def test_operations_of_three_levels_by_hand(variant: str, parts: str) -> None:
    levels = (2, 3, 4)
    cost = pair_cost(CSN(2, levels=levels, l4_variant=variant, parts=parts))
    count = 1 if parts == "none" else 3
    places = 0
    if parts == "stn":
        places = 3 * sum(localiser(MAPS[level][0] // 2, MAPS[level][1]) for level in levels)
    elif parts == "none":
        places = sum(localiser(*MAPS[level]) for level in levels)
    assert cost.image_macs == extractor(levels, variant == "table5") + places + ranking(levels, count)
    assert cost.pair_macs == correlation(levels, count) + decision(levels, count, (10, 4))


@pytest.mark.parametrize(
    ("options", "parameters", "depth", "printed"),
    [
        ({}, 0.4785, 12, 0.96),
        ({"levels": (2, 3, 4), "l4_variant": "table5"}, 0.814, 18, 1.31),
    ],
)
def test_table_5(options: dict[str, Any], parameters: float, depth: int, printed: float) -> None:
    """The paper's GFLOPs within 4 %; parts with both of the rows that it names come nearer."""
    cost = pair_cost(CSN(2, **options))
    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=1e-3) and cost.depth == depth
    assert 0 < printed - cost.gflops < 0.04 * printed + 0.01
    inclusive = pair_cost(CSN(2, inclusive_rows=True, **options))
    assert cost.gflops < inclusive.gflops < printed


def test_codes_of_two_images_and_their_pair() -> None:
    """What scoring 100 x 100 images by codes saves: 9.6 times the operations of pair by pair."""
    cost = pair_cost(CSN(2, inclusive_rows=True, similarity_size=(20, 8)))
    assert (round(cost.image_macs / 1e6, 1), round(cost.pair_macs / 1e6, 1)) == (214.9, 44.9)
    by_pairs = 10_000 * (2 * cost.image_macs + cost.pair_macs)
    by_codes = 200 * cost.image_macs + 10_000 * cost.pair_macs
    assert by_pairs / by_codes == pytest.approx(9.65, abs=0.05)


@pytest.mark.parametrize("name", [name for name in list_recipes() if "_csn_" in name])
def test_what_recipes_say_is_computed(name: str) -> None:
    recipe = load_recipe(name)
    options = recipe.config["model"]["options"]
    model = create_model("csn", 2, image_size=recipe.config["data"]["image_size"], **options)
    assert isinstance(model, CSN)
    cost = pair_cost(model)
    assert recipe.computed == {
        "parameters": round(cost.parameters / 1e6, 4),
        "gflops": round(cost.gflops, 3),
        "depth": cost.depth,
    }
