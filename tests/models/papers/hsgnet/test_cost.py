"""HSGNet's Table V: what backbones cost without and with HSGM."""

from __future__ import annotations

import pytest

from reid_models.networks import create_model, measure_complexity
from reid_models.papers.hsgnet.cost import cost_table, count_hsgm_parameters, format_cost_table


@pytest.mark.parametrize(
    ("backbone", "gmacs"), [("resnet50", 8.107), ("seresnet50", 8.109), ("res2net50_26w_4s", 8.266)]
)
def test_macs_of_table_v(backbone: str, gmacs: float) -> None:
    model = create_model("hsgnet", 576, backbone=backbone)
    measured = measure_complexity(model)
    assert measured.macs / 1e9 == pytest.approx(gmacs, abs=0.001)
    assert count_hsgm_parameters(model) == 23808
    assert model.training


def test_cost_table() -> None:
    rows = cost_table(["resnet18"], num_classes=5, image_size=(64, 64))
    assert [row.hsgm for row in rows] == [False, True]
    assert rows[1].measured.parameters - rows[0].measured.parameters == rows[1].hsgm_parameters > 0
    assert rows[0].measured.macs == rows[1].measured.macs
    text = format_cost_table(rows).splitlines()
    assert len(text) == 4 and text[2].startswith("| resnet18 | no | ") and "–" in text[2]
