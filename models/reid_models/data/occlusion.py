"""Test images with a part missing, at a given level (HENet, Fig. 5): :class:`Occlusion`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reid_ops import occlude

from .._numbers import check_integer, check_number
from .._suggest import unknown

#: Kinds by the paper's names, and as :func:`reid_ops.occlude` calls them.
KINDS = {"re": "rectangle", "rpe": "polygon", "re+rpe": "both"}


@dataclass(frozen=True)
class Occlusion:
    """Every image loses one region, or two, each in a box of the same share of the image.

    Which region follows from the seed and the image's number among those looked at: the same set of images
    is occluded alike whatever model looks at it, in batches of any size.

    Attributes:
        kind: ``"re"``, ``"rpe"`` or ``"re+rpe"``, one after the other; also by the operator's names
            ``"rectangle"``, ``"polygon"`` and ``"both"``.
        level: share of the image that a box takes, in [0, 1).
        seed: at least 0.

    Raises:
        TypeError, ValueError: a value is not as described.

    Example:
        >>> Occlusion.parse("re+rpe:0.3")
        Occlusion(kind='re+rpe', level=0.3, seed=0)
    """

    kind: str
    level: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS and self.kind not in KINDS.values():
            raise unknown("kind of occlusion", self.kind, [*KINDS, *KINDS.values()])
        check_number(self.level, "level", "occlude")
        if not 0 <= self.level < 1:
            raise ValueError(f"occlude: level must be in [0, 1), got {self.level}")
        check_integer(self.seed, "seed", "occlude")

    @classmethod
    def parse(cls, text: str) -> Occlusion:
        """From ``KIND:LEVEL``, as on a command line.

        Raises:
            ValueError: the text has another form, or as the class.
        """
        kind, colon, level = text.rpartition(":")
        try:
            number = float(level)
        except ValueError:
            number = None
        if not colon or number is None:
            raise ValueError(f"occlude: must be KIND:LEVEL, such as rpe:0.3, got {text!r}")
        return cls(kind.lower(), number)

    def apply(self, images: Tensor, first_index: int) -> Tensor:
        """Images (N, 3, H, W), bytes, the first of which has the number ``first_index``; a copy."""
        kind = KINDS.get(self.kind, self.kind)
        return occlude(images, self.level, kind, seed=self.seed, first_index=first_index)
