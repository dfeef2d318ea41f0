"""Grad-CAM: against its definition, without a trace in the model, and as panels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reid_models import create_model
from reid_models.report import grad_cam, plot_cam_panels
from reid_models.report.cam import OPACITY

SIZE = (64, 32)
CLASSES = 5


def network(name: str = "baseline", **options: object) -> Any:
    torch.manual_seed(1)
    model = create_model(name, CLASSES, backbone="resnet10t", image_size=SIZE, **options)
    for _ in range(3):  # so that batch norm has seen something
        model(torch.randn(8, 3, *SIZE))
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def expected(model: Any, images: Tensor, target: str, numbers: list[int] | None, stage: int) -> Tensor:
    """Selvaraju et al., Eqs. 1 and 2: weights are means of gradients, ReLU over the weighted sum."""
    model.eval()
    kept: list[Tensor] = []
    layer = model.backbone.body.get_submodule(model.backbone.layers[stage - 1])
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    gmp = model.backbone(images).amax((2, 3))
    handle.remove()
    if target == "norm":
        scores = gmp.square().sum(1).sqrt()
    else:
        logits = model.head.classifier(model.head.cbr(gmp[:, :, None, None]).flatten(1))
        scores = logits.amax(1) if numbers is None else logits[range(len(images)), numbers]
    (gradient,) = torch.autograd.grad(scores.sum(), kept[0])
    maps = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu()
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return ((maps - low) / (high - low + 1e-7)).detach()


def at_cells(maps: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Full-size maps back at the size of the features, near enough to compare."""
    small = F.interpolate(torch.from_numpy(maps)[None], shape[-2:], mode="area")[0]
    return small


@pytest.mark.parametrize("name", ["baseline", "hsgnet"])
@pytest.mark.parametrize(("target", "numbers"), [("norm", None), ("class", None), ("class", [4, 0, 2])])
def test_maps_are_those_of_the_definition(
    images: Tensor, name: str, target: str, numbers: list[int] | None
) -> None:
    model = network(name)
    maps = grad_cam(model, images, target=target, classes=numbers, layer="stage3")
    wanted = expected(model, images, target, numbers, 3)
    assert maps.shape == (3, *SIZE) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1
    small = at_cells(maps, wanted.shape)
    for got, want in zip(small, wanted, strict=True):
        if want.max() == 0:
            assert got.max() == 0
            continue
        # Both are scaled anew after resizing, so what remains is where the weight is.
        correlation = torch.corrcoef(torch.stack([got.flatten(), want.flatten()]))[0, 1]
        assert correlation > 0.9


class CornerBody(nn.Module):
    """A trunk whose last features are 0 but in the upper right corner."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((8, 4))
        self.corner = nn.Dropout(0.0)  # a layer to hook that gives what it gets

    def forward(self, images: Tensor) -> list[Tensor]:
        mask = torch.zeros(1, 1, 8, 4)
        mask[..., 0, 3] = 1
        return [self.corner(self.pool(images) * mask)]


def test_maps_of_a_network_that_sees_one_corner() -> None:
    model = network()
    model.backbone.body, model.backbone.layers = CornerBody(), ("corner",) * 4
    (found,) = grad_cam(model, torch.ones(1, 3, *SIZE))
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert row < 8 and column >= 24
    assert found[16:].max() == 0 and found[:, :16].max() == 0


def test_classes_differ(images: Tensor) -> None:
    model = network()
    maps = [
        grad_cam(model, images, target="class", classes=[number] * 3, layer="stage3")
        for number in range(CLASSES)
    ]
    assert any(np.abs(maps[0] - other).max() > 0.05 for other in maps[1:])


def test_maps_do_not_depend_on_batches(images: Tensor) -> None:
    model = network("hsgnet")
    whole = grad_cam(model, images, target="class", classes=[1, 2, 3])
    parts = grad_cam(model, images, target="class", classes=[1, 2, 3], batch_size=2)
    np.testing.assert_allclose(whole, parts, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("target", ["norm", "class"])
def test_the_model_is_not_changed(images: Tensor, training: bool, target: str) -> None:
    model = network("hsgnet").train(training)
    model.head.classifier.requires_grad_(False)
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inputs = images.clone()
    grad_cam(model, inputs, target=target)
    assert model.training == training and model.backbone.training == training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(parameter.grad is None for parameter in list(model.parameters())[1:])
    assert not model.head.classifier.weight.requires_grad and first.requires_grad
    assert torch.equal(inputs, images) and not inputs.requires_grad and inputs.grad is None
    assert not any(module._forward_hooks for module in model.modules())


def test_bad_arguments(images: Tensor) -> None:
    model = network()
    with pytest.raises(TypeError, match="model must be one of create_model, got Linear"):
        grad_cam(nn.Linear(2, 2), images)  # type: ignore[arg-type]
    for options, message in (
        ({"target": "classes"}, 'did you mean "class"'),
        ({"layer": "stage0"}, r"unknown layer of baseline 'stage0'; did you mean \"stage4\""),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"classes": [1, 2, 3]}, "classes must be None"),
        ({"target": "class", "classes": [1, 2]}, r"classes must be 3 numbers in \[0, 5\)"),
        ({"target": "class", "classes": [1, 2, 5]}, r"classes must be 3 numbers in \[0, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            grad_cam(model, images, **options)  # type: ignore[arg-type]
    for wrong in (images[0], images[:0], None):
        with pytest.raises(ValueError, match="images must be a tensor"):
            grad_cam(model, wrong)  # type: ignore[arg-type]


def test_panels() -> None:
    pictures = [np.full((20, 10, 3), value, np.uint8) for value in (50, 200)]
    maps = {
        "baseline": np.zeros((2, 8, 4), np.float32),
        "_HSGNet$": np.random.default_rng(0).random((2, 8, 4)),
    }
    figure = plot_cam_panels(pictures, maps, labels=["id 1", "id 2"], title="Panels")
    assert len(figure.axes) == 6
    assert [text.get_text() for text in figure.texts] == [
        "Panels", "image", "id 1", "id 2", "baseline", "_HSGNet$",
    ]  # fmt: skip
    for axes, picture in zip(figure.axes, pictures * 3, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), picture)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 2, 2, 2, 2]
    over = figure.axes[5].images[1]
    np.testing.assert_array_equal(over.get_array(), maps["_HSGNet$"][1])
    assert over.get_clim() == (0, 1) and over.get_alpha() == OPACITY
    assert list(over.get_extent()) == list(
        figure.axes[5].images[0].get_extent()
    )  # the map lies on the picture
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    box = figure.axes[2].get_window_extent()
    middle = canvas[canvas.shape[0] - round((box.y0 + box.y1) / 2), round((box.x0 + box.x1) / 2), :3]
    # Where the map is 0 the picture is under black of that opacity.
    np.testing.assert_allclose(middle, 50 * (1 - OPACITY), atol=3)


def test_bad_panels() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="must not be empty"):
        plot_cam_panels([], {})
    with pytest.raises(ValueError, match=r"maps of 'a' must have shape \(1, h, w\), got \(2, 4, 4\)"):
        plot_cam_panels([picture], {"a": np.zeros((2, 4, 4))})
    with pytest.raises(ValueError, match="labels must be 1 texts, got 2"):
        plot_cam_panels([picture], {"a": np.zeros((1, 4, 4))}, labels=["1", "2"])
