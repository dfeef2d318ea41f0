"""The main job on real images: trains HSGNet, searches, re-ranks, measures and reports.

    python -m examples.main_job                # HSGNet
    python -m examples.main_job --baseline     # and its baseline, which takes twice the time

The images are handwritten characters (identities) by different people (cameras); the characters of the test
are not among those of training. HSGNet is trained from scratch by its recipe. Beside it stand HSGNet before
training and the pixels themselves, each with and without k-reciprocal re-ranking. Results are printed and go
into an HTML report that needs no other file.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import reid_ops
from examples.part_correlation_demo import centred
from reid_models.data import ReidDataset, read_dataset
from reid_models.data.augmentation import Augmentation
from reid_models.recipes import load_recipe
from reid_models.report import describe_machine, picture_sections, read_runs, report_runs
from reid_models.retrieval.evaluation import evaluate_draws
from reid_models.retrieval.extraction import extract_features
from reid_models.runs.files import EVALUATION
from reid_models.runs.models import Trained, load_trained
from reid_models.training.train import train

RECIPES = {"baseline": "omniglot_baseline", "HSGNet": "omniglot_hsgnet"}
MEASURES = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mINP": "mINP"}
PIXELS = 16  # the pixels themselves are compared at this height and width
UNTRAINED = ("pixels", "HSGNet, untrained")
RUNS = "main_job_runs"  # not runs, where those of `reid train` are
Rankings = dict[str, dict[str, float]]  # "plain" and "reranked": each measure


class Pixels(nn.Module):
    """(N, 3, H, W) in [0, 1] -> (N, 256): ink, centred, at 16x16."""

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        return F.adaptive_avg_pool2d(centred(1 - images.mean(1)), PIXELS).flatten(1)


class Stages:
    """Seconds of each stage of each method."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = defaultdict(dict)

    @contextmanager
    def timed(self, method: str, stage: str) -> Iterator[None]:
        """Keeps how long the block takes."""
        start = time.perf_counter()
        yield
        self.seconds[method][stage] = time.perf_counter() - start


def retrieve(
    method: str, model: nn.Module, dataset: ReidDataset, folder: Path, stages: Stages, **extraction: Any
) -> Rankings:
    """Features of a model, searched and re-ranked; what that measures goes into the folder, too."""
    split = dataset.draws[0]
    with stages.timed(method, "features"):
        query = extract_features(model, split.query, **extraction)
        gallery = extract_features(model, split.gallery, **extraction)
    index = reid_ops.GalleryIndex(query.features.shape[1])
    with stages.timed(method, "search"):
        index.add(gallery.features)
        index.search(query.features, 10)
    with stages.timed(method, "re-ranking"):
        unit = [F.normalize(side.features) for side in (query, gallery)]
        reid_ops.k_reciprocal_rerank(*unit, topk=10)
    with stages.timed(method, "evaluation"):
        found = evaluate_draws(
            [(query, gallery)],
            same_camera_is_junk=dataset.same_camera_is_junk,
            rerank={},
            settings={"dataset": dataset.name},
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EVALUATION).write_text(found.to_json(), encoding="utf-8")
    return found.rankings


def train_recipe(method: str, runs: Path, epochs: int | None, stages: Stages) -> Trained:
    """A network trained by its recipe, with all that a run folder has."""
    recipe = load_recipe(RECIPES[method])
    overrides = ["--trainer.enable_model_summary", "false"]
    if epochs is not None:
        overrides += ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(epochs)]
    with stages.timed(method, "training"):
        folder = train({**recipe.config, "name": method, "runs": str(runs)}, overrides)
    return load_trained(folder)


def print_results(console: Console, results: dict[str, Rankings], dataset: ReidDataset) -> None:
    """The table of all methods, plain and re-ranked."""
    split = dataset.draws[0]
    sizes = f"{len(split.query)} queries, {len(split.gallery)} gallery images"
    table = Table(title=f"{sizes}, the query's own drawer removed")
    table.add_column("")
    for name in MEASURES.values():
        table.add_column(name, justify="right")
    for method, rankings in results.items():
        for name, values in rankings.items():
            label = method if name == "plain" else f"{method}, re-ranked"
            table.add_row(label, *(f"{values[measure]:.3f}" for measure in MEASURES))
    console.print(table)


def print_times(console: Console, stages: Stages) -> None:
    """Seconds of each stage."""
    names = list(dict.fromkeys(stage for times in stages.seconds.values() for stage in times))
    table = Table(title="seconds")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for method, times in stages.seconds.items():
        table.add_row(method, *(f"{times[name]:.2f}" if name in times else "" for name in names))
    console.print(table)


def main() -> None:
    """Runs the whole job."""
    parser = argparse.ArgumentParser(description="HSGNet from images to a report")
    parser.add_argument("--epochs", type=int, help="of training, instead of the recipes'")
    parser.add_argument("--baseline", action="store_true", help="train HSGNet's baseline, too")
    parser.add_argument("--output", type=Path, default=Path("build/demo"), help="folder for runs and report")
    options = parser.parse_args()
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {options.epochs}")
    console, stages, start = Console(), Stages(), time.perf_counter()
    runs: Path = options.output / RUNS
    recipes = [method for method in RECIPES if method != "baseline" or options.baseline]
    methods = [*UNTRAINED, *recipes]
    for method in (*UNTRAINED, *RECIPES):  # of the demo before this one; whatever else is there stays
        shutil.rmtree(runs / method, ignore_errors=True)

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # not which devices there are not
    dataset = read_dataset("omniglot")
    trained = {method: train_recipe(method, runs, options.epochs, stages) for method in recipes}
    model = trained["HSGNet"].model
    torch.manual_seed(0)
    untrained = type(model)(model.num_classes, **model.options)
    plain = Augmentation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    networks: list[tuple[nn.Module, dict[str, Any]]] = [
        (Pixels(), {"image_size": (105, 105), "augmentation": plain}),
        (untrained, trained["HSGNet"].extraction),
        *((found.model, found.extraction) for found in trained.values()),
    ]
    results = {
        method: retrieve(method, network, dataset, runs / method, stages, **extraction)
        for method, (network, extraction) in zip(methods, networks, strict=True)
    }
    print_results(console, results, dataset)
    print_times(console, stages)

    report = options.output / "report.html"
    report_runs(
        read_runs([runs / method for method in methods]),
        title="HSGNet on handwritten characters",
        pictures=picture_sections(trained, dataset, rerank={}),
        seconds=stages.seconds,
        machine=describe_machine(),
    ).write_html(report)
    console.print(f"report: {report} ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
