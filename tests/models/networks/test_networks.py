"""Networks: shapes, variants, the paper's parameter counts, compilers, and weights on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import reid_models
from reid_models.networks import (
    create_backbone,
    create_model,
    load_model,
    load_weights,
    measure_complexity,
    save_model,
    weights,
)
from reid_models.papers.hsgnet.network import HSGNET_VARIANTS
from reid_ops import HSGM

SIZE = (64, 32)
IDENTITIES = 5
NAMES = ("baseline", "hsgnet")


def tiny(name: str = "hsgnet", **options: Any) -> Any:
    torch.manual_seed(0)
    return create_model(name, IDENTITIES, **{"backbone": "resnet18", "image_size": SIZE, **options})


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def hsgm_modules(model: nn.Module) -> list[HSGM]:
    return [module for module in model.modules() if isinstance(module, HSGM)]


def randomise_graphs(model: nn.Module) -> None:
    """As if trained, so that the parts of HSGM differ."""
    for module in hsgm_modules(model):
        for parameter in module.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)


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

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        RuntimeError,
        match=r"resnet18 .* no route to host.*pretrained=False .*--model\.options\.pretrained false",
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


def test_saved_and_loaded(tmp_path: Path, images: Tensor) -> None:
    model = tiny(stages=(2, 3), variant="wo_res", hsgm={"neighborhood": ("radius", 2)}, cbr_width=16)
    randomise_graphs(model)
    model(images)  # moves the running statistics
    path = tmp_path / "model.safetensors"
    save_model(model.to(memory_format=torch.channels_last), path)
    loaded = load_model(path)
    assert loaded.training and type(loaded) is type(model) and loaded.options == model.options
    assert hsgm_modules(loaded)[0].neighborhood == ("radius", 2)
    torch.testing.assert_close(loaded.eval()(images), model.eval()(images), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert hsgm_modules(load_model(path, impl="reference"))[0].impl == "reference"
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_weights_of_other_identities(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    source = tiny()
    save_model(source, path)
    model = create_model("hsgnet", 9, backbone="resnet18", image_size=SIZE)
    before = model.head.classifier.weight.clone()
    with pytest.raises(
        ValueError, match=r"another architecture .*head.classifier.weight must have shape \(9, 256\)"
    ):
        load_weights(model, path)
    load_weights(model, path, classifier=False)
    assert torch.equal(model.head.classifier.weight, before)
    assert torch.equal(model.head.cbr[0].weight, source.head.cbr[0].weight)


def test_weights_of_another_architecture_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(tiny("baseline"), path)
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"model.safetensors holds weights of another .*layer3.hsgm.theta is missing"
    ):
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match=r"path must be a file, got .*model.safetensors"):
        load_model(path)
    with pytest.raises(FileNotFoundError, match=r"folder that exists"):
        save_model(tiny(), tmp_path / "none" / "model.safetensors")
    with pytest.raises(TypeError, match=r"model must be one of create_model, got Linear"):
        save_model(nn.Linear(1, 1), path)  # type: ignore[arg-type]
    save_model(tiny(), path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\x80\x04pickled"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.safetensors is damaged or not a safetensors file"):
            load_model(path)
    save_file({"weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"must be a file of save_model"):
        load_model(path)
    save_file({"weight": torch.ones(1)}, path, {"format": "reid_models 1", "model": "{}"})
    with pytest.raises(ValueError, match=r"\('reid_models 3'\), got 'reid_models 1'"):
        load_model(path)
    write_crafted(path, {"name": "resnet", "num_classes": 3, "options": {}})
    with pytest.raises(ValueError, match=r"does not describe a model .*unknown model 'resnet'"):
        load_model(path)
    write_crafted(path, {"name": "baseline", "num_classes": 3, "options": {"pretrained": True}})
    with pytest.raises(ValueError, match=r"does not describe a model \(options must not have pretrained\)"):
        load_model(path)


def write_crafted(path: Path, description: dict[str, Any]) -> None:
    """A file with a valid checksum that says what its writer likes."""
    text, tensors = json.dumps(description), {"weight": torch.ones(1)}
    metadata = {"format": weights.FORMAT, "model": text, "digest": weights._digest(text, tensors)}
    save_file(tensors, path, metadata)


def test_a_small_file_does_not_claim_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = tmp_path / "model.safetensors", []
    write_crafted(path, {"name": "baseline", "num_classes": 2_000_000, "options": {"backbone": "resnet18"}})

    def watched(*arguments: Any, **options: Any) -> Any:
        made.append(model := create_model(*arguments, **options))
        return model

    monkeypatch.setattr(weights, "create_model", watched)
    with pytest.raises(ValueError, match="holds weights of another architecture"):
        load_model(path)
    assert [{value.device.type for value in model.state_dict().values()} for model in made] == [{"meta"}]


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"num_classes": 2**62}, "does not describe a model"),
        ({"num_classes": 10**400}, "does not describe a model"),
        (
            {"options": {"image_size": [10**9, 10**9]}},
            r"image_size must have at most 4194304 pixels, got 10000000",
        ),
    ],
)
def test_claims_beyond_all_sense(claim: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_crafted(path, {"name": "baseline", "num_classes": 3, "options": {"backbone": "resnet18"}} | claim)
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(tiny("baseline"), path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(0, header, 61), *range(header, len(content), len(content) // 40)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            load_model(path)


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(tiny(), path)
    content = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reid_models.networks.weights.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left"):
        save_model(tiny(), path)
    assert path.read_bytes() == content


def test_top_level_names() -> None:
    assert reid_models.create_model is create_model and set(reid_models.list_models()) >= set(NAMES)
