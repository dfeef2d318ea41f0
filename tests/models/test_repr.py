"""What things say of themselves: one line, without their contents."""

from __future__ import annotations

import numpy as np
import torch

from reid_models.data import make_synthetic
from reid_models.retrieval.evaluation import evaluate_draws
from reid_models.retrieval.features import Features
from reid_models.retrieval.gallery import Gallery
from reid_ops import metrics

IDENTITIES = torch.arange(20) % 4
FEATURES = Features(
    torch.randn(20, 8, generator=torch.Generator().manual_seed(0)),
    IDENTITIES,
    torch.arange(20) // 10,
    [f"{number}.jpg" for number in range(20)],
)


def test_one_line_each() -> None:
    dataset = make_synthetic(identities=4, cameras=2)
    gallery, _ = Gallery.build([FEATURES])
    evaluation = evaluate_draws([(FEATURES, FEATURES)], rerank=None)
    report = metrics.evaluate_ranking(np.array([[0.1, 0.2, 0.3]]), [7], [5, 7, 7], ranks=(1, 2))
    said = [repr(thing) for thing in (FEATURES, gallery, evaluation, report, dataset, dataset.draws[0])]
    assert all("\n" not in text and len(text) < 260 for text in said)
    assert said[0] == "<Features of 20 images, 8 each, float32; 4 identities>"
    assert said[1].startswith("<Gallery of 20 images of 4 identities: <GalleryIndex(8, ")
    assert said[2].startswith("<Evaluation of 20 queries in 20 images: plain mAP ")
    assert said[3] == "<RankingReport: mAP 0.5833, mINP 0.6667, rank-1 0.0000, rank-2 1.0000; 1 queries>"
    assert said[4].startswith("<ReidDataset synthetic: 8 training images of 2 identities, <Retrieval")
