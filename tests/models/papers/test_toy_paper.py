"""A paper of one's own: a room in a folder, or classes in a module. Nothing else is edited."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from reid_models.cli import main
from reid_models.runs.files import BEST, EVALUATION, LAST

NETWORK = '''
from torch import nn
from reid_models.networks import Network


class Toy(Network):
    """Colours of an image's two halves through a linear layer."""

    name = "toy"

    def __init__(self, num_classes, *, image_size=(32, 32), width=8):
        super().__init__(num_classes, image_size)
        self.options |= {"width": width}
        self.halves = nn.AdaptiveAvgPool2d((2, 1))
        self.reduce = nn.Linear(6, width)
        self.classifier = nn.Linear(width, num_classes)
        self.feature_length = width

    def encode(self, images):
        return self.reduce(self.halves(images).flatten(1))

    def outputs(self, images):
        features = self.encode(images)
        return {"features": features, "logits": self.classifier(features)}

    def layers(self):
        return {"halves": self.halves}

    def classifiers(self):
        return ("classifier",)
'''
LOSSES = '''
import torch
from torch import nn


class ToyCentres(nn.Module):
    """Squared distance to the mean of an identity's features so far: a state."""

    def __init__(self, num_classes, feature_length, *, momentum=0.5):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centres", torch.zeros(num_classes, feature_length))

    def forward(self, features, identities):
        value = (features - self.centres[identities]).square().mean()
        with torch.no_grad():
            for feature, identity in zip(features, identities.tolist()):
                self.centres[identity].lerp_(feature, 1 - self.momentum)
        return value


LOSSES = {"toy_centres": ToyCentres}
'''
SAMPLERS = '''
import numpy as np
from reid_models.data.samplers import TrainSampler


class ToyInOrder(TrainSampler):
    """Images in their order."""

    def __init__(self, identities, *, batch_size=8, **processes):
        super().__init__(
            len(identities), batch_size, 1, "batch_size", {"batch_size": batch_size}, **processes
        )

    def make_batches(self, random):
        whole = self.images // self.batch_size * self.batch_size
        return np.arange(whole).reshape(-1, self.batch_size)


SAMPLERS = {"toy_in_order": ToyInOrder}
'''
DATASETS = '''
from reid_models.data import make_synthetic


def read_toy(*, identities: int = 16):
    """Made-up images."""
    return make_synthetic(identities=identities, cameras=2, images_per_camera=2, size=(32, 32))


READERS = {"toy_images": read_toy}
'''
SCHEDULES = """
from torch.optim.lr_scheduler import LambdaLR


def ramp(optimizer, count_steps, *, steps: int = 4):
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / steps))


RAMP = (ramp, "step")
SCHEDULES = {"toy_ramp": RAMP}
"""
FIGURES = """
from reid_models.report.kinds import FigureKind, FigureOption


def draw(request):
    from reid_models.report.style import new_figure

    networks = request.read_networks()
    figure = new_figure(4, 3)
    axes = figure.add_subplot()
    for name, trained in networks.items():
        weights = trained.model.reduce.weight.detach().flatten()
        axes.hist(weights.numpy(), bins=request.options["bins"], label=name)
    return figure


WEIGHTS = FigureKind("weights of toys", draw, options=(FigureOption("bins", int, "of the histogram", 10),))
FIGURES = {"toy_weights": WEIGHTS}
"""
RECIPES = """
paper: 'Toy: colours of halves'
base:
  seed_everything: 0
  model:
    network: toy
    options: {width: 6}
    losses:
      - {loss: toy_centres, output: features, weight: 0.5, options: {momentum: 0.8}}
      - {loss: cross_entropy, output: logits}
    optimizer: {name: SGD, lr: 0.1}
    schedule: {name: toy_ramp, steps: 3}
  data:
    dataset: toy_images
    root: null
    dataset_options: {identities: 12}
    image_size: [32, 32]
    sampler: {name: toy_in_order, batch_size: 8}
    augmentation: {flip: 0.0, erase: null}
    workers: 0
  trainer:
    {max_epochs: 2, accelerator: cpu, log_every_n_steps: 1, enable_progress_bar: false,
     enable_model_summary: false}
parts: {wide: {model: {options: {width: 9}}}}
recipes:
  toy_run: {title: 'Toy', parts: [], source: 'Table 1', targets: {rank1: 50.0, joules: 3}}
  toy_wide: {title: 'Toy, wider', parts: [wide], source: 'Table 1'}
tables:
  - {title: 'Toy, Table 1', rows: [toy_run, toy_wide]}
"""
ROOM = {
    "network.py": NETWORK, "losses.py": LOSSES, "samplers.py": SAMPLERS, "datasets.py": DATASETS,
    "schedules.py": SCHEDULES, "figures.py": FIGURES, "recipes.yaml": RECIPES,
}  # fmt: skip
#: The same things named by where they are.
OWN = {
    "network: toy": "network: own_paper:Toy", "toy_centres": "own_paper:ToyCentres",
    "toy_ramp": "own_paper:RAMP", "toy_images": "own_paper:read_toy", "toy_in_order": "own_paper:ToyInOrder",
}  # fmt: skip


@pytest.fixture(scope="module", params=["room", "module"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A run of the toy, with the words that name its recipe, its dataset and its figure."""
    folder = tmp_path_factory.mktemp("toy")
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "room":
            (folder / "papers" / "toy").mkdir(parents=True)
            for name, text in ROOM.items():
                (folder / "papers" / "toy" / name).write_text(text)
            patch.setenv("REID_MODELS_PAPERS", str(folder / "papers"))
            words = {
                "recipe": "toy_run",
                "dataset": "toy_images",
                "figure": ["toy_weights"],
                "bins": ["--bins", "5"],
            }
        else:
            (folder / "own_paper.py").write_text(
                "".join(ROOM[name] for name in ROOM if name != "recipes.yaml")
            )
            patch.syspath_prepend(folder)
            (folder / "own.yaml").write_text(own_recipe())
            words = {
                "recipe": str(folder / "own.yaml"),
                "dataset": "own_paper:read_toy",
                "figure": ["own_paper:WEIGHTS"],
                "bins": ["--set.bins", "5"],
            }
        assert main(["train", words["recipe"], "--runs", str(folder / "runs"), "--name", "toy"]) == 0
        yield {**words, "run": folder / "runs" / "toy"}
    for name in set(sys.modules) - before:
        if name.startswith(("reid_models.papers.toy", "own_paper")):
            del sys.modules[name]


def own_recipe() -> str:
    """The base of the recipes as a file of settings."""
    text = RECIPES[RECIPES.index("base:\n") + 6 : RECIPES.index("parts:")]
    lines = [line[2:] for line in text.splitlines()]
    settings = "\n".join(lines)
    for name, own in OWN.items():
        settings = settings.replace(name, own)
    return settings


def test_it_trained(made: dict[str, Any]) -> None:
    state = torch.load(made["run"] / LAST, weights_only=True)["state_dict"]
    (centres,) = (value for key, value in state.items() if key.endswith(".centres"))
    assert centres.shape == (6, 6) and centres.any(dim=1).all()  # 12 identities, half of them for training
    columns = (made["run"] / "metrics.csv").read_text().splitlines()[0]
    assert "(features)" in columns and "step/cross_entropy(logits)" in columns


def test_it_goes_on(made: dict[str, Any], tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path), "--name", "toy"]
    assert main(["train", made["recipe"], *runs, "--trainer.max_epochs", "1"]) == 0
    assert main(["train", made["recipe"], *runs, "--resume"]) == 0
    one, other = (torch.load(path / LAST, weights_only=True) for path in (made["run"], tmp_path / "toy"))
    for key, value in one["state_dict"].items():
        if not key.startswith("means."):
            assert torch.equal(value, other["state_dict"][key]), key


def test_it_is_evaluated(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(made["run"]), "--device", "cpu", "--workers", "0"]) == 0
    found = json.loads((made["run"] / EVALUATION).read_text())
    assert set(found) >= {"plain", "reranked"} and 0 < found["plain"]["mAP"] <= 1
    capsys.readouterr()
    assert main(["datasets", made["dataset"], "--options.identities", "12"]) == 0
    assert "train_identities" in capsys.readouterr().out


def test_it_searches(made: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features, index = tmp_path / "features", tmp_path / "toy.index"
    quick = ["--device", "cpu", "--workers", "0"]
    words = ["--dataset", made["dataset"], "--options.identities", "12", "--model", str(made["run"] / BEST)]
    assert main(["extract", *words, "--output", str(features), *quick]) == 0
    assert main(["index", str(features / "gallery.safetensors"), "--output", str(index), *quick]) == 0
    capsys.readouterr()
    query = str(features / "query.safetensors")
    assert main(["search", query, "--index", str(index), "-k", "3", "--json", *quick]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["queries"]) == 12 and all(len(one["matches"]) == 3 for one in found["queries"])


def test_it_is_drawn_and_reported(made: dict[str, Any], tmp_path: Path) -> None:
    run, page = str(made["run"]), tmp_path / "report.html"
    assert main(["visualize", *made["figure"], run, *made["bins"], "--output", str(tmp_path / "w.png")]) == 0
    with Image.open(tmp_path / "w.png") as image:
        assert min(image.size) > 100
    quick = ["--count", "1", "--top", "3", "--device", "cpu", "--workers", "0"]
    assert main(["visualize", "report", run, *quick, "--output", str(page)]) == 0
    text = page.read_text()
    assert "Where the networks look" in text and "Ranked lists" in text


def test_it_is_listed(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    if made["recipe"] != "toy_run":
        pytest.skip("a module of one's own is not listed")
    for words in (["recipes"], ["datasets"], ["visualize", "--help"]):
        assert main(words) == 0
        assert "toy_" in capsys.readouterr().out
    assert main(["recipes", "--table", "--runs", str(made["run"].parent)]) == 0
    shown = capsys.readouterr().out
    assert "Toy, Table 1" in shown and "joules, paper" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.network", "own_paper:Toi"], 'did you mean "Toy"'),
        (["--model.network", "no_such_paper:Toy"], "no_such_paper does not import (ModuleNotFoundError"),
        (
            ["--model.network", "json:JSONDecoder"],
            "must be a class derived from reid_models.networks.network.Net",
        ),
        (["--model.schedule.name", "json:loads"], 'must be a pair of a function and "epoch" or "step"'),
        (["--data.sampler.name", "json:JSONDecoder"], "must be a class derived from"),
        (["--data.dataset", "json:nothing"], "unknown name in json of the dataset 'json:nothing'"),
        (["--data.metric", "match"], 'metric "match" needs a network that compares pairs'),
        (
            ["--model.losses", "[{loss: cross_entropy, output: logit}]"],
            "must have 'logit' for cross_entropy(logit), got features, logits",
        ),
        (["--model.losses", "[{loss: 'json:Nothing', output: logits}]"], "unknown name in json of the loss"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(
    made: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    if made["recipe"] == "toy_run":
        words = [word.replace("own_paper:", "reid_models.papers.toy.network:") for word in words]
    assert main(["train", made["recipe"], "--runs", str(tmp_path / "none"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "none").exists()
