"""Short names of settings: what people type first leads where they mean."""

from __future__ import annotations

from typing import Any

import pytest

from reid_models.cli import main
from reid_models.training.configuration import make_parser, read_configuration
from reid_models.training.short import SETTINGS, SHORT, described, lengthened

RECIPE = {"data": {"dataset": "synthetic"}}
VALUES: dict[str, tuple[str, Any]] = {
    "--root": ("images", "images"),
    "--dataset": ("folder", "folder"),
    "--name": ("mine", "mine"),
    "--epochs": ("3", 3),
    "--lr": ("0.01", 0.01),
    "--backbone": ("resnet18", "resnet18"),
    "--pretrained": ("false", False),
    "--image-size": ("[64,32]", [64, 32]),
    "--precision": ("bf16-mixed", "bf16-mixed"),
    "--workers": ("0", 0),
    "--seed": ("7", 7),
    "--devices": ("1", 1),
    "--gpus": ("1", 1),
    "--max-epochs": ("3", 3),
    "--learning-rate": ("0.01", 0.01),
    "--weight-decay": ("0.1", 0.1),
    "--network": ("hcn", "hcn"),
    "--num-workers": ("0", 0),
}


def test_every_short_option_is_a_setting() -> None:
    assert set(SETTINGS) == set(VALUES)
    parser = make_parser()
    for option, (word, value) in VALUES.items():
        for words in (
            [option, word],
            [f"{option}={word}"],
            [option.replace("-", "_").replace("__", "--"), word],
        ):
            found: Any = read_configuration(parser, RECIPE, lengthened(words))
            for key in SETTINGS[option].split("."):
                found = found[key]
            # A number of devices may stay a text: its type is of both.
            assert str(list(found) if isinstance(found, tuple) else found) == str(value), (words, found)


@pytest.mark.parametrize("option", ["--batch-size", "--batch_size=64", "--batch"])
def test_a_batch_is_identities_with_images(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "own_recipe.yaml", option, "64"]) == 2
    said = capsys.readouterr().err
    assert "--data.sampler.identities_per_batch N --data.sampler.images_per_identity K" in said
    assert said.count("\n") == 1


def test_other_words_stay() -> None:
    words = ["recipe", "--data.root", "--epochs.x", "-k", "--model.options.lr=3", "epochs"]
    assert lengthened(words) == words


def test_help_opens_with_what_people_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    assert len(SHORT) == 10 and described() in said
    assert said.index("--epochs N") < said.index("positional arguments")
