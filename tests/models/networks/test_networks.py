"""Networks: shapes, variants, the paper's parameter counts, compilers."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import reid_models
from reid_models.networks import (
    create_backbone,
    create_model,
    measure_complexity,
)
from reid_models.papers.hsgnet.network import HSGNET_VARIANTS
from reid_ops import HSGM

from .network_support import IDENTITIES, NAMES, SIZE, hsgm_modules, randomise_graphs, tiny


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_outputs(name: str, images: Tensor) -> None:
    model = tiny(name)
    outputs = model(images)
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "logits": (4, IDENTITIES),
        "features": (4, 512),
    }
    features = model.eval()(images)
    assert features.shape == (4, 512) == (4, model.feature_length)
    torch.testing.assert_close(features, model.backbone(images).amax((2, 3)))


def test_features_of_the_cbr(images: Tensor) -> None:
    model = tiny(test_feature="cbr", triplet_feature="cbr", cbr_width=24)
    assert model(images)["features"].shape == (4, 24)
    assert model.eval()(images).shape == (4, 24) == (4, model.feature_length)


@pytest.mark.parametrize("variant", HSGNET_VARIANTS)
def test_every_variant_trains_and_equals_its_reference(variant: str, images: Tensor) -> None:
    options = {"backbone": "test_resnet", "variant": variant}
    fused, reference = tiny(**options), tiny(**options, impl="reference")
    randomise_graphs(fused)
    reference.load_state_dict(fused.state_dict())
    for model in (fused, reference):
        outputs = model.double()(images.double())
        (outputs["logits"].square().sum() + outputs["features"].sum()).backward()
    for (key, a), b in zip(fused.named_parameters(), reference.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, key
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-9, msg=key)
    torch.testing.assert_close(fused.eval()(images.double()), reference.eval()(images.double()))


def test_variants_are_table_iii_and_iv() -> None:
    module = hsgm_modules(tiny())[0]
    assert (module.levels, module.scales) == ((1, 2, 4), (1, 2, 3))
    assert module.spatial and module.channel and module.residual
    assert hsgm_modules(tiny(variant="wo_hier"))[0].levels == (1,)
    assert not hsgm_modules(tiny(variant="wo_res"))[0].residual
    assert not hsgm_modules(tiny(variant="wo_ssg"))[0].spatial
    assert not hsgm_modules(tiny(variant="wo_csg"))[0].channel
    assert hsgm_modules(tiny(variant="hsgnet2"))[0].scales == (2, 2, 2)


@pytest.mark.parametrize("stages", [(1,), (2,), (3,), (4,), (1, 3)])
def test_modules_stand_behind_their_stages(stages: tuple[int, ...], images: Tensor) -> None:
    model = tiny(stages=stages)
    found = [name for name, module in model.named_modules() if isinstance(module, HSGM)]
    assert found == [f"backbone.body.layer{stage}.hsgm" for stage in stages]
    assert model(images)["features"].shape == (4, 512)


# Theta for every scale and pixel of a level; delta and batch norm for every map and channel.
@pytest.mark.parametrize(
    ("image_size", "counts"),
    [((256, 256), (42240, 19968, 23808, 45312)), ((256, 128), (23808, 15360, 22656, 44160))],
)
def test_parameters_of_hsgm(image_size: tuple[int, int], counts: tuple[int, ...]) -> None:
    for stage, expected in zip((1, 2, 3, 4), counts, strict=True):
        with torch.device("meta"):
            model = create_model("hsgnet", 576, image_size=image_size, stages=(stage,))
        assert sum(p.numel() for module in hsgm_modules(model) for p in module.parameters()) == expected


def test_parameters_that_hsgm_adds_to_the_baseline() -> None:
    with torch.device("meta"):
        for image_size, added in (((256, 256), 23808), ((256, 128), 22656)):
            counts = [
                sum(p.numel() for p in create_model(name, 751, image_size=image_size).parameters())
                for name in ("baseline", "hsgnet")
            ]
            assert counts == [23508032 + 2048 * 256 + 2 * 256 + 256 * 751, counts[0] + added]


def test_complexity_is_that_of_evaluation() -> None:
    model = tiny("baseline")
    measured = measure_complexity(model)
    assert measured.parameters == sum(p.numel() for p in model.parameters())
    assert measured.macs == pytest.approx(measure_complexity(model, (128, 64)).macs / 4, rel=0.01)
    model.head.classifier.requires_grad_(False)
    fewer = measure_complexity(model)
    assert fewer.parameters == measured.parameters - model.head.classifier.weight.numel()
    assert fewer.macs == measured.macs and model.training  # the classifier takes no part in evaluation


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34d", "res2net50_26w_4s", "densenet121", "efficientnet_b0", "regnetx_002"]
)
def test_last_stride_one_keeps_the_size_and_the_weights(name: str) -> None:
    one, two = create_backbone(name).eval(), create_backbone(name, last_stride=2).eval()
    one.load_state_dict(two.state_dict())
    shapes = [model(torch.rand(1, 3, 64, 64)).shape for model in (one, two)]
    channels = two.channels[-1]
    assert shapes == [(1, channels, 4, 4), (1, channels, 2, 2)]
    for module in one.modules():
        if isinstance(module, nn.Conv2d):
            assert module.dilation == (1, 1)


def test_last_stride_one_is_refused_where_it_can_not_be() -> None:
    with pytest.raises(ValueError, match=r"convnext_atto must give features .* pass last_stride=2"):
        create_backbone("convnext_atto")
    assert tiny(backbone="convnext_atto", last_stride=2).training


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_breaks(name: str, training: bool, images: Tensor) -> None:
    model = tiny(name).train(training)
    randomise_graphs(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(training):
        expected, result = model(images), compiled(images)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    if training:
        result["features"].sum().backward()
        assert all(p.grad is not None for p in model.backbone.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_feature_extractor_exports(name: str, images: Tensor) -> None:
    model = tiny(name).eval()
    randomise_graphs(model)
    with torch.no_grad():
        exported = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
        for count in (1, 3):
            torch.testing.assert_close(exported.module()(images[:count]), model(images[:count]))


def test_channels_last(images: Tensor) -> None:
    model = tiny().eval()
    randomise_graphs(model)
    with torch.no_grad():
        expected = model(images)
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
        result = model(images)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert model.backbone(images).is_contiguous(memory_format=torch.channels_last)


def test_autocast(images: Tensor) -> None:
    model = tiny()
    randomise_graphs(model)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images)
    assert outputs["logits"].dtype == torch.bfloat16
    (outputs["logits"].float().square().sum() + outputs["features"].float().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = model.eval()(images).float()
    torch.testing.assert_close(features, model(images), rtol=0.1, atol=0.1)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'hsgnett'; did you mean \"hsgnet\""):
        create_model("hsgnett", 5)
    with pytest.raises(ValueError, match=r"unknown option of hsgnet 'backbon'; did you mean \"backbone\""):
        create_model("hsgnet", 5, backbon="resnet18")
    with pytest.raises(ValueError, match=r"unknown option of baseline 'variant'"):
        create_model("baseline", 5, variant="full")
    with pytest.raises(ValueError, match=r"unknown variant of hsgnet 'wo_hir'; did you mean \"wo_hier\""):
        tiny(variant="wo_hir")
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet5O'; did you mean \"resnet50\""):
        tiny(backbone="resnet5O")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": (3, 3)}, "stages must be different numbers of 1, 2, 3, 4"),
        ({"stages": (5,)}, "stages must be different numbers of 1, 2, 3, 4"),
        ({"stages": ()}, "stages must be"),
        ({"test_feature": "gap"}, 'test_feature must be "gmp" or "cbr", got \'gap\''),
        ({"cbr_width": 0}, "cbr_width must be at least 1, got 0"),
        ({"cbr_width": 2.0}, "cbr_width must be an int, got float"),
        ({"image_size": (64,)}, r"image_size must be \(height, width\)"),
        ({"last_stride": 3}, "last_stride must be 1 or 2, got 3"),
        ({"backbone": "vit_tiny_patch16_224"}, "network of four stages"),
        ({"hsgm": {"impl": "fused"}}, "impl is an option of its own"),
        ({"impl": "fast"}, "impl must be"),
        ({"image_size": (32, 32)}, "do not fit features of 2 x 2"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        tiny(**options)


def test_bad_images(images: Tensor) -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"images must have the image_size \(64, 32\), got \(32, 64\)"):
        model(images.mT)
    with pytest.raises(TypeError, match=r"images must be normalised floats, got uint8"):
        model(images.to(torch.uint8))
    with pytest.raises(ValueError, match=r"images must have shape \(N, 3, H, W\), got \(4, 1, 64, 32\)"):
        model(images[:, :1])


def test_weights_that_can_not_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    with pytest.raises(
        RuntimeError,
        match=r"resnet18 .* no route to host.*--model\.options\.pretrained FILE.*pretrained=False",
    ):
        tiny(pretrained=True)


@pytest.mark.parametrize("name", ["resnet18", "seresnet50", "res2net50_26w_4s"])
def test_backbones_have_the_keys_of_timms_weights(name: str) -> None:
    with torch.device("meta"):
        whole = timm.create_model(name).state_dict()
        body = create_backbone(name).body.state_dict()
    assert set(whole) - set(body) == {"fc.weight", "fc.bias"}
    assert all(value.shape == whole[key].shape for key, value in body.items())


def test_weights_that_do_not_exist() -> None:
    with pytest.raises(RuntimeError, match=r"timm has no weights for regnetz_b16_evos"):
        create_backbone("regnetz_b16_evos", pretrained=True)


def test_top_level_names() -> None:
    assert reid_models.create_model is create_model and set(reid_models.list_models()) >= set(NAMES)
