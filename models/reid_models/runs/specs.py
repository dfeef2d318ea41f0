"""Models that were trained elsewhere, by a word: ``timm:NAME@FILE`` and ``onnx:FILE``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TIMM, ONNX = "timm:", "onnx:"
FORM = "timm:NAME, timm:NAME@FILE or timm:NAME+POOL+HEIGHTxWIDTH@FILE"
POOLS = ("own", "gap", "gmp", "gem")  # those of PooledBackbone
SIZE = re.compile(r"([1-9]\d*)x([1-9]\d*)")


@dataclass(frozen=True)
class TimmSpec:
    """The parts of ``timm:NAME+POOL+HEIGHTxWIDTH@FILE``.

    Attributes:
        name: timm's.
        pool: of the features, see :class:`reid_models.networks.pooling.PooledBackbone`.
        image_size: height and width; None: the network's own.
        file: of weights; None: timm's.
    """

    name: str
    pool: str = "own"
    image_size: tuple[int, int] | None = None
    file: Path | None = None

    @classmethod
    def parse(cls, spec: str) -> TimmSpec:
        """The parts of a word.

        Raises:
            ValueError: the word has another form.

        Example:
            >>> TimmSpec.parse("timm:resnet50+gem+256x128").image_size
            (256, 128)
        """
        words, at, file = spec.removeprefix(TIMM).partition("@")
        name, *options = words.split("+")
        if not name or (at and not file):
            raise ValueError(f"model must be {FORM}, got {spec}")
        pool, size = "own", None
        for option in options:
            found = SIZE.fullmatch(option)
            if found:
                size = (int(found[1]), int(found[2]))
            elif option in POOLS:
                pool = option
            else:
                raise ValueError(
                    f"model: what follows + in timm:NAME must be one of {', '.join(POOLS)}, or HEIGHTxWIDTH, "
                    f"got {option!r} in {spec}"
                )
        return cls(name, pool, size, Path(file) if file else None)

    def __str__(self) -> str:
        """The word again, with an absolute path."""
        options = [] if self.pool == "own" else [self.pool]
        options += [] if self.image_size is None else ["{}x{}".format(*self.image_size)]
        at = "" if self.file is None else f"@{self.file.resolve()}"
        return TIMM + "+".join([self.name, *options]) + at


def is_spec(model: str) -> bool:
    """Whether a model is named by such a word, and not by a path."""
    return model.startswith((TIMM, ONNX))


def spec_label(spec: str) -> str:
    """A short name to show: that of timm's network, or the file's."""
    if spec.startswith(ONNX):
        return Path(spec.removeprefix(ONNX)).stem
    return spec.removeprefix(TIMM).partition("@")[0]
