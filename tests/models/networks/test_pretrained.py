"""Weights of timm's networks: from files, from the hub, and what is said where there are none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from reid_models.networks import create_model
from reid_models.networks.backbone import create_backbone
from reid_models.networks.pretrained import create_timm


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    found: dict[str, torch.Tensor] = timm.create_model("test_resnet").state_dict()
    return found


def same(network: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped"])
def test_a_file_of_weights(kind: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(state, file)
    else:
        prefixed = {f"module.{key}": value for key, value in state.items()}
        torch.save({"state_dict": prefixed} if kind == "wrapped" else state, file)
    network = create_timm("test_resnet", file, owner="test")
    assert same(network, state)
    assert all("state_dict" not in vars(network)[name] for name in ("pretrained_cfg", "default_cfg"))
    body = create_backbone("test_resnet", pretrained=file, last_stride=2).body
    assert same(body, state)


def test_other_classes_or_none(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Files of fine-tuned networks have a classifier of their own, or no classifier."""
    others = {key: value[:7].clone() if key.startswith("fc.") else value for key, value in state.items()}
    without = {key: value for key, value in state.items() if not key.startswith("fc.")}
    for name, values in (("others", others), ("without", without)):
        torch.save(values, tmp_path / name)
        assert same(create_timm("test_resnet", str(tmp_path / name), owner="test"), state)


def test_tokens_of_another_size(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_vit").state_dict()
    torch.save(state, tmp_path / "vit.pth")
    network: Any = create_timm("test_vit", tmp_path / "vit.pth", owner="test", img_size=(64, 32))
    assert network.pos_embed.shape[1] < state["pos_embed"].shape[1]
    assert torch.equal(network.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize("name", ["baseline", "hsgnet", "hcn", "henet", "hybrid_attention", "embedding"])
def test_every_network_takes_a_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    weights = timm.create_model("resnet10t").state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    options = {"backbone": "resnet10t", "image_size": (64, 64), "pretrained": str(tmp_path / "weights.pth")}
    if name == "hcn":
        options["image_size"] = (224, 224)
    if name == "hybrid_attention":
        options["image_size"] = (96, 48)
    if name == "henet":
        options["recovery"] = None
    model = create_model(name, 3, **options)
    wanted = weights["layer1.0.conv1.weight"]
    assert any(value.shape == wanted.shape and torch.equal(value, wanted) for value in model.parameters())
    assert "pretrained" not in model.options


class Code:
    def __reduce__(self) -> Any:
        return print, ("code was run",)


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    (tmp_path / "text.safetensors").write_text("weights")
    torch.save({"state_dict": state, "more": Code()}, tmp_path / "code.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("cut.pth", "text.safetensors", "code.pth", "numbers.pth", "list.pth"):
        with pytest.raises(ValueError, match=rf"test: .*{name} (is damaged or not|must hold a state dict)"):
            create_timm("test_resnet", tmp_path / name, owner="test")
    assert "code was run" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"whole.pth does not hold the weights of resnet10t in timm's keys"):
        create_timm("resnet10t", tmp_path / "whole.pth", owner="test")
    del state["layer4.0.conv1.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    for function in (create_backbone, lambda name, pretrained: create_timm(name, pretrained, owner="test")):
        with pytest.raises(ValueError, match=r"layer4\.0\.conv1\.weight"):
            function("test_resnet", pretrained=tmp_path / "lacking.pth")
    with pytest.raises(
        FileNotFoundError, match=r"pretrained must be True, False or a file of weights, got nofile"
    ):
        create_timm("test_resnet", "nofile.pth", owner="test")
    with pytest.raises(TypeError, match="pretrained must be True, False or a file, got int"):
        create_timm("test_resnet", 3, owner="test")  # type: ignore[arg-type]


def test_no_network_is_known_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's own client tries for most of a minute."""
    asked: list[Any] = []

    def unreachable(url: str, **options: Any) -> None:
        asked.append((url, options))
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    started = time.monotonic()
    for make in (create_backbone, lambda name, pretrained: create_timm(name, pretrained, owner="test")):
        with pytest.raises(
            RuntimeError, match=r"of resnet18 could not be fetched .*known.* give a file of them"
        ):
            make("resnet18", pretrained=True)
    assert time.monotonic() - started < 5 and len(asked) == 2
    assert asked[0][1]["timeout"] <= 5 and "resnet18" in asked[0][0]
    with pytest.raises(RuntimeError, match="timm has no weights for regnetz_b16_evos"):
        create_timm("regnetz_b16_evos", True, owner="test")
