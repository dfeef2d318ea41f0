"""Hybrid attention's network: its cost, fused against step by step, switches, outputs, bad input."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reid_models.losses import WeightedLoss
from reid_models.networks import create_model, load_model, measure_complexity, save_model
from reid_models.papers.hybrid_attention.attention import ChannelAttention, SpatialAttention
from reid_models.papers.hybrid_attention.heads import WindowHeads
from reid_models.papers.hybrid_attention.network import HybridAttention

SMALL: dict[str, Any] = {
    "backbone": "resnet10t", "image_size": (96, 32), "reduced_width": 12, "feature_width": 10,
}  # fmt: skip
ORDERS = [
    order
    for count in range(3)
    for steps in itertools.combinations(("S", "C"), count)
    for order in itertools.permutations((*steps, "cat"))
]
STAGES = [(1,), (2,), (3,), (4,), (1, 2), (1, 2, 3), (2, 3, 4), (1, 2, 3, 4)]


def small(**options: Any) -> HybridAttention:
    torch.manual_seed(0)
    model = create_model("hybrid_attention", 7, **{**SMALL, **options})
    assert isinstance(model, HybridAttention)
    return model


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 3, 96, 32, generator=torch.Generator().manual_seed(1)).to(dtype)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_of_the_paper() -> None:
    """At K=751: CAM 1.843 M, a head 2.483 M, the model 77.50 M, with shared heads 35.5 M (section III)."""
    with torch.device("meta"):
        heads = WindowHeads(21, 7680, 751, shared=False, reduced=256, width=512, negative_slope=0.0)
        one = WindowHeads(1, 7680, 751, shared=True, reduced=256, width=512, negative_slope=0.0)
    assert count(ChannelAttention(3840)) == 2 * 3840 * 240 == 1_843_200
    assert 4 * count(SpatialAttention()) == 392
    assert count(one) == 2_483_200 and count(heads) == 21 * 2_483_200
    model = create_model("hybrid_attention", 751)
    assert count(model.backbone) == 23_508_032
    assert count(model) == 23_508_032 + 1_843_200 + 392 + 21 * 2_483_200 == 77_498_824
    assert model.feature_length == 10_752
    others = {"shared": 35.5, 512: 121.6, 2048: 385.9}
    for choice, millions in others.items():
        changed = {"heads": "shared"} if choice == "shared" else {"reduced_width": choice}
        with torch.device("meta"):
            found = count(create_model("hybrid_attention", 751, **changed))
        assert found / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.slow
def test_operations_of_the_trunk() -> None:
    """6.08 GMAC at 384x128 (section III-A)."""
    model = create_model("hybrid_attention", 751)
    whole, heads = (
        measure_complexity(model).macs,
        sum(layer.weight.numel() for layer in (model.heads.reduce, model.heads.embed)),
    )
    attention = 2 * count(model.channel) + sum(98 * h * w for h, w in ((96, 32), (48, 16), (24, 8), (24, 8)))
    assert whole - heads - attention == pytest.approx(6.082e9, rel=1e-3)


@pytest.mark.parametrize("order", ORDERS, ids="+".join)
def test_fused_is_step_by_step(order: tuple[str, ...]) -> None:
    """Every order, outputs and gradients: the reference scales maps where fused scales windows."""
    x = images(torch.float64)
    fused, literal = (small(order=order, impl=impl).double() for impl in ("fused", "reference"))
    results = []
    for model in (fused, literal):
        outputs = model(x)
        total = sum(t.sin().sum() for t in (*outputs["logits"], *outputs["features"]))
        gradients = torch.autograd.grad(total, list(model.parameters()))
        results.append((*outputs["logits"], *outputs["features"], *gradients, model.eval()(x)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_stages(stages: tuple[int, ...]) -> None:
    """Any subset; what lies behind its last stage is neither computed nor a parameter."""
    model = small(stages=stages)
    outputs = model(images())
    assert len(outputs["logits"]) == 21
    assert [t.shape[1] for t in outputs["features"]] == [10 * level for level in range(1, 7)]
    total = sum(t.sum() for t in (*outputs["logits"], *outputs["features"]))
    assert all(g is not None for g in torch.autograd.grad(total, list(model.parameters())))
    assert list(model.layers()) == [f"stage{n}" for n in range(1, stages[-1] + 1)]
    assert model.eval()(images()).shape == (3, 210) and model.feature_length == 210


def test_fusion_by_hand() -> None:
    """FMR of all stages without attention: max-pooled by 4, 2, 1 and 1, in order, before any window."""
    model = small(order=("cat",)).eval()
    with torch.no_grad():
        one, two, three, four = model.backbone.body(images())[-4:]
        fused = torch.cat([F.max_pool2d(one, 4), F.max_pool2d(two, 2), three, four], 1)
        described = model.describe(images())
    assert torch.equal(described[:, 0, 0], fused.amax((2, 3)))
    assert torch.equal(described[:, -1, 0], fused[:, :, 5:].amax((2, 3)))
    torch.testing.assert_close(described[:, 0, 1], fused.mean((2, 3)))


def test_attention_by_hand() -> None:
    """Eqs. 1 and 2, both forms."""
    x = images()[:, :, :8, :8].repeat(1, 11, 1, 1)[:, :32]
    spatial = SpatialAttention()
    described = torch.stack([x.mean(1), x.max(1).values], 1)
    expected = torch.sigmoid(F.conv2d(described, spatial.convolution.weight, padding=3))
    torch.testing.assert_close(spatial(x), expected)
    maximum, mean = x.amax((2, 3)), x.mean((2, 3))
    for form in ("cbam", "printed"):
        channel = ChannelAttention(32, form=form)
        first, second = channel.reduce.weight, channel.expand.weight
        assert first.shape == (2, 32)

        def perceptron(v: Tensor, first: Tensor = first, second: Tensor = second) -> Tensor:
            return (v @ first.T).relu() @ second.T

        total = perceptron(mean) + perceptron(maximum) if form == "cbam" else perceptron(mean + maximum)
        torch.testing.assert_close(channel(maximum, mean), total.sigmoid())


@pytest.mark.parametrize("shared", [False, True])
def test_heads_are_layers_of_torch(shared: bool) -> None:
    """Batched heads against six of Linear and BatchNorm1d; shared ones against one, with six classifiers."""
    heads = WindowHeads(6, 9, 5, shared=shared, reduced=8, width=7, negative_slope=0.1).double().train()
    windows = torch.randn(4, 6, 9, dtype=torch.float64)
    embedded = heads(windows)
    logits = heads.classifier(embedded.post_bn)
    assert heads.classifier.weight.shape == (6, 5, 7)
    for own in range(1 if shared else 6):
        rows = windows.flatten(0, 1) if shared else windows[:, own]
        reduced = F.batch_norm(rows @ heads.reduce.weight[own].T, None, None, training=True)
        pre = F.leaky_relu(reduced, 0.1) @ heads.embed.weight[own].T
        post = F.batch_norm(pre, None, None, training=True)
        for actual, expected in ((embedded.pre_bn, pre), (embedded.post_bn, post)):
            found = actual.flatten(0, 1) if shared else actual[:, own]
            torch.testing.assert_close(found, expected)
    for window in range(6):
        expected = embedded.post_bn[:, window] @ heads.classifier.weight[window].T
        torch.testing.assert_close(logits[:, window], expected)


def test_outputs_and_switches() -> None:
    x = images()
    outputs = small(triplets="window")(x)
    assert [t.shape[1] for t in outputs["features"]] == [10] * 21
    plain = small(stages=(4,), order=("cat",), multi_granularity=False, multi_pool=False)
    assert len(plain(x)["logits"]) == 1 and plain.eval()(x).shape == (3, 10)
    assert plain.heads.reduce.weight.shape == (1, 12, 512)  # means alone
    assert small(windows=3)(x)["logits"][0].shape == (3, 7) and small(windows=3).feature_length == 60
    assert small(windows=2, multi_granularity=False).windows == 1
    shared = small(heads="shared")
    assert shared.heads.reduce.weight.shape[0] == 1 and shared.heads.classifier.weight.shape[0] == 21
    assert len(shared(x)["logits"]) == 21
    for key in ("triplet_feature", "test_feature"):
        a, b = (small(**{key: value}) for value in ("pre_bn", "post_bn"))
        if key == "test_feature":
            a(x), b(x)  # statistics of the batch norms
            assert not torch.allclose(a.eval()(x), b.eval()(x), rtol=0.01)
        else:
            assert not torch.allclose(a(x)["features"][0], b(x)["features"][0])
    level = small()(x)["features"]
    window = small(triplets="window")(x)["features"]
    assert torch.equal(level[1], torch.cat(window[1:3], 1))


def test_losses_are_means_over_heads() -> None:
    """Eqs. 3 and 5: N = 21 classifiers and M = 6 triplets."""
    identities = torch.tensor([0, 0, 1, 1])
    outputs = small()(torch.randn(4, 3, 96, 32))
    terms = [
        {"loss": "cross_entropy", "output": "logits", "options": {"label_smoothing": 0.1}},
        {"loss": "triplet", "output": "features", "options": {"margin": 1.0}},
    ]
    values = WeightedLoss(terms)(outputs, identities)
    by_head = [F.cross_entropy(t, identities, label_smoothing=0.1) for t in outputs["logits"]]
    torch.testing.assert_close(values["cross_entropy(logits)"], torch.stack(by_head).mean())
    hard = []
    for features in outputs["features"]:
        distances = torch.cdist(features, features)
        same = identities[:, None] == identities
        farthest = distances.masked_fill(~same, -1).amax(1)
        nearest = distances.masked_fill(same, float("inf")).amin(1)
        hard.append((farthest - nearest + 1).relu().mean())
    torch.testing.assert_close(values["triplet(features)"], torch.stack(hard).mean())


class ReadsOf(TorchDispatchMode):
    """Bytes that operators read of tensors as large as the fused map, and of views of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.reads: list[tuple[str, int]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not function.is_view:
            for tensor in (a for a in args if isinstance(a, Tensor)):
                if tensor.untyped_storage().nbytes() == self.size:
                    self.reads.append((str(function), tensor.numel() * tensor.element_size()))
        return function(*args, **(kwargs or {}))


def test_the_fused_map_is_read_once() -> None:
    """Channel attention and all windows together: its bytes once; step by step, more than twenty times."""
    size = 3 * 960 * 6 * 2 * 4  # bytes of the fused map of three images: 960 channels at 6x2
    reads = {}
    for impl in ("fused", "reference"):
        model = small(impl=impl).eval()
        assert sum(model.backbone.channels) == 960
        with torch.no_grad(), ReadsOf(size) as found:
            model(images())
        reads[impl] = found.reads
    assert [(name.split(".")[1], bytes) for name, bytes in reads["fused"]] == [("stripe_pool", size)]
    # The whole map's maximum and mean, the product with the factors, and 56 sixths of it, twice.
    expected = (3 + 2 * 56 / 6) * size
    assert sum(bytes for _, bytes in reads["reference"]) == pytest.approx(expected, rel=0.01)


def test_saved_and_loaded(tmp_path: Any) -> None:
    model = small(order=("C", "cat", "S"), stages=(2, 4), heads="shared", windows=3).eval()
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors").eval()
    assert again.options == model.options
    assert torch.equal(again(images()), model(images()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"windows": 5}, ValueError, r"windows must divide the map's height, 6 for images of 96x32, got 5"),
        ({"order": ("S", "C")}, ValueError, r'order must have "cat" exactly once.*got \(\'S\', \'C\'\)'),
        ({"order": ("cat", "S", "cat")}, ValueError, r'order must have "cat" exactly once'),
        ({"order": ("S", "S", "cat")}, ValueError, r'"S" and "C" at most once'),
        ({"order": ("S", "kat")}, ValueError, r"cat"),
        ({"order": "cat+C"}, ValueError, r"step in order"),
        ({"stages": ()}, ValueError, r"stages must be different numbers of 1, 2, 3, 4, got \(\)"),
        ({"stages": (0, 1)}, ValueError, r"stages must be different numbers"),
        ({"stages": (1, 5)}, ValueError, r"stages must be different numbers"),
        ({"stages": (2, 2)}, ValueError, r"stages must be different numbers"),
        ({"heads": "seperate"}, ValueError, r"separate"),
        ({"impl": "fast"}, ValueError, r"fused"),
        ({"multi_pool": 1}, TypeError, r"multi_pool must be a bool, got int"),
        ({"windows": 0}, ValueError, r"windows must be at least 1, got 0"),
        ({"spatial_kernel": 6}, ValueError, r"spatial_kernel must be odd, got 6"),
        ({"negative_slope": 1.5}, ValueError, r"negative_slope must be in \[0, 1\), got 1.5"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(**options)


def test_bad_images() -> None:
    """Another size is taken, unless its map can't be cut into the stripes."""
    model = small().eval()
    assert model(torch.randn(2, 3, 192, 64)).shape == (2, 210)
    with pytest.raises(ValueError, match=r"height of x must be a multiple of stripes \(6\), got 5"):
        model(torch.randn(2, 3, 80, 32))


def test_one_image_of_each_identity_has_no_triplet() -> None:
    outputs = small()(images())
    term = {"loss": "triplet", "output": "features", "options": {"margin": 1.0}}
    assert WeightedLoss([term])(outputs, torch.arange(3))["total"] == 0
