"""Names: built in, of papers' rooms and of one's own modules; a clear line for what is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reid_models import create_model, list_models, load_model, save_model
from reid_models._registry import Registry, rooms, table
from reid_models.networks.registry import MODELS, model_name

ROOT = Path(__file__).parents[2]

NETWORK = '''
from torch import nn
from reid_models.networks import Network
from {other} import LENGTH

class Mean(Network):
    """The mean colour."""
    name, feature_length = "{name}", LENGTH

    def __init__(self, num_classes, *, image_size=(8, 8), bias=True):
        super().__init__(num_classes, image_size)
        self.options |= {{"bias": bias}}
        self.classifier = nn.Linear(LENGTH, num_classes, bias=bias)

    def encode(self, images):
        return images.mean((2, 3))

    def outputs(self, images):
        features = self.encode(images)
        return {{"features": features, "logits": self.classifier(features)}}

    def classifiers(self):
        return ("classifier",)
'''


@pytest.fixture
def papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes rooms into a folder that REID_MODELS_PAPERS lists; forgets their modules at the end."""
    before = set(sys.modules)

    def add(room: str, **files: str) -> Path:
        folder = tmp_path / "papers" / room
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.setenv("REID_MODELS_PAPERS", str(folder.parent))
        return folder

    yield add
    for name in set(sys.modules) - before:
        if ".papers." in name:
            del sys.modules[name]


def test_a_room_is_there_by_being_there(papers: Callable[..., Path], tmp_path: Path) -> None:
    assert "mean_colour" not in list_models()
    papers("toy", network=NETWORK.format(name="mean_colour", other=".sizes"), sizes="LENGTH = 3\n")
    assert {"baseline", "hsgnet", "mean_colour"} <= set(list_models())
    model = create_model("mean_colour", 4, bias=False)
    assert type(model).__module__ == "reid_models.papers.toy.network" and model_name(model) == "mean_colour"
    save_model(model, tmp_path / "toy.safetensors")
    assert load_model(tmp_path / "toy.safetensors").options == model.options == {
        "image_size": [8, 8], "bias": False
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"unknown model 'mean_color'; did you mean \"mean_colour\""):
        create_model("mean_color", 4)
    with pytest.raises(ValueError, match=r"unknown option of mean_colour 'bia'; did you mean \"bias\""):
        create_model("mean_colour", 4, bia=False)


def test_a_class_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_sizes.py").write_text("LENGTH = 3\n")
    (tmp_path / "own_networks.py").write_text(NETWORK.format(name="baseline", other="own_sizes"))
    monkeypatch.syspath_prepend(tmp_path)
    model = create_model("own_networks:Mean", 4, bias=False)
    assert model_name(model) == "own_networks:Mean"  # not its name, which is another network's
    save_model(model, tmp_path / "own.safetensors")
    assert type(load_model(tmp_path / "own.safetensors")) is type(model)


def test_names_that_do_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_network.py").write_text("1 / 0\n")
    (tmp_path / "other_things.py").write_text("class Near: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, message in (
        (
            "nowhere.at_all:Net",
            r"model 'nowhere.at_all:Net': nowhere.at_all does not import .*No module named",
        ),
        ("broken_network:Net", r"broken_network does not import \(ZeroDivisionError: division by zero\)"),
        ("other_things:Nea", r"unknown name in other_things of the model .*did you mean \"Near\""),
        ("other things:Net", r"model must be a name or package.module:Name, got 'other things:Net'"),
        ("other_things:", r"model must be a name or package.module:Name"),
    ):
        with pytest.raises(ValueError, match=message):
            create_model(name, 4)
    with pytest.raises(TypeError, match=r"model 'other_things:Near' must be a class derived from .*Network"):
        create_model("other_things:Near", 4)


def test_rooms_that_can_not_be_used(
    papers: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = papers("twice", network="class Baseline: pass\n")
    assert "baseline" in list_models()  # a class that is no network is none
    (folder / "network.py").write_text("import nothing_of_the_kind\n")
    sys.modules.pop("reid_models.papers.twice.network")
    with pytest.raises(ValueError, match=r"the room .*twice: .*twice.network does not import .*nothing_of"):
        list_models()
    assert create_model("baseline", 4, backbone="resnet10t")  # what is built in needs no room
    for listed, message in (
        (tmp_path / "none", "REID_MODELS_PAPERS must list folders of rooms, got .*none"),
        (folder, "must list folders of rooms, got the room .*twice: list its parent"),
    ):
        monkeypatch.setenv("REID_MODELS_PAPERS", str(listed))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            rooms()
    (tmp_path / "more" / "hsgnet").mkdir(parents=True)
    monkeypatch.setenv("REID_MODELS_PAPERS", str(tmp_path / "more"))
    with pytest.raises(ValueError, match="two rooms are called hsgnet"):
        rooms()


def test_a_name_belongs_to_one(papers: Callable[..., Path]) -> None:
    network = NETWORK.format(name="hsgnet", other=".sizes")
    papers("toy", network=network, sizes="LENGTH = 3\n")
    with pytest.raises(ValueError, match="model 'hsgnet' is in the room hsgnet and in the room toy"):
        list_models()


def test_tables_of_rooms(papers: Callable[..., Path]) -> None:
    def check(thing: object) -> None:
        if not callable(thing):
            raise TypeError(f"must be callable, got {thing!r}")

    things: Registry[Any] = Registry("thing", {"len": len}, "things", table("THINGS"), check)
    assert list(things) == ["len"] and things.find("len") is len and things.find("math:sqrt")(4) == 2
    papers("toy", things="THINGS = {'double': lambda x: 2 * x}\n")
    assert list(things) == ["double", "len"] and things.find("double")(2) == 4 and "doubl" not in things
    papers("wrong", things="THINGS = {'three': 3}\n")
    with pytest.raises(TypeError, match="thing 'three' of the room wrong must be callable, got 3"):
        things.find("three")
    papers("wrong", things="THINGS = [3]\n")
    sys.modules.pop("reid_models.papers.wrong.things")
    with pytest.raises(TypeError, match=r"wrong.things.py must have THINGS, a mapping from names, got \[3\]"):
        list(things)
    papers("wrong", things="SOMETHING = 3\n")
    sys.modules.pop("reid_models.papers.wrong.things")
    assert list(things) == ["double", "len"]


def test_looking_a_name_up_imports_no_room() -> None:
    program = (
        "import sys, reid_models; from reid_models.networks.registry import MODELS; MODELS.find('baseline'); "
        "assert not [name for name in sys.modules if name.startswith('reid_models.papers.')]"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'models'}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert "hsgnet" in MODELS
