"""Terms' targets, outputs of several heads, losses that ask and that remember; the contrastive loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reid_models.losses import ContrastiveLoss, WeightedLoss

IDENTITIES = torch.tensor([0, 0, 1, 1])


CENTRES = f"{__name__}:Centres"


class Centres(nn.Module):
    """A loss with a state, for every class a vector, that asks for both lengths."""

    centres: Tensor

    def __init__(self, num_classes: int, feature_length: int, *, pull: float = 0.5) -> None:
        super().__init__()
        self.pull = pull
        self.register_buffer("centres", torch.zeros(num_classes, feature_length))

    def forward(self, features: Tensor, identities: Tensor) -> Tensor:
        value = (features - self.centres[identities]).square().mean()
        with torch.no_grad():
            self.centres.index_add_(0, identities, self.pull * (features - self.centres[identities]))
        return value


class Mean(nn.Module):
    def forward(self, output: Tensor) -> Tensor:
        return output.mean()


class Difference(nn.Module):
    def forward(self, output: Tensor, images: Tensor) -> Tensor:
        return (output - images.mean((2, 3))).abs().mean()


def test_targets_are_handed_to_the_terms_that_name_them() -> None:
    images, colours = torch.rand(4, 3, 5, 5), torch.rand(4, 3)
    distances, same = torch.tensor([0.2, 0.4]), torch.tensor([1, 0])
    loss = WeightedLoss(
        [
            {"loss": f"{__name__}:Difference", "output": "colours", "target": "image"},
            {"loss": "contrastive", "output": "distances", "target": "pair", "weight": 2.0},
            {"loss": f"{__name__}:Mean", "output": "colours", "target": "none"},
            {"loss": "triplet", "output": "colours"},
        ]
    )
    outputs = {"colours": colours, "distances": distances}
    values = loss(outputs, IDENTITIES, images=images, same=same)
    torch.testing.assert_close(values["Difference(colours)"], (colours - images.mean((2, 3))).abs().mean())
    torch.testing.assert_close(values["contrastive(distances)"], torch.tensor((0.2**2 + 0.6**2) / 4))
    torch.testing.assert_close(values["Mean(colours)"], colours.mean())
    assert loss.targets == {"image", "pair", "none", "identity"}
    total = sum(w * values[name] for w, name in zip((1, 2, 1, 1), loss.names, strict=True))
    torch.testing.assert_close(values["total"], total)
    for missing, message in (("images", "a target image"), ("same", "a target pair")):
        given = {"images": images, "same": same, missing: None}
        with pytest.raises(ValueError, match=f"must have {message}, got none"):
            loss(outputs, IDENTITIES, **given)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_heads_are_reduced_to_one_value(reduce: str) -> None:
    heads = tuple(torch.randn(4, 6) for _ in range(3))
    term = {"loss": "cross_entropy", "output": "logits", "reduce": reduce}
    found = WeightedLoss([term])({"logits": heads}, IDENTITIES)
    each = torch.stack([nn.functional.cross_entropy(head, IDENTITIES) for head in heads])
    torch.testing.assert_close(found["cross_entropy(logits)"], getattr(each, reduce)())
    assert set(found) == {"total", "cross_entropy(logits)"}


def test_a_loss_that_asks_gets_classes_and_length_and_each_head_its_own_state() -> None:
    term = {"loss": CENTRES, "output": "parts", "options": {"pull": 1.0}}
    loss = WeightedLoss([term], num_classes=2, widths={"parts": (3, 5)})
    heads = (torch.rand(4, 3), torch.rand(4, 5))
    loss({"parts": heads}, IDENTITIES)
    state = loss.state_dict()
    assert [tuple(value.shape) for value in state.values()] == [(2, 3), (2, 5)]
    assert all(value.abs().sum() > 0 for value in state.values())
    again = WeightedLoss([term], num_classes=2, widths={"parts": (3, 5)})
    again.load_state_dict(state)
    torch.testing.assert_close(
        again({"parts": heads}, IDENTITIES)["total"], loss({"parts": heads}, IDENTITIES)["total"]
    )


@pytest.mark.parametrize(
    ("term", "known", "message"),
    [
        (
            {"loss": CENTRES},
            {"num_classes": 3},
            r"feature_length must be known for Centres\(out\)",
        ),
        ({"loss": CENTRES}, {"widths": {"out": (4,)}}, "num_classes must be known"),
        ({"loss": "triplet"}, {"widths": {"logits": (4,)}}, "must have 'out' for .*, got logits"),
        ({"loss": "triplet", "target": "idenity"}, {}, 'did you mean "identity"'),
        ({"loss": "triplet", "reduce": "max"}, {}, "unknown reduce of triplet 'max'"),
    ],
)
def test_terms_that_do_not_fit_are_refused(term: Any, known: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedLoss([{"output": "out", **term}], **known)


def test_a_loss_with_state_needs_one_for_every_head() -> None:
    loss = WeightedLoss([{"loss": CENTRES, "output": "out"}], num_classes=2, widths={"out": (3,)})
    with pytest.raises(ValueError, match="must have 1 tensors in 'out', got 2"):
        loss({"out": (torch.rand(4, 3), torch.rand(4, 3))}, IDENTITIES)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_contrastive_loss_is_the_equation(alpha: float) -> None:
    pairs = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    same = torch.tensor([1, 0, 0, 1, 0, 0])
    total = 0.0
    for (first, second), y in zip(pairs.detach() * 0.3, same.tolist(), strict=True):
        d = (first - second).norm().item()
        total += y * d**2 + (1 - y) * max(0.0, alpha - d) ** 2
    loss = ContrastiveLoss(alpha)
    assert loss(pairs * 0.3, same).item() == pytest.approx(total / 12, rel=1e-12)
    distances = (pairs[:, 0] - pairs[:, 1]).norm(dim=1)
    torch.testing.assert_close(loss(distances, same), loss(pairs, same))
    assert torch.autograd.gradcheck(lambda x: loss(x, same), pairs)


def test_equal_pairs_have_a_finite_gradient_and_no_pairs_give_zero() -> None:
    pairs = torch.ones(2, 2, 3, requires_grad=True)
    ContrastiveLoss(1.0)(pairs, torch.tensor([1, 0])).backward()
    assert pairs.grad is not None and pairs.grad.abs().max() == 0
    assert ContrastiveLoss(1.0)(torch.rand(0), torch.rand(0)).item() == 0


@pytest.mark.parametrize(
    ("alpha", "pairs", "same", "message"),
    [
        (0, torch.rand(2), torch.ones(2), "alpha must be finite and above 0, got 0"),
        ("1", torch.rand(2), torch.ones(2), "alpha must be a number, got str"),
        (1.0, torch.ones(2, dtype=torch.int64), torch.ones(2), "pairs must be floating, got int64"),
        (1.0, torch.rand(2, 3), torch.ones(2), r"shape \(B,\) or \(B, 2, D\), got \(2, 3\)"),
        (1.0, torch.rand(2), torch.ones(3), r"same must have shape \(2,\), got \(3,\)"),
        (1.0, [1.0], torch.ones(1), "pairs must be a torch.Tensor, got list"),
    ],
)
def test_contrastive_loss_refuses_bad_input(alpha: Any, pairs: Any, same: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ContrastiveLoss(alpha)(pairs, same)


@pytest.mark.parametrize(("identity", "heads"), [(7, 1), (-1, 1), (3, 2)])
def test_identities_that_are_no_classes_are_named(identity: int, heads: int) -> None:
    loss = WeightedLoss([{"loss": "cross_entropy", "output": "logits"}])
    logits = torch.randn(4, 3)
    with pytest.raises(ValueError, match=rf"which has 3 \(0-2\), got identity {identity}"):
        loss({"logits": (logits,) * heads if heads > 1 else logits}, torch.tensor([0, 0, identity, identity]))


def test_an_identity_that_a_loss_passes_over_is_no_error() -> None:
    loss = WeightedLoss([{"loss": "cross_entropy", "output": "logits", "options": {"ignore_index": -1}}])
    assert loss({"logits": torch.randn(4, 3)}, torch.tensor([0, 0, -1, 2]))["total"].isfinite()
