"""What is measured of runs and printed in papers: names in files, and headings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

#: Shares of evaluation: in [0, 1] in files, in percent where they are shown.
SHARES: Mapping[str, str] = MappingProxyType(
    {
        "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "rank20": "rank-20", "mAP": "mAP",
        "mINP": "mINP",
    }
)  # fmt: skip
#: Costs, as they are.
COSTS: Mapping[str, str] = MappingProxyType(
    {
        "seconds": "seconds", "megabytes": "MB", "parameters": "parameters, M", "gflops": "GFLOPs",
        "depth": "depth", "feature_length": "feature length", "images_per_second": "images/s",
        "efficiency": "ES",
    }
)  # fmt: skip
HEADINGS: Mapping[str, str] = MappingProxyType({**SHARES, **COSTS})


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once: known ones in the order of :data:`HEADINGS`, then the others as they come."""
    given = dict.fromkeys(names)
    return [name for name in HEADINGS if name in given] + [name for name in given if name not in HEADINGS]
