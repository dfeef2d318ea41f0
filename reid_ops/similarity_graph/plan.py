"""What HSGM's options mean: the checked choices, how levels are divided, and the plan for the kernels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from .. import _checks

OP = "HSGM"
MAX_LEVELS = 6  # csrc/similarity_graph/geometry.h
MAX_SCALES = 8
MAX_PARTS = 32
MAX_CUTS = 64
POOLINGS = {"same": 0, "same_padded": 1, "stride": 2, "valid": 3, "stride_bilinear": 4, "valid_bilinear": 5}


@dataclass(frozen=True)
class Plan:
    """Everything about the module that is not a tensor."""

    rows: tuple[int, ...]  # rows of maps in each level
    columns: tuple[int, ...]
    scales: tuple[int, ...]
    pooling: int
    radius_squared: int  # of the spatial graphs
    channel_radius_squared: int
    include_self: bool
    edges: int  # of the spatial graphs
    channel_edges: int
    interpolated: bool  # children are interpolated to their parent's size instead of stitched
    residual: float  # what x is multiplied by
    factor: float  # what every level's output is multiplied by
    negative_slope: float
    eps: float

    @property
    def spatial_graph(self) -> tuple[Any, ...]:
        return (
            list(self.rows), list(self.columns), list(self.scales), self.pooling,
            self.radius_squared, self.include_self, self.edges,
        )  # fmt: skip

    @property
    def channel_graph(self) -> tuple[Any, ...]:
        return (self.channel_radius_squared, self.include_self, self.channel_edges)

    @property
    def maps(self) -> tuple[list[int], list[int]]:
        return list(self.rows), list(self.columns)


def map_sizes(plan: Plan, height: int, width: int) -> list[int]:
    """Pixels of every map."""
    return [
        (height * (r + 1) // rows - height * r // rows) * (width * (c + 1) // columns - width * c // columns)
        for rows, columns in zip(plan.rows, plan.columns, strict=True)
        for r in range(rows)
        for c in range(columns)
    ]


def divisions_of(
    levels: tuple[int, ...], split: str, upsample: str, height: int, width: int
) -> list[tuple[int, int]]:
    """Rows and columns of maps of every level."""
    check_choice(split, "split", ("stripes", "grid"))
    check_choice(upsample, "upsample", ("stitch", "interp"))
    if not 1 <= len(levels) <= MAX_LEVELS:
        raise ValueError(f"{OP}: levels must hold 1 to {MAX_LEVELS} numbers of maps, got {len(levels)}")
    divisions = []
    for maps in levels:
        _checks.check_integer(maps, "levels", 1, MAX_PARTS**2, OP)
        rows, columns = maps, 1
        if split == "grid":
            if maps & (maps - 1):
                raise ValueError(f"{OP}: levels must be powers of two to split a grid, got {maps}")
            rows = 1 << maps.bit_length() // 2
            columns = maps // rows
        if rows > min(height, MAX_PARTS) or columns > min(width, MAX_PARTS):
            raise ValueError(
                f"{OP}: levels: {rows} x {columns} maps do not fit features of {height} x {width} "
                f"(at most {MAX_PARTS} rows and columns)"
            )
        divisions.append((rows, columns))
    if any(later <= earlier for earlier, later in itertools.pairwise(levels)):
        raise ValueError(f"{OP}: levels must increase, got {levels}")
    if upsample == "interp" and (levels[0] != 1 or any(b % a for a, b in itertools.pairwise(levels))):
        raise ValueError(
            f'{OP}: upsample="interp" needs a first level of one map and levels that are multiples of the '
            f"level before, got {levels}"
        )
    for size, axis, parts in ((height, "rows", 0), (width, "columns", 1)):
        cuts = {size * i // maps[parts] for maps in divisions for i in range(1, maps[parts])}
        if len(cuts) >= MAX_CUTS:
            raise ValueError(
                f"{OP}: levels must cut the {axis} at fewer than {MAX_CUTS} places together, got {len(cuts)}"
            )
    return divisions


def check_choice(value: str, argument: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        names = ", ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{OP}: {argument} must be one of {names}, got {value!r}")
