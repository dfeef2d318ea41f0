"""Models by a word: how it is read, shown and remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid_models.runs.folders import name_paths
from reid_models.runs.specs import TimmSpec, is_spec, spec_label


def test_parts() -> None:
    assert TimmSpec.parse("timm:resnet50") == TimmSpec("resnet50")
    whole = TimmSpec.parse("timm:resnet50.a1_in1k+gem+256x128@weights/a+b@c.pth")
    assert whole == TimmSpec("resnet50.a1_in1k", "gem", (256, 128), Path("weights/a+b@c.pth"))


@pytest.mark.parametrize("spec", ["timm:vit_tiny", "timm:vit_tiny+gmp", "timm:vit_tiny+64x32@/w.pth"])
def test_words_come_back(spec: str) -> None:
    assert str(TimmSpec.parse(spec)) == spec


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(TimmSpec.parse("timm:a@w.pth")) == f"timm:a@{tmp_path.resolve() / 'w.pth'}"


@pytest.mark.parametrize("spec", ["timm:", "timm:@file", "timm:name@", "timm:name+mean", "timm:name+0x3"])
def test_other_forms(spec: str) -> None:
    with pytest.raises(ValueError, match=r"model must be timm:NAME|what follows \+ in timm:NAME must be"):
        TimmSpec.parse(spec)


def test_shown() -> None:
    assert [is_spec(word) for word in ("timm:a", "onnx:a", "runs/timm", "a.onnx")] == [
        True,
        True,
        False,
        False,
    ]
    assert spec_label("timm:a+gem@/x/y.pth") == "a+gem" and spec_label("onnx:/x/y.onnx") == "y"
    named = name_paths(["timm:a@/x/y.pth", "onnx:/x/z.onnx", "B=timm:b"])
    assert {name: str(path) for name, path in named.items()} == {
        "a": "timm:a@/x/y.pth",
        "z": "onnx:/x/z.onnx",
        "B": "timm:b",
    }
    with pytest.raises(ValueError, match="'a' comes twice"):
        name_paths(["timm:a@/x/y.pth", "timm:a@/x/z.pth"])
