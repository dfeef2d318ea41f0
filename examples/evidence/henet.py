"""HENet's Fig. 5 in the small: trained with none, RE, RPE, RE+RPE; tested clean and occluded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.evidence.experiments import describe, print_rows, run_rows
from reid_models.data import ReidDataset, RetrievalSplit, read_dataset
from reid_models.data.occlusion import Occlusion
from reid_models.retrieval.evaluation import evaluate_dataset
from reid_models.runs.models import Trained

SEEDS = (0, 1)
STEPS = 120
IDENTITIES, IMAGES = 16, 2  # of a batch
SIZE = (32, 32)
TESTED_IDENTITIES = 40  # the first of the test set, to be done in minutes
#: Training augmentations with the paper's probability of 0.5, by its names.
TRAINED: Mapping[str, Mapping[str, Any]] = {
    "none": {"erase": None, "polygon": None},
    "RE": {"erase": 0.5, "polygon": None},
    "RPE": {"erase": None, "polygon": 0.5},
    "RE+RPE": {"erase": 0.5, "polygon": 0.5},
}
TESTED = ("re", "rpe", "re+rpe")
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
MEASURES = ("rank1", "mAP")


def settings(augmentation: Mapping[str, Any]) -> dict[str, Any]:
    """P(1, 2), whose bins fit maps of 2 x 2, with cross-entropy of every feature."""
    sampler = {"name": "identity", "identities_per_batch": IDENTITIES, "images_per_identity": IMAGES}
    return {
        "model": {
            "network": "henet",
            "options": {"branches": [1, 2], "recovery": None},
            "losses": [{"loss": "cross_entropy", "output": "logits", "reduce": "sum"}],
        },
        "data": {"sampler": sampler, "image_size": list(SIZE), "augmentation": dict(augmentation)},
    }


def few_identities(dataset: ReidDataset) -> ReidDataset:
    """The dataset with the first identities of its test set alone."""
    split = dataset.draws[0]
    kept = set(sorted({record.identity for record in split.query})[:TESTED_IDENTITIES])
    query, gallery = (
        tuple(record for record in part if record.identity in kept) for part in (split.query, split.gallery)
    )
    return replace(dataset, draws=(RetrievalSplit(query, gallery),))


def measure(trained: Trained, dataset: ReidDataset) -> dict[str, dict[str, float]]:
    """Rank-1 and mAP on clean test images, and by kind and level of occlusion."""
    tests: dict[str, Occlusion | None] = {"clean": None}
    tests |= {f"{kind}:{level}": Occlusion(kind, level) for kind in TESTED for level in LEVELS}
    found = {}
    for name, occlusion in tests.items():
        evaluation = evaluate_dataset(
            trained.model, dataset, occlusion=occlusion, **{**trained.extraction, "workers": 0}
        )
        found[name] = {measure: evaluation.plain[measure] for measure in MEASURES}
    return found


def run(folder: Path, console: Console) -> Mapping[str, Any]:
    """Trains with each augmentation and seed; rows by augmentation and test."""
    dataset = few_identities(read_dataset("omniglot"))
    networks = {name: settings(augmentation) for name, augmentation in TRAINED.items()}
    rows = run_rows(folder, console, dataset, networks, measure, seeds=SEEDS, steps=STEPS)
    print_rows(console, f"{len(SEEDS)} seeds, mean ± deviation, percent", rows, MEASURES)
    return {
        **describe(dataset),
        "seeds": list(SEEDS),
        "steps": STEPS,
        "tested_identities": TESTED_IDENTITIES,
        "batch": IDENTITIES * IMAGES,
        "image_size": list(SIZE),
        "levels": list(LEVELS),
        "settings": networks,
        "rows": rows,
    }
