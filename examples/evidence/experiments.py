"""What the papers' evidence shares: runs over seeds, means and deviations, the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import reid_ops
from reid_models.data import ReidDataset
from reid_models.recipes.registry import merged
from reid_models.report import describe_machine
from reid_models.runs.models import Trained, load_trained
from reid_models.training.train import train

#: Settings of all runs, from scratch on the built-in images: a small trunk, ink on paper, one cycle.
BASE: Mapping[str, Any] = {
    "model": {
        "options": {"backbone": "resnet10t"},
        "optimizer": {"name": "AdamW", "lr": 0.003, "weight_decay": 0.05},
        "schedule": {"name": "one_cycle"},
    },
    "data": {
        "dataset": "omniglot",
        "image_size": [64, 64],
        "augmentation": {
            "flip": 0.0,
            "erase": None,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "affine": {
                "degrees": 10,
                "translate": [0.08, 0.08],
                "scale": [0.9, 1.1],
                "shear": 8,
                "fill": 255,
            },
        },
        "workers": 0,
    },
    "trainer": {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"},
}


def train_small(folder: Path, name: str, settings: Mapping[str, Any], *, steps: int, seed: int) -> Trained:
    """A network trained from scratch on the built-in images for a number of steps, judged at their end.

    Args:
        folder: of run folders.
        name: of this one.
        settings: over :data:`BASE`, as in a recipe.
        steps: of the optimizer.
        seed: of weights, batches and augmentation.
    """
    trainer = {
        "max_epochs": -1,
        "max_steps": steps,
        "check_val_every_n_epoch": None,
        "val_check_interval": steps,
    }
    config = merged(merged(BASE, settings), {"seed_everything": seed, "trainer": trainer})
    return load_trained(train({**config, "name": f"{name}_{seed}", "runs": str(folder)}))


#: What an experiment measures of a network on a dataset: measures by the name of a test.
Measure = Callable[[Trained, ReidDataset], Mapping[str, Mapping[str, float]]]


def run_rows(
    folder: Path,
    console: Console,
    dataset: ReidDataset,
    networks: Mapping[str, Mapping[str, Any]],
    measure: Measure,
    *,
    seeds: Sequence[int],
    steps: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Every network trained with every seed and tested: rows "NETWORK, TEST" over the seeds.

    Args:
        folder: of run folders.
        console: where each run's measures go.
        dataset: that networks are tested on.
        networks: name -> settings, as for :func:`train_small`.
        measure: the tests.
        seeds: at least one.
        steps: of every run.
    """
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for name, settings in networks.items():
        by_seed = []
        for seed in seeds:
            by_seed.append(measure(train_small(folder, name, settings, steps=steps, seed=seed), dataset))
            console.print(f"{name}, seed {seed}: {by_seed[-1]}")
        for test in by_seed[0]:
            rows[f"{name}, {test}"] = over_seeds([found[test] for found in by_seed])
    return rows


def describe(dataset: ReidDataset) -> dict[str, Any]:
    """The dataset's name, queries and gallery, for the file."""
    split = dataset.draws[0]
    return {"dataset": dataset.name, "queries": len(split.query), "gallery": len(split.gallery)}


def over_seeds(values: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Each measure's mean and standard deviation over the seeds, and the values themselves."""
    return {
        measure: {
            "mean": fmean(given := [value[measure] for value in values]),
            "deviation": pstdev(given),
            "values": given,
        }
        for measure in values[0]
    }


def print_rows(
    console: Console, title: str, rows: Mapping[str, Mapping[str, Mapping[str, Any]]], measures: Iterable[str]
) -> None:
    """A table of means and deviations in percent."""
    measures = tuple(measures)
    table = Table("", *measures, title=title)
    for name, row in rows.items():
        cells = (f"{100 * row[m]['mean']:.1f} ± {100 * row[m]['deviation']:.1f}" for m in measures)
        table.add_row(name, *cells)
    console.print(table)


def write_result(file: Path, paper: str, result: Mapping[str, Any], seconds: float) -> None:
    """The file: the command that makes it, where and how long, and what was measured."""
    content = {
        "command": f"python -m examples.evidence {paper}",
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "reid_ops": reid_ops.__version__,
        "seconds": round(seconds, 1),
        **result,
    }
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
