"""What the papers' evidence shares: runs over seeds, means and deviations, the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import reid_ops
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
