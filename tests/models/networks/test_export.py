"""Networks outside of plain PyTorch: ONNX files, and compiling, half precision and channels-last at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reid_models.networks import create_model, export_onnx
from reid_ops import HSGM

SIZE = (64, 32)
# Few maps, since the exporter takes its time over each; their graphs have all the parts of the paper's.
SMALL: dict[str, Any] = {"hsgm": {"levels": (1, 2), "scales": (2,)}}


def tiny(name: str = "hsgnet", **options: Any) -> Any:
    torch.manual_seed(0)
    if name == "hsgnet":
        options = {**SMALL, **options}
    model = create_model(name, 5, **{"backbone": "test_resnet", "image_size": SIZE, **options})
    for module in model.modules():  # as if trained
        if isinstance(module, HSGM):
            for parameter in module.parameters():
                nn.init.uniform_(parameter, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return model


def some_images(count: int) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(count))


@pytest.mark.slow  # the exporter takes its time over every operation
@pytest.mark.parametrize(
    ("name", "options"), [("hsgnet", {}), ("baseline", {"backbone": "resnet10t", "test_feature": "cbr"})]
)
def test_onnx_gives_the_features(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = tiny(name, **options).to(memory_format=torch.channels_last)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    path = tmp_path / "model.onnx"
    path.write_text("an older file")
    export_onnx(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:], found.name) == ("images", [3, *SIZE], "features")
    assert isinstance(given.shape[0], str) and found.shape[1] == model.feature_length
    description = json.loads(session.get_modelmeta().custom_metadata_map["model"])
    assert description == {"name": name, "options": json.loads(json.dumps(model.options))}
    # The model is as it was, fused and in training mode.
    assert model.training and all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(module.impl == "fused" for module in model.modules() if isinstance(module, HSGM))
    model.eval()
    for count in (1, 2, 5):
        images = some_images(count)
        with torch.no_grad():
            expected = model(images)
        result = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
        assert result.std() > 1e-2  # features that differ


def test_a_failed_export_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("an older file")

    class Program:
        class model:
            metadata_props: dict[str, str] = {}  # noqa: RUF012

        def save(self, name: Path, external_data: bool) -> None:
            name.write_text("half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    with pytest.raises(OSError, match="No space left"):
        export_onnx(tiny(), path)
    assert path.read_text() == "an older file" and len(list(tmp_path.iterdir())) == 1


def test_onnx_errors(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model must be one of create_model, got Linear"):
        export_onnx(nn.Linear(1, 1), tmp_path / "model.onnx")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="path must be in a folder that exists"):
        export_onnx(tiny(), tmp_path / "none" / "model.onnx")


@pytest.mark.parametrize("training", [False, True])
def test_compiled_in_half_precision_and_channels_last(training: bool) -> None:
    model = tiny().train(training).to(memory_format=torch.channels_last)
    images = some_images(4).to(memory_format=torch.channels_last)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    def features(network: Any) -> Tensor:
        with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
            outputs = network(images)
        result: Tensor = (outputs["features"] if training else outputs).float()
        return result

    expected, found = features(model), features(compiled)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    if training:
        found.square().sum().backward()
        gradients = {key: p.grad for key, p in model.named_parameters() if key.startswith("backbone")}
        assert all(grad is not None and grad.isfinite().all() for grad in gradients.values())
        assert all(
            grad.abs().sum() > 0 for key, grad in gradients.items() if grad is not None and "hsgm" in key
        )


def test_channels_last_trains_to_the_same_gradients() -> None:
    plain, other = tiny().double(), tiny().double().to(memory_format=torch.channels_last)
    images = some_images(4).double()
    plain(images)["features"].square().sum().backward()
    other(images.to(memory_format=torch.channels_last))["features"].square().sum().backward()
    for (key, a), b in zip(plain.named_parameters(), other.parameters(), strict=True):
        if key.startswith("backbone"):
            assert a.grad is not None and b.grad is not None
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-9, msg=key)
