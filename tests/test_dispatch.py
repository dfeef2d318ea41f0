"""How the public functions reach the operators: plainly in eager mode, as themselves for everything else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

import reid_ops

SIGNAL = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PARTS = torch.randn(2, 2, 3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

# name of the operator, a function of one tensor, its argument
OPERATORS: list[tuple[str, Callable[[Tensor], Tensor], Tensor]] = [
    ("part_correlation", lambda x: reid_ops.part_correlation(x, PARTS, pool=2), SIGNAL),
    ("similarity_graph", lambda x: reid_ops.similarity_graph(x), SIGNAL[0]),
    ("polygon_erase", lambda x: reid_ops.polygon_erase(x, p=1.0, seed=3), SIGNAL),
]
each_operator = pytest.mark.parametrize(
    ("name", "function", "argument"), OPERATORS, ids=[name for name, *_ in OPERATORS]
)


def gradient(function: Callable[[Tensor], Tensor], argument: Tensor) -> Tensor:
    leaf = argument.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).square().sum(), leaf)[0]


@each_operator
def test_tracing_records_the_operator(
    name: str, function: Callable[[Tensor], Tensor], argument: Tensor
) -> None:
    leaf = argument.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants, and tracing is deprecated
        traced = torch.jit.trace(function, leaf, check_trace=False)
    assert f"reid_ops::{name}" in str(traced.graph)
    torch.testing.assert_close(traced(leaf), function(leaf), rtol=0, atol=0)

    def step(x: Tensor) -> Tensor:
        return torch.autograd.grad(function(x).square().sum(), x)[0]

    graph = make_fx(step)(leaf)
    assert any(f"reid_ops.{name}" in str(node.target) for node in graph.graph.nodes)
    torch.testing.assert_close(graph(leaf), gradient(function, argument), rtol=0, atol=0)


@each_operator
def test_the_operator_itself_is_differentiable(
    name: str, function: Callable[[Tensor], Tensor], argument: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gradient(function, argument)
    calls: list[str] = []

    def call(name: str, *arguments: Any) -> Any:
        calls.append(name)
        return getattr(torch.ops.reid_ops, name)(*arguments)

    monkeypatch.setattr(reid_ops._dispatch, "call", call)
    torch.testing.assert_close(gradient(function, argument), expected, rtol=0, atol=0)
    assert name in calls


@each_operator
def test_no_graph_is_built_without_need(
    name: str, function: Callable[[Tensor], Tensor], argument: Tensor
) -> None:
    assert function(argument).grad_fn is None
    with torch.no_grad():
        assert not function(argument.clone().requires_grad_()).requires_grad
    assert function(argument.clone().requires_grad_()).requires_grad


def doubled(operator: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """An operator of ours gets twice what it is to differentiate: autograd has to see the doubling."""
    if not str(operator).startswith("reid_ops."):
        return args
    return tuple(2 * x if isinstance(x, Tensor) and x.requires_grad else x for x in args)


class Doubling(Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, doubled(func, args), kwargs)


class DoublingMode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*doubled(func, args), **(kwargs or {}))


@each_operator
def test_overrides_get_the_operator_with_autograd_on(
    name: str, function: Callable[[Tensor], Tensor], argument: Tensor
) -> None:
    expected = gradient(lambda x: function(2 * x), argument)
    leaf = argument.clone().requires_grad_()
    with DoublingMode():
        output = function(leaf)
    (found,) = torch.autograd.grad(output.square().sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found = gradient(function, argument.as_subclass(Doubling))
    torch.testing.assert_close(found.as_subclass(Tensor), expected, rtol=0, atol=0)


@each_operator
def test_forward_mode_is_refused(name: str, function: Callable[[Tensor], Tensor], argument: Tensor) -> None:
    """Torch would drop the tangents of an operator without a rule for them, and say nothing."""
    message = f"{name}: forward-mode differentiation .* is not supported"
    for transform in (torch.func.jacfwd, lambda f: lambda x: torch.func.jvp(f, (x,), (x,))):
        with pytest.raises(NotImplementedError, match=message):
            transform(function)(argument)
    with forward_ad.dual_level():
        for leaf in (argument, argument.clone().requires_grad_()):
            with pytest.raises(NotImplementedError, match=message):
                function(forward_ad.make_dual(leaf, torch.ones_like(leaf)))
        function(argument)  # no tangent, no error


@each_operator
def test_the_node_has_the_operators_name(
    name: str, function: Callable[[Tensor], Tensor], argument: Tensor
) -> None:
    nodes, names = [function(argument.clone().requires_grad_()).grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is not None:
            names.append(node.name())
            nodes += [following for following, _ in node.next_functions]
    assert f"reid_ops_{name}_Backward" in names
