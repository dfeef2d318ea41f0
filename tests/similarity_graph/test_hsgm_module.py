"""HSGM as a module: parameters, state dict, insertion into networks, and what it refuses."""

# ruff: noqa: E501 (tables, a case a line)

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import reid_ops
from tests.conftest import Backend
from tests.similarity_graph.support import assert_close, make, run


@pytest.mark.parametrize("frozen", ["theta", "delta", "norm.weight", "x"])
def test_frozen_inputs(backend: Backend, frozen: str) -> None:
    """Whatever needs no gradient gets none, and the others theirs."""
    shape = (2, 5, 8, 6)
    x, grad = torch.randn(2, *shape, dtype=torch.float64, device=backend.device)
    expected = run(make(shape, backend.device), x, grad)
    module = make(shape, backend.device)
    x.requires_grad_(frozen != "x")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name != frozen)
    module(x).backward(grad)
    for name, parameter in [("x", x), *module.named_parameters()]:
        if name == frozen:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[f"{name}.grad"])


def test_parameters_are_the_papers() -> None:
    """What the equations give at the paper's place, and one state dict for both implementations."""
    for size, count in (((1024, 16, 16), 23_808), ((1024, 16, 8), 22_656), ((256, 64, 64), 42_240)):
        modules = [reid_ops.HSGM(*size, impl=impl) for impl in ("fused", "reference")]
        assert all(sum(p.numel() for p in module.parameters()) == count for module in modules)
        modules[1].load_state_dict(modules[0].state_dict())
    shared = reid_ops.HSGM(64, 8, 4, share_parameters=True), reid_ops.HSGM(64, 8, 4, share_parameters="level")
    assert [tuple(module.weight.shape) for module in shared] == [(1, 64), (3, 64)]
    assert all(module.running_mean.shape == (7, 64) for module in shared)
    module = reid_ops.HSGM(8, 8, 4, spatial=False)
    assert module.theta is None and sorted(module.state_dict()) == [
        "delta", "norm.bias", "norm.num_batches_tracked", "norm.running_mean", "norm.running_var", "norm.weight",
    ]  # fmt: skip


def test_initial_values() -> None:
    """Ones; or uniform in one over the root of a graph's nodes; and a start as the identity, times three."""
    module = reid_ops.HSGM(400, 10, 6)
    assert module.theta is not None and module.delta is not None
    assert all(bool((p == 1).all()) for p in (module.theta, module.delta, module.weight))
    module = reid_ops.HSGM(400, 10, 6, init="uniform", zero_init_residual=True)
    assert module.theta is not None and module.delta is not None
    for values, bound in (
        (module.delta, 400**-0.5),
        (module.theta[0], 60**-0.5),
        (module.theta[1, :, 5:], 30**-0.5),
        (module.theta[2, :, 2:5], 18**-0.5),  # floor(10 / 4) to floor(20 / 4)
    ):
        assert 0.8 * bound < values.abs().max() <= bound and abs(values.mean()) < 0.4 * bound
    x = torch.randn(2, 400, 10, 6)
    assert not module.weight.any() and not module.bias.any()
    torch.testing.assert_close(module(x), 3 * x)
    without = reid_ops.HSGM(5, 8, 6, spatial=False, init="uniform")
    assert without.theta is None
    kept = reid_ops.HSGM(5, 8, 6, spatial=False, ablate="edges")
    assert kept.theta is not None


@pytest.mark.parametrize("assign", [False, True])
def test_module_made_on_meta(backend: Backend, assign: bool) -> None:
    """A state dict is all that a module made without memory needs, in both ways of loading it."""
    shape = (2, 6, 9, 5)
    x, grad = torch.randn(2, *shape, dtype=torch.float64, device=backend.device)
    filled = make(shape, backend.device)
    with torch.device("meta"):
        module = reid_ops.HSGM(*shape[1:]).double()
    if not assign:
        module = module.to_empty(device=backend.device)
    module.load_state_dict(filled.state_dict(), assign=assign)
    for parameter in module.parameters():
        parameter.requires_grad_()
    assert {buffer.device.type for buffer in module.buffers()} == {backend.device.split(":")[0]}
    assert len(list(module.buffers())) == 3  # all of them in the state dict
    assert_close(run(module, x, grad), run(make(shape, backend.device), x, grad), 0.0)


class Body(nn.Module):
    """A network with a Sequential stage and a bare layer, as torchvision's ResNets have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layer3 = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12))
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.conv1(x)).mean((2, 3)))


def test_insert_after() -> None:
    model = Body().double()
    before = model.state_dict().keys()
    module = reid_ops.HSGM.insert_after(model, "layer3", (33, 32), scales=(1, 2))
    assert (module.channels, module.height, module.width) == (12, 9, 8) and module.scales == (1, 2)
    assert before <= model.state_dict().keys() and "layer3.hsgm.theta" in model.state_dict()
    assert model.training and int(model.layer3[1].num_batches_tracked) == 0
    assert model(torch.randn(4, 3, 33, 32).double()).shape == (4, 2)
    assert module.norm.num_batches_tracked == 1
    reid_ops.HSGM.insert_after(model, "conv1", (33, 32))
    assert "conv1.body.weight" in model.state_dict()
    assert model(torch.randn(4, 3, 33, 32).double()).shape == (4, 2)
    with pytest.raises(ValueError, match="has a module hsgm already"):
        reid_ops.HSGM.insert_after(model, "layer3", (33, 32))
    with pytest.raises(ValueError, match="no layer 'layer9'"):
        reid_ops.HSGM.insert_after(model, "layer9", (33, 32))
    with pytest.raises(ValueError, match=r"layer 'head' does not give features \(N, C, H, W\)"):
        reid_ops.HSGM.insert_after(model, "head", (33, 32))


def test_insert_after_a_sequential_with_its_own_forward() -> None:
    """It would not run what is appended, or not last: it is wrapped."""

    class FirstTwo(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x))

    class Named(nn.Sequential):
        pass

    for kind, name in ((FirstTwo, "layer3.body.0.weight"), (Named, "layer3.0.weight")):
        model = Body()
        model.layer3 = kind(*model.layer3)
        module = reid_ops.HSGM.insert_after(model, "layer3", (32, 32))
        assert name in model.state_dict()
        model(torch.randn(2, 3, 32, 32))
        assert module.norm.num_batches_tracked == 1


def test_insert_after_in_a_resnet() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18()
    before = dict(model.state_dict())
    module = reid_ops.HSGM.insert_after(model, "layer3", (128, 64))
    assert (module.channels, module.height, module.width) == (256, 8, 4)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert model(torch.randn(2, 3, 128, 64)).shape == (2, 1000)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "channels": ({"channels": 0}, ValueError, r"channels must be in \[1, 32768\], got 0"),
    "height": ({"height": 2.0}, TypeError, "height must be an int, got float"),
    "no levels": ({"levels": ()}, ValueError, "levels must hold 1 to 6 numbers of maps, got 0"),
    "levels fall": ({"levels": (2, 1)}, ValueError, r"levels must increase, got \(2, 1\)"),
    "levels too many": ({"levels": (1, 9)}, ValueError, "9 x 1 maps do not fit features of 8 x 6"),
    "levels cut too often": ({"height": 200, "levels": (29, 30, 31)}, ValueError, "levels must cut the rows at fewer than 64 places"),
    "grid": ({"levels": (1, 3), "split": "grid"}, ValueError, "levels must be powers of two to split a grid, got 3"),
    "split": ({"split": "columns"}, ValueError, 'split must be one of "stripes", "grid", got \'columns\''),
    "scales": ({"scales": ()}, ValueError, "scales must hold 1 to 8 window sizes, got 0"),
    "scale": ({"scales": (0,)}, ValueError, r"scales must be in \[1, 32768\], got 0"),
    "edges": ({"edges": "cosine"}, ValueError, "edges must be one of"),
    "neighborhood": ({"neighborhood": 5}, ValueError, "neighborhood of a grid must be 4, 8 or"),
    "channel_window": ({"channel_window": 0}, ValueError, r"channel_window must be in \[1, 181\], got 0"),
    "channel_window type": ({"channel_window": ("radius", 2)}, TypeError, "channel_window must be an int, got tuple"),
    "levels type": ({"levels": 3}, TypeError, "levels must be a sequence of ints, got int"),
    "scales type": ({"scales": None}, TypeError, "scales must be a sequence of ints, got NoneType"),
    "eps": ({"eps": -1e-5}, ValueError, r"eps must be in \[0, .*\], got -1e-05"),
    "eps type": ({"eps": "small"}, TypeError, "eps must be a number, got str"),
    "momentum": ({"momentum": 1.5}, ValueError, r"momentum must be in \[0, 1\], got 1.5"),
    "momentum type": ({"momentum": None}, TypeError, "momentum must be a number, got NoneType"),
    "residual": ({"residual": 0.5}, TypeError, "residual must be a bool, got float"),
    "negative_slope": ({"negative_slope": float("nan")}, ValueError, "negative_slope must be in .*, got nan"),
    "edges type": ({"edges": ["softmax"]}, ValueError, "edges must be one of"),
    "pooling": ({"pooling": "max"}, ValueError, "pooling must be one of"),
    "impl": ({"impl": "fast"}, ValueError, 'impl must be one of "fused", "reference", got \'fast\''),
    "ablate": ({"ablate": "nodes"}, ValueError, 'ablate must be one of "graph", "edges", got \'nodes\''),
    "upsample": ({"upsample": "nearest"}, ValueError, 'upsample must be one of "stitch", "interp"'),
    "upsample nests": ({"upsample": "interp", "levels": (1, 2, 3)}, ValueError, r"multiples of the level before, got \(1, 2, 3\)"),
    "upsample from one": ({"upsample": "interp", "levels": (2, 4)}, ValueError, "needs a first level of one map"),
    "init": ({"init": "normal"}, ValueError, 'init must be one of "ones", "uniform", got \'normal\''),
    "zero_init_residual": ({"zero_init_residual": 1}, TypeError, "zero_init_residual must be a bool, got int"),
    "share_parameters": ({"share_parameters": "map"}, ValueError, "share_parameters must be False, True or"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_options(name: str) -> None:
    change, error, message = BAD[name]
    arguments = {"channels": 4, "height": 8, "width": 6, **change}
    size = [arguments.pop(key) for key in ("channels", "height", "width")]
    with pytest.raises(error, match=message):
        reid_ops.HSGM(*size, **arguments)  # type: ignore[arg-type]


def test_options_are_fixed() -> None:
    """A change would reach one implementation and not the other."""
    module = reid_ops.HSGM(4, 8, 6, neighborhood=["radius", 2])  # type: ignore[arg-type]  # of a JSON file
    assert module.neighborhood == ("radius", 2)
    for name, value in (("eps", 0.1), ("negative_slope", 0.0), ("edges", "none"), ("divisions", [])):
        with pytest.raises(AttributeError, match=f"{name} is fixed"):
            setattr(module, name, value)
    module.impl, module.momentum, module.sync_batchnorm = "reference", 0.5, True
    copied = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert copied.extra_repr() == module.extra_repr()
    copied(torch.rand(2, 4, 8, 6))


def test_bad_input() -> None:
    module = reid_ops.HSGM(4, 8, 6)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 4, 8, 6\), got \(2, 4, 6, 8\)"):
        module(torch.zeros(2, 4, 6, 8))
    with pytest.raises(ValueError, match=r"x must have shape \(N, C, H, W\), got \(4, 8, 6\)"):
        module(torch.zeros(4, 8, 6))
    with pytest.raises(TypeError, match=r"x must be float32.*got int64"):
        module(torch.zeros(2, 4, 8, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match="x must be on the device of the parameters"):
        module(torch.zeros(2, 4, 8, 6, device="meta"))
    for impl in ("fused", "reference"):
        tiny = reid_ops.HSGM(4, 4, 1, impl=impl)
        with pytest.raises(ValueError, match="more than one value per channel"):
            tiny(torch.zeros(1, 4, 4, 1))
        assert tiny.eval()(torch.zeros(1, 4, 4, 1)).shape == (1, 4, 4, 1)


def test_operators_check_too(backend: Backend) -> None:
    """Calls that bypass the module raise instead of reading out of bounds."""
    if backend.name == "cuda":
        pytest.skip("these tensors live on the CPU")
    ops = getattr(torch.ops, backend.library)
    x, planes, by_map = torch.zeros(2, 4, 8, 6), torch.zeros(2, 1, 8, 6), torch.zeros(2, 1, 4)
    for operator, arguments, message in (
        (ops.similarity_graph_squeeze, (x[0], [1], [1]), "features must have shape"),
        (ops.similarity_graph_squeeze, (x, [], []), "there must be 1 to 6 levels"),
        (ops.similarity_graph_squeeze, (x, [1, 2], [1]), "there must be 1 to 6 levels"),
        (ops.similarity_graph_squeeze, (x, [9], [1]), "none empty, got 9x1 maps on 8x6"),
        (ops.similarity_graph_excite, (x, planes[:1], by_map, by_map, [1], [1], 1.0, 1.0, 0.2), "centred must have shape"),
        (ops.similarity_graph_excite, (x, planes, by_map.double(), by_map, [1], [1], 1.0, 1.0, 0.2), "scale must be float32"),
        (ops.similarity_graph_sums, (x, planes, by_map, by_map[..., :2], [1], [1], 1.0, 0.2), "shift must have shape"),
        (ops.similarity_graph_input, (x, None, by_map[:, :0], [1], [1], 1.0), "grad_means must have shape"),
        (ops.similarity_graph_nodes, (planes[:, 0], planes, [1], [1], [1], 0, 1, False, 1), "theta must have shape"),
        (ops.similarity_graph_nodes, (planes[:, 0], planes[:1, None, 0], [1], [1], [0], 0, 1, False, 1), "scales must be >= 1"),
        (ops.similarity_graph_nodes, (planes[:, 0], planes[:1], [1], [1], [1], 9, 1, False, 1), "pooling must be in"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=message):
            operator(*arguments)


@pytest.mark.parametrize("training", [True, False])
def test_forward_mode_is_for_the_reference(training: bool) -> None:
    """Torch would drop the tangents of the fused operators, and say nothing."""
    module = reid_ops.HSGM(4, 8, 6).train(training).requires_grad_(False)
    with forward_ad.dual_level():
        x = forward_ad.make_dual(torch.randn(2, 4, 8, 6), torch.randn(2, 4, 8, 6))
        with pytest.raises(
            NotImplementedError, match=r"HSGM: forward-mode differentiation .* is not supported"
        ):
            module(x)
        module.impl = "reference"
        assert forward_ad.unpack_dual(module(x)).tangent.abs().max() > 0
