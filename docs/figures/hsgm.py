"""Draws docs/figures/hsgm.svg: the seven maps, and memory traffic in multiples of the features.

    python docs/figures/hsgm.py

The eager figures are operand bytes counted by operator dispatch (docs/hsgm.md), the fused ones the
kernels' reads and writes.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

matplotlib.rcParams["svg.hashsalt"] = "hsgm"  # the same file from the same script

LEVELS = (1, 2, 4)
TRAFFIC = {"forward": (43, 3), "backward": (95, 3)}
COLORS = ("#4c72b0", "#dd8452", "#55a868")


def draw_maps(axes: plt.Axes) -> None:
    """Each level's stripes and what is computed for each."""
    for level, maps in enumerate(LEVELS):
        for index in range(maps):
            axes.add_patch(
                Rectangle(
                    (1.5 * level, 1 - (index + 1) / maps), 1, 1 / maps,
                    facecolor=COLORS[level], edgecolor="white", linewidth=2,
                )
            )  # fmt: skip
            axes.text(
                1.5 * level + 0.5, 1 - (index + 0.5) / maps, r"$b\,a^\top$",
                ha="center", va="center", color="white", fontsize=9,
            )  # fmt: skip
        axes.text(1.5 * level + 0.5, -0.08, f"level {level + 1}", ha="center", va="top", fontsize=9)
        if level:
            axes.text(1.5 * level - 0.25, 0.5, "+", ha="center", va="center", fontsize=16)
    axes.set(
        xlim=(-0.1, 4.1), ylim=(-0.25, 1.05), title=r"$y = 3x + \sum$ LeakyReLU(BN($b\,a^\top$)), seven maps"
    )
    axes.set_aspect("equal")
    axes.axis("off")


def draw_traffic(axes: plt.Axes) -> None:
    """Bars on a logarithmic axis."""
    for row, (eager, fused) in enumerate(TRAFFIC.values()):
        for offset, value, label, color in (
            (0.2, eager, "eager", "#999999"),
            (-0.2, fused, "fused", COLORS[0]),
        ):
            axes.barh(row + offset, value, 0.36, color=color, label=label if row == 0 else None)
            axes.text(value * 1.1, row + offset, str(value), va="center", fontsize=9)
    axes.set(yticks=range(len(TRAFFIC)), yticklabels=list(TRAFFIC), xscale="log", xlim=(1, 250))
    axes.set(xlabel="bytes moved / bytes of the features", title="memory traffic")
    axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1.02, 0.36))
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Writes the figure beside this script."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.6), width_ratios=(1.4, 1))
    draw_maps(left)
    draw_traffic(right)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
