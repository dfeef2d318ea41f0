"""RandomPolygonErasing and RandomErasing as modules and transforms, and occluded test sets."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.data import DataLoader, Dataset

import reid_ops
from reid_ops import reference
from reid_ops.polygon_erasing.rule import Rule
from tests.conftest import Backend
from tests.polygon_erasing.test_erase import random_images


def torchvision_v2() -> Any:
    pytest.importorskip("torchvision", reason="needs torchvision")
    from torchvision.transforms import v2

    return v2


# ------------------------------------------------------------------------------------ transforms


def test_modules_equal_the_functions(backend: Backend) -> None:
    images = random_images((4, 3, 30, 20), device=backend.device)
    pairs = (
        (reid_ops.RandomPolygonErasing(p=0.9, seed=6, fill="channel"), reid_ops.polygon_erase),
        (reid_ops.RandomErasing(p=0.9, seed=6, fill="channel", anchor="center"), reid_ops.random_erase),
    )
    for module, function in pairs:
        options = {"anchor": "center"} if function is reid_ops.random_erase else {}
        whole = torch.cat([images, images])
        expected = function(whole, p=0.9, seed=6, fill="channel", **options)  # type: ignore[operator]
        assert torch.equal(torch.cat([module(images), module(images)]), expected)
        module.first_index = 0
        alone = torch.stack([module(image) for image in whole])
        assert torch.equal(alone, expected)
        assert module.first_index == 8 and not list(module.parameters())
        copied = pickle.loads(pickle.dumps(module))
        assert torch.equal(copied(images), module(images))
        assert copied.first_index == module.first_index == 12
        expected_repr = {
            reid_ops.polygon_erase: "RandomPolygonErasing(p=0.9, fill='channel', seed=6)",
            reid_ops.random_erase: "RandomErasing(p=0.9, placement='center', fill='channel', seed=6)",
        }
        assert repr(module) == expected_repr[function].replace("placement", "anchor")
        slow = type(module)(p=0.9, seed=6, fill="channel", impl="reference", **options)
        assert torch.equal(torch.cat([slow(images), slow(images)]), expected[:8])


def test_published_code_preset() -> None:
    rule = reid_ops.RandomPolygonErasing.published_code(p=1.0).rule
    assert (rule.placement, rule.fill, rule.points, rule.area) == ("published_code", "mean", 20, (0.02, 0.45))
    assert rule.mean == (0.4914, 0.4822, 0.4465)
    images = torch.zeros(8, 3, 64, 32)
    erased = reid_ops.RandomPolygonErasing.published_code(p=1.0)(images)
    colours = erased.flatten(2).amax(2)
    assert torch.equal(colours, torch.tensor([0.4914, 0.4822, 0.4465]).expand(8, 3))


def test_samples_keep_their_structure() -> None:
    module = reid_ops.RandomPolygonErasing(p=1.0)
    image, target = torch.rand(3, 20, 10), torch.arange(4)
    out, label = module(image, 7)
    assert out.shape == image.shape and not torch.equal(out, image) and label == 7
    sample = module({"image": image, "target": target, "name": "a"})
    assert torch.equal(sample["target"], target) and not torch.equal(sample["image"], image)
    assert module(torch.rand(2, 5, 3, 9, 9)).shape == (2, 5, 3, 9, 9)


@pytest.mark.parametrize("seed", [3, torch.tensor([3])], ids=["int", "tensor"])
def test_compiles_once(backend: Backend, seed: Any) -> None:
    """A module with a seed counts its images; that is no reason to compile again."""
    images = random_images((4, 3, 20, 12), device=backend.device)
    counter = CompileCounterWithBackend("aot_eager")
    module = reid_ops.RandomPolygonErasing(p=1.0, seed=seed)
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    for call in range(12):
        expected = reid_ops.polygon_erase(images, p=1.0, seed=3, first_index=4 * call)
        assert torch.equal(compiled(images), expected)
    assert counter.frame_count == 1 and module.first_index == 48


def test_gradients_of_two_calls(backend: Backend) -> None:
    """The count goes on between forward and backward."""
    images = random_images((4, 3, 20, 12), device=backend.device).requires_grad_()
    seed = torch.tensor([3], device=backend.device)
    module = reid_ops.RandomPolygonErasing(p=1.0, seed=seed)
    (module(images).sum() + module(images).sum()).backward()
    masks = [
        reid_ops.polygon_erase(images, p=1.0, seed=3, first_index=k, return_mask=True)[1] for k in (0, 4)
    ]
    kept = sum((~mask).float() for mask in masks)
    assert images.grad is not None and torch.equal(images.grad, kept[:, None].expand_as(images))


def test_in_place() -> None:
    """The tensor given is what changes and what comes back, or an error says why it can't."""
    module = reid_ops.RandomPolygonErasing(p=1.0, inplace=True)
    for shape in ((3, 20, 10), (2, 3, 20, 10), (2, 5, 3, 20, 10), (0, 2, 3, 20, 10)):
        images = torch.rand(shape)
        before = images.clone()
        assert module(images) is images and (images.numel() == 0 or not torch.equal(images, before))
    images = torch.zeros(5, 2, 3, 20, 10).transpose(0, 1)
    with pytest.raises(ValueError, match=r"RandomPolygonErasing: images must have leading dimensions"):
        module(images)
    assert (images == 0).all()
    assert reid_ops.RandomPolygonErasing(p=1.0)(images).shape == images.shape


def test_bad_arguments_of_modules() -> None:
    for arguments, message in (
        ({"impl": "fast"}, 'impl must be "fused" or "reference", got \'fast\''),
        ({"seed": torch.zeros(2, dtype=torch.int64)}, r"seed must have one element, got shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=f"RandomErasing: {message}"):
            reid_ops.RandomErasing(**arguments)  # type: ignore[arg-type]
    on_a_device = reid_ops.RandomErasing(seed=torch.zeros(1, dtype=torch.int64, device="meta"))
    assert on_a_device.seed is not None


class _Images(Dataset[Tensor]):
    def __init__(self, transform: nn.Module) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(torch.zeros(3, 32, 16))


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("source", ["torch", "generator", "int", "tensor"])
def test_in_data_loader_workers(source: str, start: str) -> None:
    """Two worker processes, two epochs: no two images alike, and all again from the loader's generator."""
    if start == "spawn" and source != "int":
        pytest.skip("spawning takes seconds")

    def run() -> Tensor:
        options: dict[str, Any] = {
            "torch": {},
            "generator": {"generator": torch.Generator().manual_seed(1)},
            "int": {"seed": 1},
            "tensor": {"seed": torch.tensor([1])},
        }[source]
        loader = DataLoader(
            _Images(reid_ops.RandomPolygonErasing(p=1.0, **options)), batch_size=2, num_workers=2,
            generator=torch.Generator().manual_seed(0), multiprocessing_context=start,
        )  # fmt: skip
        return torch.cat([batch for _ in range(2) for batch in loader])

    images = run()
    assert len({tuple(image.flatten().tolist()) for image in images}) == 16
    assert torch.equal(run(), images)


def test_with_torchvision() -> None:
    """In a v2 pipeline: tensors, tv_tensors, PIL images and samples of them."""
    v2 = torchvision_v2()
    from torchvision import tv_tensors

    module = reid_ops.RandomPolygonErasing(p=1.0, seed=1)
    pipeline = v2.Compose([v2.RandomHorizontalFlip(0.0), module])
    tensor = torch.randint(0, 256, (3, 40, 20), dtype=torch.uint8)
    expected = reid_ops.polygon_erase(tensor[None], p=1.0, seed=1)[0]

    def run(sample: Any) -> Any:
        module.first_index = 0
        return pipeline(sample)

    assert torch.equal(run(tensor), expected)
    image = run(tv_tensors.Image(tensor))
    assert isinstance(image, tv_tensors.Image) and torch.equal(image, expected)
    video = run(tv_tensors.Video(torch.stack([tensor, tensor])))
    assert isinstance(video, tv_tensors.Video)
    assert torch.equal(video, torch.stack([expected, expected])) and module.first_index == 1
    clips = run(tv_tensors.Video(torch.stack([tensor, tensor]).repeat(3, 1, 1, 1, 1)))
    assert module.first_index == 3 and torch.equal(clips[:, 0], clips[:, 1])
    assert not torch.equal(clips[0], clips[1])
    in_place = reid_ops.RandomPolygonErasing(p=1.0, seed=1, inplace=True)
    for kind in (tv_tensors.Image, tv_tensors.Video):
        changed = kind(tensor.clone()[None])
        assert in_place(changed) is changed and not torch.equal(changed[0], tensor)
    picture = v2.functional.to_pil_image(tensor)
    out = run(picture)
    assert type(out).__module__.startswith("PIL") and torch.equal(v2.functional.pil_to_tensor(out), expected)
    from PIL import Image

    for mode in ("L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"):
        out = run(Image.new(mode, (20, 40)))
        assert out.mode == mode and out.size == (20, 40)
    with pytest.raises(TypeError, match="one of the modes L, LA, RGB, RGBA, RGBX, CMYK, YCbCr, HSV, got LAB"):
        run(Image.new("LAB", (20, 40)))
    mask = tv_tensors.Mask(torch.zeros(40, 20, dtype=torch.uint8))
    kept = run({"mask": mask, "image": tv_tensors.Image(tensor), "other": tensor})
    assert (
        kept["mask"] is mask and torch.equal(kept["image"], expected) and torch.equal(kept["other"], tensor)
    )


def test_pil_without_torchvision() -> None:
    """A clear error, in a process where torchvision can't be imported."""
    pytest.importorskip("PIL.Image")
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import reid_ops, torch\nfrom PIL import Image\n"
        "assert reid_ops.RandomPolygonErasing(p=1.0)(torch.zeros(3, 8, 8)).shape == (3, 8, 8)\n"
        "reid_ops.RandomPolygonErasing()(Image.new('RGB', (8, 8)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: RandomPolygonErasing on a PIL image needs torchvision" in result.stderr


@pytest.mark.parametrize(
    ("function", "module", "rule_of"),
    [
        (reid_ops.polygon_erase, reid_ops.RandomPolygonErasing, Rule.polygon),
        (reid_ops.random_erase, reid_ops.RandomErasing, Rule.rectangle),
    ],
)
def test_function_module_and_rule_have_the_same_defaults(
    function: Callable[..., Any], module: Callable[..., Any], rule_of: Callable[..., Rule]
) -> None:
    """Written out in both signatures for readers; the rule has its own for the reference."""

    def defaults(called: Callable[..., Any]) -> dict[str, Any]:
        parameters = inspect.signature(called).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    ours, theirs = defaults(function), defaults(module)
    assert theirs.pop("impl") == "fused"
    of_batches = {"return_mask", "return_attempts", "first_index"}
    assert theirs == {name: value for name, value in ours.items() if name not in of_batches}
    others = {"seed", "generator", "inplace", "value_range"}
    given = {name: value for name, value in theirs.items() if name not in others}
    assert rule_of("test") == rule_of("test", **given)


# ------------------------------------------------------------------------------------ occluded test sets


@pytest.mark.parametrize("kind", ["rectangle", "polygon", "both"])
def test_occlude(backend: Backend, kind: str) -> None:
    """Every image is occluded, more so at a higher level; the same test set in any batches."""
    images = random_images((12, 3, 96, 32), torch.uint8, backend.device)
    shares = []
    for level in (0.05, 0.2, 0.5, 0.9):
        occluded = reid_ops.occlude(images, level, kind, seed=4)
        parts = [reid_ops.occlude(images[k : k + 5], level, kind, seed=4, first_index=k) for k in (0, 5, 10)]
        assert torch.equal(torch.cat(parts), occluded)
        changed = (occluded != images).any(1).double().mean((1, 2))
        assert (changed > 0).all()
        assert torch.equal(reference.occlude(images[:2], level, kind, seed=4), occluded[:2])
        shares.append(changed.mean().item())
        if kind == "rectangle":
            assert changed.mean().item() == pytest.approx(level, rel=0.05)
        if kind == "polygon":
            assert changed.mean().item() == pytest.approx(0.625 * level, rel=0.15)
    assert shares == sorted(shares)
    assert torch.equal(reid_ops.occlude(images, 0.0, kind), images)
    assert torch.equal(
        reid_ops.occlude(images, 0.3, kind, fill="mean"), reid_ops.occlude(images, 0.3, kind, fill="mean")
    )


@pytest.mark.parametrize(
    "size", [(48, 20), (900, 4000), (120, 1868), (1868, 120), (4, 999), (1021, 4), (1, 1)]
)
def test_occlude_everything(size: tuple[int, int]) -> None:
    """Only one aspect fits at level 1, and no integer need be exactly that; close below, few do."""
    images = torch.zeros(2, 1, *size)
    assert (reid_ops.occlude(images, 1.0, "rectangle", fill="mean", mean=1.0) == 1).all()
    for level in (1.0, 1 - 2**-30, 1 - 2**-24, 0.99):
        occluded = reid_ops.occlude(images, level, "rectangle", fill="mean", mean=1.0)
        assert occluded.mean((1, 2, 3)).min() >= level - 1 / min(size) - 1 / max(size)
