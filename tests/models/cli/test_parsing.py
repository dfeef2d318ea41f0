"""How words are read: options may stand before, between and behind the others."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from reid_models import cli
from reid_models.cli.command import Command
from reid_models.cli.parsing import make_parser, read, separate


def command(name: str) -> Command:
    found: Command = importlib.import_module(f"reid_models.cli.{name}").COMMAND
    return found


@pytest.mark.parametrize(
    ("name", "ordered", "mixed"),
    [
        ("visualize", "ranks a b --top 3 --output r.png", "ranks --top 3 a --output r.png b"),
        ("visualize", "ranks a b --top=3 --output r.png", "--output r.png ranks a --top=3 b"),
        ("visualize", "cam a --layer x --output r.png", "cam --layer x --output r.png a"),
        ("visualize", "toy a --set.bins 3 --output r.png", "toy --set.bins 3 --output r.png a"),
        ("visualize", "curves --rerank a --output r.png", "curves a --output r.png --rerank"),
        ("search", "a b --index i --count 3", "a --index i b --count 3"),
        ("search", "a b --index i --count 3", "--index i a --count 3 b"),
        ("index", "a b --model m --output f", "a --model m b --output f"),
        ("extract", "a b --model m --output f", "--model m a --output f b"),
        ("evaluate", "a --dataset d --options.size 3", "--dataset d --options.size 3 a"),
        ("rerank", "q g --output f --lambda 0.5", "--lambda 0.5 q --output f g"),
        ("datasets", "d --options.size 3", "--options.size 3 d"),
        ("recipes", "r", "r"),
    ],
)
def test_words_of_a_command_come_in_any_order(name: str, ordered: str, mixed: str) -> None:
    assert read(command(name), mixed.split()) == read(command(name), ordered.split())


def test_no_command_is_left_out() -> None:
    """Commands that read their own words say how below; the others are above."""
    assert {name for name in cli.COMMANDS if command(name).passes_on} == {"train", "benchmark"}


def test_the_words_of_no_option() -> None:
    parser = make_parser(command("extract"))
    for words, plain in (
        ("a --split query gallery --flip b", ["a", "b"]),
        ("a --batch-size -1 -2", ["a", "-2"]),
        ("- --split=query b", ["-", "b"]),
        ("--unknown a b", ["b"]),  # one that is misspelt has its value
        ("--options.size 3 a --options {} b", ["a", "b"]),
    ):
        found = separate(parser, words.split())
        assert found[0] == plain and sorted([*found[0], *found[1]]) == sorted(words.split())


def test_settings_may_come_before_the_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given: list[Any] = []

    def train(recipe: Any, words: list[str]) -> Path:
        given.append((recipe["name"], words))
        return tmp_path

    monkeypatch.setattr("reid_models.training.train.train", train)
    for words in (
        "synthetic_smoke --resume --data.workers 0",
        "--resume synthetic_smoke --data.workers 0",
        "--resume --data.workers 0 synthetic_smoke",
    ):
        assert cli.main(["train", *words.split()]) == 0
    assert given == [("synthetic_smoke", ["--resume", "--data.workers", "0"])] * 3
    assert cli.main(["train", "--resume"]) == 2
    assert "RECIPE must be given" in capsys.readouterr().err
