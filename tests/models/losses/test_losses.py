"""The losses against their equations written out, and the triplet loss at its edges."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from reid_models.losses import LossTerm, TripletLoss, WeightedLoss
from reid_models.papers.hsgnet.defaults import HSGNET_LOSSES

IDENTITIES = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])  # the last one has no positive


@pytest.fixture
def features() -> Tensor:
    return torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def triplets(features: Tensor, identities: Tensor) -> list[tuple[int, float, float]]:
    """(anchor, d_ap, d_an) of every triplet."""
    found = []
    for a, p, n in itertools.product(range(len(features)), repeat=3):
        if a != p and identities[a] == identities[p] and identities[a] != identities[n]:
            found.append(
                (a, (features[a] - features[p]).norm().item(), (features[a] - features[n]).norm().item())
            )
    return found


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.3])
def test_torch_label_smoothing_is_equations_13_and_14(gamma: float) -> None:
    classes = 7
    logits = torch.randn(5, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 6, 3, 3, 1])
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        for j in range(classes):
            q = 1 - gamma + gamma / classes if j == label else gamma / classes
            total -= q * (row[j] - row.exp().sum().log()).item()
    assert nn.CrossEntropyLoss(label_smoothing=gamma)(logits, labels).item() == pytest.approx(
        total / len(labels), rel=1e-12
    )


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.2, "soft"])
@pytest.mark.parametrize("mining", ["batch_hard", "batch_all"])
def test_triplet_loss_is_the_equation(features: Tensor, margin: float | str, mining: str) -> None:
    def value(positive: float, negative: float) -> float:
        if isinstance(margin, str):
            return torch.tensor(positive - negative, dtype=torch.float64).exp().log1p().item()
        return max(positive - negative + margin, 0)

    every = triplets(features, IDENTITIES)
    if mining == "batch_hard":
        anchors = {a for a, _, _ in every}
        values = [
            value(max(p for a, p, _ in every if a == anchor), min(n for a, _, n in every if a == anchor))
            for anchor in anchors
        ]
    else:
        values = [value(p, n) for _, p, n in every]
    loss = TripletLoss(margin, mining=mining)
    assert loss(features, IDENTITIES).item() == pytest.approx(sum(values) / len(values), rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: loss(x, IDENTITIES), features.clone().requires_grad_())


def test_printed_form_does_not_move_triplets_in_the_wrong_order() -> None:
    identities = torch.tensor([0, 0, 1, 1])
    wrong = torch.tensor([[0.0], [9.0], [0.1], [9.1]], requires_grad=True)
    printed = TripletLoss(form="printed")(wrong, identities)
    hinge = TripletLoss()(wrong, identities)
    assert printed.item() == 0
    assert torch.autograd.grad(printed, wrong)[0].abs().max() == 0
    assert torch.autograd.grad(hinge, wrong)[0].abs().max() > 0


@pytest.mark.parametrize("mining", ["batch_hard", "batch_all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("margin", [1.2, "soft"])
def test_equal_features_have_a_finite_gradient(mining: str, dtype: torch.dtype, margin: float | str) -> None:
    features = torch.ones(6, 4, dtype=dtype, requires_grad=True)
    loss = TripletLoss(margin, mining=mining)(features, torch.tensor([0, 0, 0, 1, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(1.2 if margin == 1.2 else torch.log(torch.tensor(2.0)).item())
    assert features.grad is not None and features.grad.abs().max() == 0


def test_near_features_far_from_zero_keep_their_distance() -> None:
    """x^2 + y^2 - 2xy would lose it in float32."""
    features = torch.full((4, 16), 1000.0)
    features[1] += 0.01
    features[2:] += 5
    distance = (features[0] - features[1]).norm()
    loss = TripletLoss(100.0)(features[:3], torch.tensor([0, 0, 1]))
    farther = torch.stack([(features[i] - features[2]).norm() for i in (0, 1)])
    torch.testing.assert_close(loss, (distance - farther + 100).mean())


@pytest.mark.parametrize("mining", ["batch_hard", "batch_all"])
@pytest.mark.parametrize("identities", [[], [4], [4, 4, 4], [1, 2, 3]])
def test_a_batch_without_triplets_gives_zero(mining: str, identities: list[int]) -> None:
    features = torch.rand(len(identities), 3, requires_grad=True)
    loss = TripletLoss(mining=mining)(features, torch.tensor(identities, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None and not features.grad.isnan().any() and features.grad.abs().sum() == 0


def test_triplet_loss_compiles_without_breaks(features: Tensor) -> None:
    loss = TripletLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features, IDENTITIES), loss(features, IDENTITIES))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": -1.0}, "margin must be finite and at least 0, got -1.0"),
        ({"margin": "hard"}, "margin must be a number or \"soft\", got 'hard'"),
        ({"margin": None}, "margin must be a number"),
        ({"mining": "semi"}, "mining must be"),
        ({"form": "squared"}, "form must be"),
        ({"form": "printed", "margin": "soft"}, 'form must be "hinge"'),
    ],
)
def test_triplet_loss_refuses_bad_options(arguments: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        TripletLoss(**arguments)  # type: ignore[arg-type]


def test_triplet_loss_refuses_bad_inputs() -> None:
    loss, identities = TripletLoss(), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"features must have shape \(N, D\), got \(2, 3, 4\)"):
        loss(torch.rand(2, 3, 4), identities)
    with pytest.raises(ValueError, match=r"identities must have shape \(3,\), got \(2,\)"):
        loss(torch.rand(3, 4), identities)
    with pytest.raises(TypeError, match=r"features must be floating, got int64"):
        loss(torch.ones(2, 4, dtype=torch.int64), identities)
    with pytest.raises(TypeError, match=r"identities must be a torch.Tensor, got list"):
        loss(torch.rand(2, 4), [0, 1])


def test_hsgnet_losses_are_equation_12(features: Tensor) -> None:
    logits = torch.randn(8, 4, dtype=torch.float64)
    losses = WeightedLoss(HSGNET_LOSSES)({"logits": logits, "features": features}, IDENTITIES)
    triplet = TripletLoss(1.2)(features, IDENTITIES)
    cross_entropy = nn.CrossEntropyLoss(label_smoothing=0.1)(logits, IDENTITIES)
    assert list(losses) == ["total", "triplet(features)", "cross_entropy(logits)"]
    torch.testing.assert_close(losses["total"], 0.5 * triplet + 1.0 * cross_entropy)
    torch.testing.assert_close(losses["triplet(features)"], triplet)


def test_terms_come_from_plain_data(features: Tensor) -> None:
    declared = [{"loss": "triplet", "output": "features", "weight": 2.0, "options": {"margin": "soft"}}]
    losses = WeightedLoss(declared)({"features": features}, IDENTITIES)
    torch.testing.assert_close(losses["total"], 2 * TripletLoss("soft")(features, IDENTITIES))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "at least one term"),
        ([{"loss": "tripplet", "output": "features"}], 'did you mean "triplet"'),
        ([{"loss": "triplet", "output": "features", "wieght": 1}], 'did you mean "weight"'),
        ([{"loss": "triplet"}], "a term must have 'output'"),
        ([{"loss": "triplet", "output": "features", "weight": -1.0}], "at least 0, got -1.0"),
        ([LossTerm("triplet", "features")] * 2, "must differ"),
    ],
)
def test_weighted_loss_refuses_bad_terms(terms: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedLoss(terms)  # type: ignore[arg-type]


def test_weighted_loss_names_a_missing_output(features: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"outputs must have 'logits' for cross_entropy\(logits\), got features"
    ):
        WeightedLoss(HSGNET_LOSSES)({"features": features}, IDENTITIES)
