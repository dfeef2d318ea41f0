"""How long XQDA takes to learn from Market-1501's number of features.

    python -m benchmarks.xqda
    python -m benchmarks.xqda --features 3000 --length 256

Features are clustered normal ones, half of each identity's seen by either camera; nothing depends on their
values. Needs nothing but the operators.
"""

from __future__ import annotations

import argparse
import time

import torch

from reid_ops import XQDA


def seconds(features: int, length: int, identities: int) -> float:
    """Of one fit; features of shape (features, length) are split between two cameras."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(features) % identities
    centres = torch.randn(identities, length, generator=generator)
    values = centres[ids] + torch.randn(features, length, generator=generator)
    first = torch.zeros(features, dtype=torch.bool)
    first[torch.randperm(features, generator=generator)[: features // 2]] = True
    start = time.perf_counter()
    XQDA().fit(values[first], values[~first], ids[first], ids[~first])
    return time.perf_counter() - start


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.xqda", description=__doc__.splitlines()[0])
    options.add_argument("--features", type=int, default=12_936, help="default: %(default)s, as Market-1501")
    options.add_argument("--length", type=int, default=2048, help="default: %(default)s")
    options.add_argument("--identities", type=int, default=751, help="default: %(default)s")
    given = options.parse_args(arguments)
    for name, value in vars(given).items():
        if value < 2:
            options.error(f"--{name} must be at least 2, got {value}")
    took = seconds(given.features, given.length, given.identities)
    print(
        f"XQDA of {given.features} features of length {given.length}: "
        f"{took:.1f} s, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
