"""Every operator under torch's transforms, on empty batches, and on views whose sign is not in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import reid_ops
from tests.conftest import Backend

PARTS = torch.randn(2, 2, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

# Of images (2, 3, 8, 8), as functions that torch.func can differentiate.
DIFFERENTIABLE: dict[str, Callable[[Tensor], Tensor]] = {
    "part_correlation": lambda x: reid_ops.part_correlation(x, PARTS[: len(x)].to(x.device), pool=2),
    "polygon_erase": lambda x: reid_ops.polygon_erase(x, p=1.0, seed=1),  # type: ignore[return-value, dict-item]
    "random_erase": lambda x: reid_ops.random_erase(x, p=1.0, seed=1),  # type: ignore[return-value, dict-item]
    "occlude": lambda x: reid_ops.occlude(x, 0.3, "both"),
    "similarity_graph": lambda x: reid_ops.similarity_graph(x.mean(1)),
    "stripe_pool": lambda x: reid_ops.stripe_pool(x, 4, stacked=True),
}


def images(backend: Backend, *more: int) -> Tensor:
    return torch.randn(*more, 2, 3, 8, 8, dtype=torch.float64, device=backend.device)


def module_of(backend: Backend, **options: Any) -> reid_ops.HSGM:
    return reid_ops.HSGM(3, 8, 8, **options).to(backend.device, torch.float64).eval()


def functions(backend: Backend) -> dict[str, Callable[[Tensor], Tensor]]:
    return {**DIFFERENTIABLE, "HSGM": module_of(backend)}


NAMES = [*DIFFERENTIABLE, "HSGM"]


@pytest.mark.parametrize("name", NAMES)
def test_func_grad(backend: Backend, name: str) -> None:
    """As backward, and by vmap over several images' losses; of a vjp, too."""
    function, x = functions(backend)[name], images(backend)
    leaf = x.clone().requires_grad_()
    function(leaf).square().sum().backward()
    assert leaf.grad is not None

    def loss(x: Tensor) -> Tensor:
        return function(x).square().sum()

    assert torch.equal(torch.func.grad(loss)(x), leaf.grad)
    output, pullback = torch.func.vjp(function, x)
    assert torch.equal(pullback(2 * output)[0], leaf.grad)


@pytest.mark.parametrize("name", NAMES)
def test_vmap(backend: Backend, name: str) -> None:
    """The function of every slice, and its gradient by slices."""
    function, x = functions(backend)[name], images(backend, 3)
    expected = torch.stack([function(part) for part in x])
    torch.testing.assert_close(torch.vmap(function)(x), expected)

    def loss(x: Tensor) -> Tensor:
        return function(x).square().sum()

    gradients = torch.stack([torch.func.grad(loss)(part) for part in x])
    torch.testing.assert_close(torch.vmap(torch.func.grad(loss))(x), gradients)


@pytest.mark.parametrize("name", ["part_correlation", "similarity_graph", "stripe_pool"])
def test_second_derivatives_by_func(backend: Backend, name: str) -> None:
    function, x = functions(backend)[name], images(backend)[:1, :, :4, :4]

    def loss(x: Tensor) -> Tensor:
        return function(x).pow(3).sum()

    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), leaf)
    found = torch.func.grad(lambda x: torch.func.grad(loss)(x).square().sum())(x)
    torch.testing.assert_close(found, expected)


def test_second_derivatives_of_hsgm_are_refused(backend: Backend) -> None:
    """The fused passes are once differentiable, under transforms as without."""
    module, x = module_of(backend), images(backend)

    def loss(x: Tensor) -> Tensor:
        return module(x).square().sum()

    with pytest.raises(RuntimeError, match="once differentiable; use impl="):
        torch.func.grad(lambda x: torch.func.grad(loss)(x).square().sum())(x)


def test_gradients_of_parameters_by_func(backend: Backend) -> None:
    """torch.func.functional_call, as for ensembles and per-sample gradients."""
    module, x = module_of(backend), images(backend)
    parameters = dict(module.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(module, parameters, (x,)).square().sum()

    found = torch.func.grad(loss)(parameters)
    loss(parameters).backward()
    for name, parameter in parameters.items():
        assert torch.equal(found[name], parameter.grad), name  # type: ignore[arg-type]


def test_training_under_a_transform_is_refused(backend: Backend) -> None:
    """Running statistics change in place; torch says so, as of its own batch norms."""
    for impl in ("fused", "reference"):
        module = module_of(backend, impl=impl).train()
        with pytest.raises(RuntimeError, match="in-place operation"):
            torch.func.grad(lambda x, module=module: module(x).sum())(images(backend))


@pytest.mark.parametrize("name", NAMES)
def test_backward_of_an_empty_batch(backend: Backend, name: str) -> None:
    x = images(backend)[:0].requires_grad_()
    output = functions(backend)[name](x)
    output.sum().backward()
    assert output.shape[0] == 0 and x.grad is not None and x.grad.shape == x.shape


def negated(backend: Backend) -> Tensor:
    """A view of a conjugate's imaginary part: its elements' signs are turned when they are read."""
    view = torch.imag(torch.randn(2, 3, 8, 8, dtype=torch.complex128, device=backend.device).conj())
    assert view.is_neg()
    return view


@pytest.mark.parametrize("name", NAMES)
def test_a_negated_view(backend: Backend, name: str) -> None:
    function, view = functions(backend)[name], negated(backend)
    assert torch.equal(function(view), function(view.clone()))


@pytest.mark.parametrize("erase", [reid_ops.polygon_erase, reid_ops.random_erase])
def test_in_place_on_a_negated_view(backend: Backend, erase: Callable[..., Any]) -> None:
    view = negated(backend)
    expected, mask, attempts = erase(view.clone(), p=1.0, seed=1, return_mask=True, return_attempts=True)
    found = erase(view, p=1.0, seed=1, inplace=True, return_mask=True, return_attempts=True)
    assert found[0] is view
    for ours, theirs in zip(found, (expected, mask, attempts), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", [*NAMES, "HSGM in training", "augment", "csn_similarity"])
def test_fullgraph(name: str) -> None:
    """One graph without a break, forward and backward."""
    x = torch.rand(2, 3, 8, 8)
    parts = PARTS.float()
    module = reid_ops.HSGM(3, 8, 8).train(name == "HSGM in training")
    others: dict[str, Callable[[Tensor], Tensor]] = {
        "part_correlation": lambda x: reid_ops.part_correlation(x, parts, pool=2),
        "csn_similarity": lambda x: reid_ops.csn_similarity(x, x, parts, parts),
        "augment": lambda x: reid_ops.augment(
            (255 * x).detach().byte(), size=(8, 8), seed=1, erase={}, polygon={}, layout="NCHW"
        ),
        "HSGM": module,
        "HSGM in training": module,
    }
    function = {**DIFFERENTIABLE, **others}[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    outputs = compiled(found), function(expected)
    torch.testing.assert_close(*outputs)
    if name != "augment":
        for output in outputs:
            output.square().sum().backward()
        torch.testing.assert_close(found.grad, expected.grad)
