"""CSN (L2, L3) against its levels, transformers and losses; two-stage search against all pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from examples.evidence.experiments import over_seeds, print_rows, train_small
from reid_models.data import ImageRecord, ReidDataset, read_dataset
from reid_models.retrieval.comparison import make_comparison, prepare_pair
from reid_models.retrieval.evaluation import evaluate_draws
from reid_models.retrieval.extraction import extract_features
from reid_models.retrieval.features import Features
from reid_models.retrieval.pair_scores import Shortlisted
from reid_models.retrieval.protocol import Protocol
from reid_models.runs.models import Trained

SEEDS = (0, 1, 2)
STEPS = 80
ANCHORS = 8
MEASURES = ("rank1", "rank5", "mAP")
SHORTLISTS = (10, 50, 200)
#: Every so many queries and gallery images are scored: all 674,160 pairs of each network take too long here.
SOME = (6, 8)
#: Name -> options of the network, and whether it has the contrastive loss. Three seeds, then one.
NETWORKS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "L2": ({"levels": [2]}, True),
    "L3": ({"levels": [3]}, True),
    "L2, L3": ({"levels": [2, 3]}, True),
}
ABLATIONS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "L2, L3, middles of the parts": ({"levels": [2, 3], "parts": "central"}, True),
    "L2, L3, no contrastive loss": ({"levels": [2, 3], "score_lambda": 0.0}, False),
}


def settings(options: Mapping[str, Any], contrastive: bool) -> dict[str, Any]:
    """By the paper's losses, two negatives to a positive; small images and parts."""
    losses: list[dict[str, Any]] = [{"loss": "cross_entropy", "output": "logits", "target": "pair"}]
    weight = 1.0 if contrastive else 0.0
    losses.append({"loss": "contrastive", "output": "embeddings", "target": "pair", "weight": weight})
    losses[-1]["options"] = {"alpha": 1.0}
    if options.get("parts") != "central":
        losses.append({"loss": "transform_priors", "output": "transforms", "target": "none"})
    return {
        "model": {
            "network": "csn",
            "options": {"backbone": "csn", "part_sizes": [4, 2, 2], **options},
            "losses": losses,
        },
        # Validated by the codes' cosine, which costs little and chooses nothing.
        "data": {
            "image_size": [32, 32],
            "metric": "cosine",
            "sampler": {"name": "pairs", "anchors_per_batch": ANCHORS, "negatives": 2},
        },
    }


def encode(trained: Trained, *parts: tuple[ImageRecord, ...]) -> list[Features]:
    """Codes of images."""
    return [extract_features(trained.model, part, workers=0, **trained.extraction) for part in parts]


def measure(trained: Trained, dataset: ReidDataset) -> dict[str, float]:
    """All pairs of some queries and gallery images."""
    split = dataset.draws[0]
    pair = encode(trained, split.query[:: SOME[0]], split.gallery[:: SOME[1]])
    values = evaluate_draws(
        [(pair[0], pair[1])], metric=make_comparison("match", network=trained.model)
    ).plain
    return {name: values[name] for name in MEASURES}


def search(trained: Trained, dataset: ReidDataset) -> dict[str, dict[str, float]]:
    """All pairs of some queries and the whole gallery, and two stages: accuracy, recall, seconds."""
    split = dataset.draws[0]
    query, gallery = encode(trained, split.query[:: SOME[0]], split.gallery)
    found, protocol = {}, Protocol(dataset.same_camera_is_junk)
    for shortlist in (*SHORTLISTS, None):
        comparison = make_comparison("match", network=trained.model, shortlist=shortlist)
        codes = prepare_pair(comparison, query, gallery)
        begin = time.perf_counter()
        distance = comparison.distances(*codes)
        seconds = time.perf_counter() - begin
        report = protocol.measure_distances(query, gallery, distance)
        values = {"rank1": report.cmc[1], "rank5": report.cmc[5], "mAP": report.mean_ap, "seconds": seconds}
        if isinstance(comparison, Shortlisted):
            values["recall"] = protocol.measure_lists(query, gallery, comparison.search(*codes))
        found["all pairs" if shortlist is None else f"shortlist of {shortlist}"] = values
    return found


def run(folder: Path, console: Console) -> Mapping[str, Any]:
    """Trains every network with its seeds; rows by network, and the two ways to search."""
    dataset = read_dataset("omniglot")
    rows: dict[str, Any] = {}
    stages: dict[str, dict[str, float]] = {}
    for name, (options, contrastive) in {**NETWORKS, **ABLATIONS}.items():
        by_seed = []
        for seed in SEEDS if name in NETWORKS else SEEDS[:1]:
            short = name.replace(", ", "_").replace(" ", "_")
            trained = train_small(folder, short, settings(options, contrastive), steps=STEPS, seed=seed)
            by_seed.append(measure(trained, dataset))
            console.print(f"{name}, seed {seed}: {by_seed[-1]}")
            if name == "L2, L3" and seed == SEEDS[0]:
                stages = search(trained, dataset)
                console.print(stages)
        rows[name] = over_seeds(by_seed)
    print_rows(console, "all pairs; mean ± deviation over the seeds, percent", rows, MEASURES)
    split = dataset.draws[0]
    return {
        "dataset": dataset.name,
        "queries": len(split.query[:: SOME[0]]),
        "gallery": len(split.gallery[:: SOME[1]]),
        "searched gallery": len(split.gallery),
        "seeds": {name: list(SEEDS if name in NETWORKS else SEEDS[:1]) for name in rows},
        "steps": STEPS,
        "anchors a step": ANCHORS,
        "settings": {name: settings(*chosen) for name, chosen in {**NETWORKS, **ABLATIONS}.items()},
        "rows": rows,
        "search": stages,
    }
