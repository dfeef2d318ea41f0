"""HENet's network: feature lengths of all branch sets, its figure by hand, what it refuses; recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reid_models import create_model, load_model, load_recipe
from reid_models.losses import WeightedLoss
from reid_models.networks import save_model
from reid_models.papers.henet.decoder import Decoder
from reid_models.papers.henet.network import HENet
from reid_models.training.trial import output_widths

SMALL = {"backbone": "resnet10t", "image_size": (96, 32)}  # maps of 6 x 2


def henet(num_classes: int = 5, **options: Any) -> HENet:
    model = create_model("henet", num_classes, **{**SMALL, **options})
    assert isinstance(model, HENet)
    return model


@pytest.mark.parametrize(
    ("branches", "length"),
    [
        ((1,), 512),
        ((1, 2), 1536),
        ((1, 2, 3), 2816),
        ((1, 2, 3, 4), 4352),
        ((1, 3), 1792),
        ((1, 4), 2048),
        ((1, 6), 2560),
        ((4,), 1536),
    ],
)
@pytest.mark.parametrize("recovery", [None, (16, 16)])
def test_feature_lengths_of_every_set(branches: tuple[int, ...], length: int, recovery: Any) -> None:
    """Tables 2 and 3; 24 rows of the map, as of 384 x 128."""
    model = henet(branches=branches, recovery=recovery, image_size=(384, 32)).eval()
    expected = length + (512 if recovery else 0)
    assert model.feature_length == expected
    assert model(torch.rand(2, 3, 384, 32)).shape == (2, expected)


def test_the_recovery_branch_alone() -> None:
    model = henet(branches=(), recovery=(16, 16))
    assert model.eval()(torch.rand(2, 3, 96, 32)).shape == (2, 512) and set(model.stages) == {"recovery"}
    assert output_widths(model) == {"logits": (5,), "recovery": (512,), "reconstruction": (16,)}


def test_outputs_have_every_feature_and_its_logits() -> None:
    model = henet(branches=(1, 2, 3))
    outputs = model(torch.rand(2, 3, 96, 32))
    shapes = {
        name: tuple(v.shape) if isinstance(v, Tensor) else [tuple(t.shape) for t in v]
        for name, v in outputs.items()
    }
    assert shapes == {
        "logits": [(2, 5)] * 9,
        "global": [(2, 512)] * 3,
        "partial": [(2, 256)] * 5,
        "recovery": (2, 512),
        "reconstruction": (2, 3, 16, 16),
    }
    assert list(model.layers()) == ["trunk", "branch1", "branch2", "branch3", "recovery"]
    assert model.classifiers() == ("classifier",)


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_features_are_the_figure_by_hand(pool: str) -> None:
    """Equations 1 to 4: pooled bins through their own 1x1 convolutions, side by side."""
    model = henet(branches=(1, 2), pool=pool).eval()
    images = torch.rand(2, 3, 96, 32)
    pooled = torch.amax if pool == "max" else torch.mean
    with torch.no_grad():
        shared = model.trunk(images)
        maps = {name: stage(shared) for name, stage in model.stages.items()}
        parts = {
            "global1": maps["branch1"],
            "global2": maps["branch2"],
            "part2_1": maps["branch2"][:, :, :3],
            "part2_2": maps["branch2"][:, :, 3:],
            "recovery": maps["recovery"],
        }
        expected = [
            pooled(part, (2, 3)) @ model.heads[name][0].weight.flatten(1).T + model.heads[name][0].bias
            for name, part in parts.items()
        ]
        torch.testing.assert_close(model(images), torch.cat(expected, dim=1), rtol=1e-4, atol=1e-5)
    assert maps["branch1"].shape[2:] == (6, 2)


@pytest.mark.parametrize(
    ("head", "layers"),
    [
        ("conv", [nn.Conv2d]),
        ("conv_bn", [nn.Conv2d, nn.BatchNorm2d]),
        ("conv_bn_relu", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]),
    ],
)
def test_heads(head: str, layers: list[type]) -> None:
    model = henet(branches=(1, 2), head=head)
    assert all([type(layer) for layer in made] == layers for made in model.heads.values())


@pytest.mark.parametrize(("split", "global_stride"), [("layer3", 2), ("conv4_1", 1), ("conv4_1", 2)])
def test_split_and_stride(split: str, global_stride: int) -> None:
    options = {"backbone": "resnet14t" if split == "layer3" else "resnet18", "split": split}
    model = henet(branches=(1, 2), global_stride=global_stride, **options).eval()
    shared = model.trunk(torch.rand(1, 3, 96, 32))
    assert model.stages["branch1"](shared).shape[2:] == ((6, 2) if global_stride == 1 else (3, 1))
    assert model.stages["branch2"](shared).shape[2:] == (6, 2)
    blocks = len(model.stages["branch2"])
    assert blocks == (1 if split == "layer3" else 2)  # layer4, behind the second block of layer3
    for left, right in zip(
        model.stages["branch1"].parameters(), model.stages["branch2"].parameters(), strict=True
    ):
        assert torch.equal(left, right) and left is not right  # copies of the same weights


@pytest.mark.parametrize("size", [(16, 16), (48, 16), (24, 8), (16, 32)])
def test_decoder_sizes(size: tuple[int, int]) -> None:
    decoder = Decoder(32, size, width=32)
    assert decoder(torch.rand(2, 32)).shape == (2, 3, *size)
    groups = [layer for layer in decoder if isinstance(layer, nn.Sequential)]
    assert len(groups) == 4
    assert all(
        isinstance(group[0], nn.Conv2d) and isinstance(group[3], nn.ConvTranspose2d) for group in groups
    )


def test_files_make_the_same_network_again(tmp_path: Path) -> None:
    model = henet(branches=(1, 3), recovery=(24, 8), pool="avg", head="conv_bn", global_stride=2).eval()
    save_model(model, tmp_path / "henet.safetensors")
    again = load_model(tmp_path / "henet.safetensors").eval()
    images = torch.rand(2, 3, 96, 32)
    assert torch.equal(again(images), model(images)) and again.options == model.options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": (1, 4)}, r"branches must divide the map's height, 6 for images of \(96, 32\), got 4"),
        ({"branches": (1, 1)}, r"branches must be different, got \(1, 1\)"),
        ({"branches": (0,)}, "branches must be at least 1, got 0"),
        ({"branches": (1.0,)}, "branches must be an int, got float"),
        ({"branches": (), "recovery": None}, "branches must have one at least"),
        ({"recovery": (20, 10)}, r"recovery must be a seed of whole pixels times 16 .* got \(20, 10\)"),
        ({"recovery": (0, 16)}, "recovery must be a seed"),
        ({"recovery": (16,)}, r"recovery must be \(height, width\), got \(16,\)"),
        ({"recovery": (16.0, 16)}, "in int, got float"),
        ({"split": "layer2"}, "split must be one of layer3, conv4_1, got 'layer2'"),
        ({"pool": "gem"}, "pool must be one of max, avg, got 'gem'"),
        ({"head": "linear"}, "head must be one of conv, conv_bn, conv_bn_relu"),
        ({"impl": "fast"}, "impl must be one of fused, reference"),
        ({"global_stride": 3}, "global_stride must be 1 or 2, got 3"),
        ({"split": "conv4_1"}, 'split must be "layer3": the stage .* has no blocks'),
        ({"branch": (1,)}, 'did you mean "branches"'),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        henet(**{"branches": (1, 2), **options})


def test_images_of_another_height_must_be_divided_too() -> None:
    with pytest.raises(ValueError, match="branches must divide the map's height 5, got 2"):
        henet(branches=(1, 2)).eval()(torch.rand(1, 3, 80, 32))


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("market1501_henet_base", ["cross_entropy(logits)"]),
        (
            "dukemtmc_reid_henet_both",
            ["cross_entropy(logits)", "oim(partial)", "triplet(global)", "reconstruction(reconstruction)"],
        ),
        (
            "market1501_henet_loss_oim",
            ["cross_entropy(logits)", "oim(partial)", "reconstruction(reconstruction)"],
        ),
    ],
)
def test_recipes_terms_fit_the_network_and_give_gradients(row: str, names: list[str]) -> None:
    model_settings = load_recipe(row).config["model"]
    options = {**model_settings["options"], "pretrained": False, **SMALL, "image_size": (128, 32)}
    model = create_model("henet", 4, **options)
    loss = WeightedLoss(model_settings["losses"], num_classes=4, widths=output_widths(model))
    assert list(loss.names) == names
    images = torch.rand(4, 3, 128, 32)
    loss(model(images), torch.tensor([0, 0, 1, 1]), images=images)["total"].backward()
    assert all(p.grad is not None for p in model.parameters())  # as DDP wants
    assert loss(model(images), torch.tensor([0, 0, 1, 1]), images=images)["total"].isfinite()


def test_every_table_and_figure_is_a_recipe() -> None:
    def targets(name: str) -> dict[str, float]:
        return dict(load_recipe(f"market1501_henet_{name}").targets)

    assert targets("both") == {
        "rank1": 96.0, "mAP": 87.2, "feature_length": 2560, "megabytes": 224, "images_per_second": 138,
        "efficiency": 3.52,
    }  # fmt: skip
    for name, length in (("p1", 512), ("p1234", 4352), ("p4", 1536), ("r", 512), ("p14_r", 2560)):
        assert targets(name)["feature_length"] == length
        options = load_recipe(f"market1501_henet_{name}").config["model"]["options"]
        bins = options["branches"]
        found = 512 * len(bins) + 256 * sum(b for b in bins if b > 1) + (512 if options["recovery"] else 0)
        assert found == length
    assert targets("loss_all_losses") == {"rank1": 93.67, "rank5": 97.84, "rank10": 98.63, "mAP": 80.60}
    assert targets("re_rpe20_p05") == {"rank1": 93.72, "mAP": 80.53}
    config = load_recipe("market1501_henet_rpe40_p07").config
    assert config["data"]["augmentation"] == {
        "flip": 0.0, "erase": None, "polygon": {"p": 0.7, "points": 40}
    }  # fmt: skip
    assert config["data"]["sampler"] == {
        "name": "identity", "identities_per_batch": 4, "images_per_identity": 4
    }  # fmt: skip
    assert load_recipe("cuhk03_henet_base").config["data"]["dataset_options"] == {"boxes": "detected"}
