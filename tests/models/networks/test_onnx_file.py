"""ONNX files as networks: our own and those of other programs."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]

from reid_models import create_model, save_model
from reid_models.cli import main
from reid_models.networks import export_onnx
from reid_models.networks.onnx_file import OnnxNetwork
from reid_models.retrieval.extraction import fingerprint
from reid_models.runs.models import load_trained

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def write(path: Path, shape: list[Any], *, kind: int = 1, output: str = "out", reduce: bool = True) -> Path:
    """A file of another program: each channel's maximum, and twice it."""
    from onnx import helper

    given = helper.make_tensor_value_info("pixels", kind, shape)
    found = helper.make_tensor_value_info(output, kind, None)
    nodes = [helper.make_node("GlobalMaxPool", ["pixels"], ["pooled"])]
    if reduce:
        nodes += [
            helper.make_node("Add", ["pooled", "pooled"], ["twice"]),
            helper.make_node("Concat", ["pooled", "twice"], [output], axis=1),
        ]
    else:
        nodes += [helper.make_node("ReduceMax", ["pooled"], [output], keepdims=0)]
    graph = helper.make_graph(nodes, "maximum", [given], [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def expected(images: torch.Tensor) -> torch.Tensor:
    pooled = images.amax((2, 3))
    return torch.cat([pooled, 2 * pooled], 1)


@pytest.mark.parametrize("batch", ["N", 3])
def test_a_file_of_another_program(batch: Any, tmp_path: Path) -> None:
    model = OnnxNetwork(write(tmp_path / "m.onnx", [batch, 3, 24, 16])).eval()
    assert (model.image_size, model.fixed_size, model.feature_length) == ((24, 16), True, 6)
    for count in (1, 2, 3, 7):
        images = torch.rand(count, 3, 24, 16)
        assert torch.equal(model(images), expected(images))
    with pytest.raises(ValueError, match=r"must have the image_size \(24, 16\)"):
        model(torch.rand(1, 3, 24, 24))
    with pytest.raises(ValueError, match="can't be trained"):
        model.train()(torch.rand(1, 3, 24, 16))
    with pytest.raises(TypeError, match="save_model: model must be"):
        save_model(model, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="must not be of an ONNX file already"):
        export_onnx(model, tmp_path / "again.onnx")


def test_half_precision_and_autocast(tmp_path: Path) -> None:
    model = OnnxNetwork(write(tmp_path / "half.onnx", ["N", 3, 8, 8], kind=onnx.TensorProto.FLOAT16)).eval()
    images = torch.rand(2, 3, 8, 8)
    assert model(images).dtype == torch.float32
    torch.testing.assert_close(model(images), expected(images.half()).float())
    with torch.autocast("cpu"), pytest.raises(ValueError, match="autocast must be off"):
        model(images)


def test_size_and_statistics_come_from_a_recipe_beside_it(tmp_path: Path) -> None:
    file = write(tmp_path / "m.onnx", ["N", 3, "H", "W"])
    with pytest.raises(ValueError, match="leaves the size of its images open"):
        load_trained(f"onnx:{file}")
    data = {"image_size": [24, 16], "augmentation": {"mean": [0.1, 0.2, 0.3], "channels": "bgr"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"data": data}))
    trained = load_trained(f"onnx:{file}")
    assert trained.extraction["image_size"] == (24, 16)
    augmentation = trained.extraction["augmentation"]
    assert (augmentation.mean, augmentation.channels) == ((0.1, 0.2, 0.3), "bgr")
    assert trained.path == f"onnx:{file}" and not trained.model.fixed_size


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not ONNX")
    with pytest.raises(ValueError, match=r"text\.onnx is damaged or not an ONNX file"):
        OnnxNetwork(tmp_path / "text.onnx")
    with pytest.raises(FileNotFoundError, match=r"onnx: must be followed by a file, got .*none\.onnx"):
        load_trained(f"onnx:{tmp_path / 'none.onnx'}")
    for shape in ([1, 1, 8, 8], ["N", 3, 8]):
        with pytest.raises(ValueError, match=r"must have one input, images \(N, 3, H, W\)|is damaged"):
            OnnxNetwork(write(tmp_path / "m.onnx", shape))
    with pytest.raises(ValueError, match="must have a row"):
        OnnxNetwork(write(tmp_path / "m.onnx", ["N", 3, 8, 8], reduce=False))


def test_without_onnxruntime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "m.onnx", ["N", 3, 8, 8])
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ModuleNotFoundError, match=r'needs the package onnxruntime: pip install "reid-ops\[onnx\]"'
    ):
        load_trained(f"onnx:{file}")
    (tmp_path / "images").mkdir()
    words = ["evaluate", f"onnx:{file}", "--dataset", "synthetic"]
    assert main(words) == 2
    assert 'needs the package onnxruntime: pip install "reid-ops[onnx]"' in capsys.readouterr().err


@pytest.mark.slow  # the exporter takes its time over every operation
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_export_and_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reid export`, then `onnx:FILE`: the same features at every batch size, images made in the same way."""
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_model(create_model("embedding", 4, backbone=name, image_size=(64, 32)), "m.safetensors")
    mean = [0.5, 0.4, 0.3]
    recipe = {"data": {"augmentation": {"mean": mean, "channels": "bgr", "flip": 0.1}}}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["export", "m.safetensors", "--output", "m.onnx"]) == 0
    Path("recipe.yaml").unlink()
    Path("elsewhere").mkdir()
    Path("m.onnx").rename("elsewhere/m.onnx")
    back, first = load_trained("onnx:elsewhere/m.onnx"), load_trained("m.safetensors")
    assert back.extraction["augmentation"].mean == tuple(mean)
    assert back.extraction["augmentation"].channels == "bgr"
    assert back.extraction["image_size"] == (64, 32)
    model, own = first.model.eval(), back.model.eval()
    whole = torch.rand(100, 3, 64, 32)
    with torch.no_grad():
        for count in (1, 2, 14, 100):
            torch.testing.assert_close(own(whole[:count]), model(whole[:count]), rtol=1e-4, atol=1e-4)
        alone = torch.cat([own(row[None]) for row in whole[:5]])
    torch.testing.assert_close(alone, own(whole[:5]), rtol=1e-4, atol=1e-5)
    assert fingerprint(own) == fingerprint(load_trained("onnx:elsewhere/m.onnx").model)
    for words in (["m.safetensors", "--output", "m.pt"], ["onnx:m.onnx", "--output", "n.onnx"]):
        assert main(["export", *words]) == 2
    assert not np.any([Path(name).exists() for name in ("m.pt", "n.onnx")])
