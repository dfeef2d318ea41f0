"""HCN against ResNet on one trunk; Euclidean distance against XQDA; with and without re-ranking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.evidence.experiments import describe, print_rows, run_rows
from reid_models.data import ReidDataset, read_dataset
from reid_models.retrieval.comparison import fit_comparison
from reid_models.retrieval.evaluation import evaluate_draws
from reid_models.retrieval.extraction import extract_features
from reid_models.runs.models import Trained

SEEDS = (0, 1, 2)
STEPS = 200
BATCH = 16
HEADS = {"resnet": ["r5"], "hcn": ["r5", "c1", "c2"]}
METRICS = ("euclidean", "xqda")
MEASURES = ("rank1", "rank5", "mAP")


def settings(heads: list[str]) -> dict[str, Any]:
    """Both networks by the same recipe: cross-entropy of each head, shuffled batches."""
    return {
        "model": {
            "network": "hcn",
            # From scratch there are no statistics to freeze, and laterals of 0 would learn late.
            "options": {"heads": heads, "freeze_batch_norm": False},
            "losses": [{"loss": "cross_entropy", "output": head, "weight": 1.0} for head in heads],
        },
        "data": {"sampler": {"name": "shuffled", "batch_size": BATCH}},
    }


def measure(trained: Trained, dataset: ReidDataset) -> dict[str, dict[str, float]]:
    """Rankings by each metric, plain and re-ranked."""
    split = dataset.draws[0]
    train, query, gallery = (
        extract_features(trained.model, part, workers=0, **trained.extraction)
        for part in (dataset.train, split.query, split.gallery)
    )
    found: dict[str, dict[str, float]] = {}
    for metric in METRICS:
        comparison = fit_comparison("xqda", train) if metric == "xqda" else "euclidean"
        evaluation = evaluate_draws([(query, gallery)], metric=comparison, rerank={})
        for ranking, values in evaluation.rankings.items():
            found[f"{metric}, {ranking}"] = {name: values[name] for name in MEASURES}
    return found


def run(folder: Path, console: Console) -> Mapping[str, Any]:
    """Trains each network with each seed; rows by network, metric and ranking."""
    dataset = read_dataset("omniglot")
    networks = {name: settings(heads) for name, heads in HEADS.items()}
    rows = run_rows(folder, console, dataset, networks, measure, seeds=SEEDS, steps=STEPS)
    print_rows(console, f"{len(SEEDS)} seeds, mean ± deviation, percent", rows, MEASURES)
    return {
        **describe(dataset),
        "seeds": list(SEEDS),
        "steps": STEPS,
        "batch": BATCH,
        "settings": networks,
        "rows": rows,
    }
