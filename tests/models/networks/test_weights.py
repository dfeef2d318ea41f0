"""Weights and options in one file: saved, loaded, moved to other identities, refused where damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reid_models.networks import (
    create_model,
    load_model,
    load_weights,
    save_model,
    weights,
)

from .network_support import SIZE, hsgm_modules, randomise_graphs, tiny


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))


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
