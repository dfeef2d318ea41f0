"""The augmentation's share of a whole HENet training step, with RE and RPE on.

python -m benchmarks.henet_augmentation
python -m benchmarks.henet_augmentation --device cuda --batch 16 --steps 50

A step is what ``reid train market1501_henet_both`` does on the device with a batch of bytes: augmentation
(flip, random erasing, polygon erasing, normalisation), forward, four losses, backward, Adam. Needs the extra
``models``.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

RECIPE = "market1501_henet_both"
IDENTITIES = 751  # Market-1501's


def measure(
    *, device: str = "cpu", batch: int = 16, steps: int = 5, backbone: str = "resnet50", size: Any = None
) -> dict[str, float]:
    """Median seconds of the augmentation and of the rest of a step, and the augmentation's share.

    Args:
        device: "cpu" or a CUDA device.
        batch: images, four of each identity.
        steps: that count; one more goes before.
        backbone: of the network.
        size: height and width; None: the recipe's.
    """
    from reid_models.data import Augmentation
    from reid_models.losses import WeightedLoss
    from reid_models.networks import create_model
    from reid_models.recipes import load_recipe
    from reid_models.training.schedule import make_optimizer
    from reid_models.training.trial import output_widths

    config = load_recipe(RECIPE).config
    height, width = size or config["data"]["image_size"]
    augmentation = Augmentation.from_mapping(config["data"]["augmentation"])
    assert augmentation.erase is not None and augmentation.polygon is not None
    options = {**config["model"]["options"], "pretrained": False, "backbone": backbone}
    model = create_model("henet", IDENTITIES, image_size=(height, width), **options)
    loss = WeightedLoss(config["model"]["losses"], num_classes=IDENTITIES, widths=output_widths(model))
    model, loss = model.to(device), loss.to(device)
    optimizer = make_optimizer(model, config["model"]["optimizer"])
    generator = torch.Generator().manual_seed(0)
    bytes_ = torch.randint(256, (batch, 3, height, width), generator=generator, dtype=torch.uint8).to(device)
    identities = torch.arange(batch, device=device) // 4

    def timed(function: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        result = function()
        if bytes_.is_cuda:
            torch.cuda.synchronize(bytes_.device)
        return result, time.perf_counter() - start

    def train(images: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss(model(images), identities, images=images)["total"].backward()
        optimizer.step()

    augmenting, training = [], []
    for step in range(1 + steps):
        augment = functools.partial(augmentation.train, bytes_, seed=0, first_index=step * batch)
        images, seconds = timed(augment)
        augmenting.append(seconds)
        training.append(timed(functools.partial(train, images))[1])
    found = {
        "augmentation": statistics.median(augmenting[1:]),
        "network": statistics.median(training[1:]),
    }
    return {**found, "share": found["augmentation"] / sum(found.values())}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    if options.batch < 8 or options.batch % 4 or options.steps < 1:
        parser.error("--batch must be a multiple of 4 from 8, and --steps at least 1")
    found = measure(device=options.device, batch=options.batch, steps=options.steps)
    print(
        f"{RECIPE}, {options.batch} images on {options.device}, {torch.get_num_threads()} threads: "
        f"augmentation {1e3 * found['augmentation']:.2f} ms, network {1e3 * found['network']:.1f} ms a step: "
        f"{100 * found['share']:.2f} % of a step"
    )


if __name__ == "__main__":
    main()
