"""Hybrid attention's recipes: every row of its tables, what it trains, and what the paper prints."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.optim import SGD

from reid_models.data import Augmentation, SplitCounts, read_dataset, verify_split
from reid_models.losses import WeightedLoss
from reid_models.networks import create_model
from reid_models.recipes import load_recipe
from reid_models.recipes.registry import books
from reid_models.training.schedule import make_optimizer, make_schedule

(BOOK,) = (book for book in books() if book.room == "hybrid_attention")
PLAIN = {"stages": [4], "order": ["cat"], "multi_granularity": False, "multi_pool": False}
WHOLE = {"stages": [1, 2, 3, 4], "order": ["S", "cat", "C"], "multi_granularity": True, "multi_pool": True}


def named(row: Any) -> list[str]:
    return [row] if isinstance(row, str) else row["of"]


def options(name: str) -> dict[str, Any]:
    given: dict[str, Any] = load_recipe(name).config["model"]["options"]
    return {key: value for key, value in given.items() if key not in ("backbone", "pretrained")}


def test_every_row_has_a_recipe() -> None:
    counts = [len(table["rows"]) for table in BOOK.tables]
    # Tables II to V; VI twice; VII; VIII twice; IX; X twice.
    assert counts == [5, 6, 6, 6, 6, 6, 9, 8, 8]
    shown = {name for table in BOOK.tables for row in table["rows"] for name in named(row)}
    assert shown == set(BOOK.recipes)


# Tables II to X: rank-1/mAP, in percent. Names follow hybrid_; a row of several numbers is several recipes'.
PRINTED = """
market1501 95.7/87.7  dukemtmc_reid 90.2/80.2  cuhk03_labelled 80.3/76.2  cuhk03_detected 77.5/72.5
msmt17 79.6/57.6
market1501_baseline 88.1/71.1  market1501_tricks 92.3/81.9  market1501_mpfe 93.4/83.4
market1501_mgo 94.7/86.5  market1501_sam 95.3/87.2
dukemtmc_reid_baseline 79.2/63.7  dukemtmc_reid_tricks 85.1/69.5  dukemtmc_reid_mpfe 86.6/73.5
dukemtmc_reid_mgo 88.6/77.9  dukemtmc_reid_sam 89.2/78.1
dukemtmc_reid_only_mgo 84.9/69.5  dukemtmc_reid_only_mpfe 83.6/71.2  dukemtmc_reid_only_sam 84.3/72.3
dukemtmc_reid_only_cam 85.1/72.8
duke_to_market_baseline 33.43/12.65  duke_to_market_tricks 41.21/17.13  duke_to_market_mpfe 42.31/18.90
duke_to_market_mgo 51.15/24.68  duke_to_market_sam 51.98/25.16  duke_to_market 54.33/26.43
market_to_duke_baseline 19.61/9.19  market_to_duke_tricks 30.48/15.95  market_to_duke_mpfe 34.07/18.22
market_to_duke_mgo 39.86/23.01  market_to_duke_sam 40.79/23.96  market_to_duke 42.52/25.37
market1501_bmm_s 94.9/86.6  market1501_bmm_c 95.1/86.9  market1501_order_cat_c_s 94.8/86.7
market1501_order_c_s_cat 95.3/86.2  market1501_order_c_cat_s 95.3/87.2  market1501_order_cat_s_c 95.0/86.9
market1501_order_s_c_cat 95.5/87.2
market1501_stage1 84.80/63.67  market1501_stage2 90.62/76.02  market1501_stage3 93.89/83.43
market1501_stage4 93.72/86.05  market1501_stages12 90.80/76.06  market1501_stages123 94.42/85.85
market1501_stages234 95.24/86.93
dukemtmc_reid_stage1 74.69/55.67  dukemtmc_reid_stage2 82.50/67.56  dukemtmc_reid_stage3 87.93/75.36
dukemtmc_reid_stage4 88.63/77.47  dukemtmc_reid_stages12 82.23/68.00  dukemtmc_reid_stages123 88.33/76.09
dukemtmc_reid_stages234 88.78/78.01
"""


def test_targets_are_the_papers() -> None:
    """Every row's; the last of Table X, whose digits differ from the other tables', are the tables' own."""
    words = PRINTED.split()
    printed = {
        f"hybrid_{name}": tuple(float(number) for number in numbers.split("/"))
        for name, numbers in zip(words[::2], words[1::2], strict=True)
    }
    assert set(printed) == set(BOOK.recipes)
    for name, numbers in printed.items():
        targets = dict(load_recipe(name).targets)
        rank5 = {"rank5": 90.2} if name == "hybrid_msmt17" else {}
        assert targets == {"rank1": numbers[0], "mAP": numbers[1], **rank5}, name
    last = [row["targets"] for table in BOOK.tables for row in table["rows"] if not isinstance(row, str)]
    assert last == [{"rank1": 95.65, "mAP": 87.67}, {"rank1": 90.17, "mAP": 80.16}]


def test_rows_are_options_alone() -> None:
    """Table VI from the plain baseline on, one component after the other."""
    assert options("hybrid_market1501_baseline") == PLAIN == options("hybrid_market1501_tricks")
    assert options("hybrid_market1501_mpfe") == {**PLAIN, "multi_pool": True}
    assert options("hybrid_market1501_mgo") == {**PLAIN, "multi_pool": True, "multi_granularity": True}
    assert options("hybrid_market1501_sam") == {**WHOLE, "order": ["S", "cat"]}
    assert options("hybrid_market1501") == WHOLE
    assert options("hybrid_dukemtmc_reid_only_sam") == {**PLAIN, "order": ["S", "cat"]}
    assert options("hybrid_market1501_order_cat_c_s") == {**WHOLE, "order": ["cat", "C", "S"]}
    assert options("hybrid_market1501_stage2") == {**WHOLE, "stages": [2]}


def test_tricks_are_erasing_warm_up_and_smoothing() -> None:
    whole, without = (load_recipe(f"hybrid_market1501_{row}").config for row in ("tricks", "baseline"))
    assert without["data"]["augmentation"] == {"flip": 0.5, "erase": None}
    assert whole["data"]["augmentation"]["erase"] == {"p": 0.5, "anchor": "center"}
    smoothing = [config["model"]["losses"][0].get("options") for config in (whole, without)]
    assert smoothing == [{"label_smoothing": 0.1}, None]
    assert "warmup_epochs" not in whole["model"]["schedule"]
    assert without["model"]["schedule"]["warmup_epochs"] == 0


@pytest.mark.parametrize("name", BOOK.recipes)
def test_every_recipe_can_be_made(name: str) -> None:
    """Its network (on a small trunk), losses, optimizer, schedule and augmentation."""
    config = load_recipe(name).config
    model, data = config["model"], config["data"]
    network = create_model(
        model["network"], 5, **{**model["options"], "backbone": "resnet10t", "pretrained": False},
        image_size=(96, 32), reduced_width=8, feature_width=8,
    ).train()  # fmt: skip
    outputs = network(torch.rand(4, 3, 96, 32))
    losses = WeightedLoss(model["losses"])(outputs, torch.tensor([0, 0, 1, 1]))
    assert losses["total"].isfinite()
    optimizer = make_optimizer(network, model["optimizer"])
    assert isinstance(optimizer, SGD) and optimizer.defaults["nesterov"]
    make_schedule(optimizer, model["schedule"], count_steps=lambda: 1)
    Augmentation.from_mapping(data["augmentation"])
    sampler = data["sampler"]
    assert sampler["identities_per_batch"] * sampler["images_per_identity"] == 64
    assert config["trainer"]["max_epochs"] == 150


def rates(**options: Any) -> list[float]:
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=0.01)
    schedule, interval = make_schedule(
        optimizer, {"name": "hybrid_attention", **options}, count_steps=lambda: 1
    )
    assert interval == "epoch"
    found = []
    for _ in range(150):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_equation_6_as_printed() -> None:
    found = rates()
    assert found[:10] == pytest.approx([3e-4 * epoch / 10 for epoch in range(1, 11)])
    for first, last, rate in ((11, 60, 0.01), (61, 90, 0.005), (91, 120, 0.0025), (121, 150, 0.00125)):
        assert found[first - 1 : last] == pytest.approx([rate] * (last - first + 1))


def test_warm_up_read_otherwise() -> None:
    linear, from_zero = rates(warmup="linear"), rates(warmup="from_zero")
    assert linear[0] == pytest.approx(3e-4) and linear[10] == pytest.approx(0.01)
    steps = [b - a for a, b in pairwise(linear[:11])]
    assert steps == pytest.approx([steps[0]] * 10)
    assert from_zero[:11] == pytest.approx([0.001 * epoch for epoch in range(1, 11)] + [0.01])
    assert rates(warmup_epochs=0)[0] == 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": "printd"}, r"printed"),
        ({"warmup_epochs": -1}, r"warmup_epochs must be at least 0, got -1"),
        ({"milestones": (60, 50)}, r"milestones must rise"),
        ({"milestones": (5,)}, r"milestones must rise from warmup_epochs \(10\)"),
        ({"factor": 0}, r"factor must be in \(0, 1\], got 0"),
    ],
)
def test_bad_schedules(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(**options)


def write_market(root: Path, persons: tuple[int, ...], name: str) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir(parents=True)
    for number, person in enumerate(persons):
        for folder, camera in (("bounding_box_train", 1), ("query", 2), ("bounding_box_test", 3)):
            identity = person + (0 if folder == "bounding_box_train" else 100)
            file = root / folder / name.format(identity=identity, camera=camera, number=number)
            Image.new("RGB", (4, 8)).save(file)


def test_cross_domain(tmp_path: Path) -> None:
    """Training images of one, test images of the other, whose persons get numbers of their own."""
    write_market(tmp_path / "Market-1501-v15.09.15", (2, 7), "{identity:04}_c{camera}s1_{number:06}_00.jpg")
    write_market(tmp_path / "DukeMTMC-reID", (1, 4, 9), "{identity:04}_c{camera}_f{number:07}.jpg")
    for name, train, test, published in (
        ("hybrid_duke_to_market", [1, 4, 9], [9 + 1 + 102, 9 + 1 + 107], (702, 16522, 750, 3368, 19732)),
        ("hybrid_market_to_duke", [2, 7], [8 + 101, 8 + 104, 8 + 109], (751, 12936, 702, 2228, 17661)),
    ):
        data = load_recipe(name).config["data"]
        dataset = read_dataset(data["dataset"], tmp_path, **data["dataset_options"])
        assert [r.identity for r in dataset.train] == train
        assert [r.identity for r in dataset.draws[0].query] == test
        assert dataset.published == SplitCounts(*published)
        assert dataset.name == load_recipe(name).config["data"]["dataset_options"]["train"]["name"] + (
            "_to_" + data["dataset_options"]["test"]["name"]
        )
        assert verify_split(dataset)
    with pytest.raises(ValueError, match=r"field of train of cross_domain"):
        read_dataset("cross_domain", tmp_path, train={"nam": "x"}, test={"name": "market1501"})
    with pytest.raises(ValueError, match=r"cross_domain: test must have a name"):
        read_dataset("cross_domain", tmp_path, train=data["dataset_options"]["train"], test={})
