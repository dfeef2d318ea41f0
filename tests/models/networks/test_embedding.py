"""Pooled features of any timm network, and the network that is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from reid_models.networks import create_model, load_model, save_model
from reid_models.networks.pooling import PooledBackbone

#: Convolutions, a layer behind the pooling, channels last, tokens with a class token and with registers.
NETWORKS = {
    "test_resnet": None,
    "test_efficientnet": None,
    "test_convnext": None,
    "mobilenetv3_small_050": (64, 64),
    "swin_tiny_patch4_window7_224": (56, 56),
    "test_vit": None,
    "vit_tiny_patch16_224": (64, 32),
    "vit_small_patch14_reg4_dinov2": (56, 28),
}


def backbone(name: str, **options: Any) -> PooledBackbone:
    torch.manual_seed(0)
    return PooledBackbone(name, image_size=NETWORKS[name], **options).eval()


def images(network: PooledBackbone) -> Tensor:
    return torch.rand(2, 3, *network.image_size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_own_features_are_those_before_the_classifier(name: str) -> None:
    network = backbone(name)
    given = images(network)
    found = network(given)
    body: Any = network.body
    assert found.shape == (2, network.feature_length)
    torch.testing.assert_close(found, body(given), rtol=1e-5, atol=1e-6)
    known = timm.data.resolve_model_data_config(body)
    assert (network.mean, network.std) == (known["mean"], known["std"])
    assert network.interpolation == known["interpolation"]


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_pools(name: str) -> None:
    network = backbone(name)
    given = images(network)
    body: Any = network.body
    features = body.forward_features(given)
    if features.dim() == 4:
        places = features.flatten(1, 2) if "swin" in name else features.flatten(2).transpose(1, 2)
    else:
        places = features[:, body.num_prefix_tokens :]
        height, width = network.image_size
        patch = body.patch_embed.patch_size[0]
        assert places.shape[1] == (height // patch) * (width // patch)
    pooled = {
        "gap": places.mean(1),
        "gmp": places.amax(1),
        "gem": places.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3),
    }
    for pool, expected in pooled.items():
        network.pool = pool
        found = network(given)
        assert found.shape == (2, network.feature_length)
        if type(getattr(body, "fc_norm", None)) in (type(None), nn.Identity) and name not in (
            "test_convnext",  # with a norm behind its pooling,
            "mobilenetv3_small_050",  # and with a whole layer
        ):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    network.pool = "gap"
    if name in ("test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050"):
        # What these do themselves, with all that stands behind it.
        torch.testing.assert_close(network(given), body(given), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_maps(name: str) -> None:
    network = backbone(name)
    for layer in network.layers().values():
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, given, output, kept=kept: kept.append(output))
        network(images(network))
        handle.remove()
        (shape,) = {network.as_map(output).shape for output in kept}
        assert len(shape) == 4 and shape[0] == 2
        height, width = network.image_size
        assert shape[2] * width == shape[3] * height


def test_attention_pooling_is_left_out_by_other_pools() -> None:
    own = PooledBackbone("vit_base_patch16_siglip_224", image_size=(32, 32))
    assert own.feature_length == own.body.num_features
    network = PooledBackbone("vit_base_patch16_siglip_224", image_size=(32, 32), pool="gmp").eval()
    given = images(network)
    body: Any = network.body
    with torch.no_grad():
        torch.testing.assert_close(network(given), body.forward_features(given).amax(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean"}, "pool must be one of own, gap, gmp, gem, got 'mean'"),
        ({"backbone": "resnet5"}, "unknown backbone 'resnet5'"),
        ({"test_feature": "cls"}, 'test_feature must be "pooled" or "neck", got \'cls\''),
        ({"test_feature": "neck", "classifier": False}, "without a classifier"),
        ({"backbone": "test_vit", "image_size": (30, 30)}, "test_vit can't take images of 30x30"),
        ({"backbone": "coat_tiny", "pool": "gem"}, 'pool must be "own" for a network that has several maps'),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model = create_model("embedding", 3, **{"backbone": "test_resnet", **options}).eval()
        model(torch.rand(1, 3, *model.image_size))


def test_training_outputs_and_frozen_norms() -> None:
    torch.manual_seed(0)
    model = create_model("embedding", 5, backbone="test_resnet", image_size=(32, 32), freeze_batch_norm=True)
    given = torch.rand(4, 3, 32, 32)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    outputs = model(given)
    assert outputs["logits"].shape == (4, 5) and outputs["features"].shape == (4, model.feature_length)
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training or m.weight.requires_grad for m in norms) and model.training
    free = create_model("embedding", 5, backbone="test_resnet", image_size=(32, 32))
    assert all(m.training for m in free.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    # Before training the features are the backbone's, whichever is compared.
    torch.testing.assert_close(model.eval()(given), model.backbone(given))


def test_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"image_size": (64, 32), "pool": "gem", "test_feature": "neck"}
    model = create_model("embedding", 5, backbone="test_vit", **options).eval()
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors").eval()
    given = torch.rand(2, 3, 64, 32)
    assert torch.equal(again(given), model(given)) and again.options == model.options
    with pytest.raises(ValueError, match=r"images must have the image_size \(64, 32\)"):
        again(torch.rand(2, 3, 64, 64))
