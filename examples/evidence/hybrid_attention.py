"""Hybrid attention against its plain baseline, and the rows between (Table VI), on one trunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.evidence.experiments import over_seeds, print_rows, train_small
from reid_models.data import read_dataset
from reid_models.retrieval.evaluation import evaluate_draws
from reid_models.retrieval.extraction import extract_features
from reid_models.runs.models import Trained

SEEDS = (0, 1, 2)
STEPS = 150
IDENTITIES, IMAGES = 16, 2  # of a batch
#: Maps of 64x64 images are 4x4: four stripes, ten windows.
OPTIONS: Mapping[str, Any] = {"windows": 4, "reduced_width": 64, "feature_width": 128}
PLAIN = {"stages": [4], "order": ["cat"], "multi_granularity": False, "multi_pool": False}
#: Rows of Table VI: options, and whether with random erasing and label smoothing. (All runs warm up.)
ROWS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "baseline": (PLAIN, False),
    "+ tricks": (PLAIN, True),
    "+ MPFE": ({**PLAIN, "multi_pool": True}, True),
    "+ MGO": ({"stages": [4], "order": ["cat"]}, True),
    "+ SAM": ({"order": ["S", "cat"]}, True),
    "+ CAM (whole)": ({}, True),
}
OVER_SEEDS = ("baseline", "+ CAM (whole)")  # the rows between have the first seed alone
MEASURES = ("rank1", "rank5", "mAP")


def settings(options: Mapping[str, Any], tricks: bool) -> dict[str, Any]:
    """One row's network and losses."""
    smoothing = {"label_smoothing": 0.1} if tricks else {}
    return {
        "model": {
            "network": "hybrid_attention",
            "options": {**OPTIONS, **options},
            "losses": [
                {"loss": "cross_entropy", "output": "logits", "weight": 1.0, "options": smoothing},
                {"loss": "triplet", "output": "features", "weight": 1.0, "options": {"margin": 1.0}},
            ],
        },
        "data": {
            "sampler": {
                "name": "identity",
                "identities_per_batch": IDENTITIES,
                "images_per_identity": IMAGES,
            },
            "augmentation": {"erase": {"p": 0.5, "anchor": "center"} if tricks else None},
        },
    }


def measure(trained: Trained, records: Any) -> dict[str, float]:
    """Retrieval by cosine over the built-in test images."""
    query, gallery = (
        extract_features(trained.model, part, workers=0, **trained.extraction)
        for part in (records.query, records.gallery)
    )
    values = evaluate_draws([(query, gallery)]).rankings["plain"]
    return {name: values[name] for name in MEASURES}


def run(folder: Path, console: Console) -> Mapping[str, Any]:
    """Trains every row; baseline and whole network with each seed."""
    dataset = read_dataset("omniglot")
    split = dataset.draws[0]
    rows: dict[str, Any] = {}
    for number, (name, row) in enumerate(ROWS.items()):
        by_seed = []
        for seed in SEEDS if name in OVER_SEEDS else SEEDS[:1]:
            trained = train_small(folder, f"row{number}", settings(*row), steps=STEPS, seed=seed)
            by_seed.append(measure(trained, split))
            console.print(f"{name}, seed {seed}: {by_seed[-1]}")
        rows[name] = over_seeds(by_seed)
    print_rows(console, f"{len(SEEDS)} seeds, mean ± deviation, percent", rows, MEASURES)
    return {
        "dataset": dataset.name,
        "queries": len(split.query),
        "gallery": len(split.gallery),
        "seeds": list(SEEDS),
        "seeds_of_rows_between": list(SEEDS[:1]),
        "steps": STEPS,
        "batch": IDENTITIES * IMAGES,
        "settings": {name: settings(*row) for name, row in ROWS.items()},
        "rows": rows,
    }
