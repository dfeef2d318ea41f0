"""Kinds of ``reid visualize``: what a figure takes, and what draws it.

Imports nothing but the standard library at the top, and so should the modules that define kinds, here and in
papers' rooms: ``--help`` is quick, and what drawing needs is imported when it draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .._registry import Registry, table

if TYPE_CHECKING:
    from ..data import ReidDataset
    from ..runs.models import Trained

MANY = 99  # inputs at most
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class FigureOption:
    """An option of a kind: ``--NAME VALUE``; kinds may share one, of the same type.

    Attributes:
        name: a Python name; the command line has ``-`` for ``_``.
        type: ``int``, ``float``, ``str``, or ``bool`` for one without a value.
        help: what it means, for ``--help``.
        default: where it is not given.
        choices: the values that it may have; () for any.
    """

    name: str
    type: type
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """As on the command line."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class FigureRequest:
    """What a figure is asked for.

    Attributes:
        inputs: the words of INPUT.
        title: of the figure; "" for its own.
        options: a value for each option of the kind.
        dataset: the name of a dataset; None: that of the networks' recipes.
        root: where the dataset is.
        dataset_options: of its reader.
        rerank: options of k-reciprocal re-ranking, for kinds that re-rank.
        extraction: keywords of :func:`reid_models.retrieval.extraction.extract_features`, but ``device``.
        device: ``"auto"``, ``"cpu"`` or a CUDA device.
        keep: whether features in run folders are used, and kept there.
    """

    inputs: Sequence[str] = ()
    title: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    root: str | None = None
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    rerank: Mapping[str, Any] = field(default_factory=dict)
    extraction: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    keep: bool = True

    def read_networks(self) -> dict[str, Trained]:
        """The networks of INPUT, by the names to show."""
        from ..runs.folders import name_paths
        from ..runs.models import load_trained

        if self.dataset is not None:
            _ = self._named_dataset  # what is wrong with it is said before networks are fetched
        return {name: load_trained(path) for name, path in name_paths(self.inputs).items()}

    def read_dataset(self, networks: Mapping[str, Trained] | None = None) -> ReidDataset:
        """The dataset asked for, or else that of the first network's recipe.

        Raises:
            ValueError: neither names one, or as the reader.
        """
        from ..data import read_dataset

        if self.dataset is not None:
            return self._named_dataset
        if self.root is not None or self.dataset_options:
            raise ValueError("--root and --options must come with --dataset")
        if networks is None:
            raise ValueError("--dataset must be given")
        recipe = next((known.data for known in networks.values() if known.data.get("dataset")), None)
        if recipe is None:
            raise ValueError("--dataset must be given: no INPUT has a recipe that names one")
        return read_dataset(recipe["dataset"], recipe.get("root"), **(recipe.get("dataset_options") or {}))

    @cached_property
    def _named_dataset(self) -> ReidDataset:
        from ..data import read_dataset

        assert self.dataset is not None
        return read_dataset(self.dataset, self.root, **self.dataset_options)


@dataclass(frozen=True)
class FigureKind:
    """A kind of figure.

    Attributes:
        summary: what it shows, for ``--help``.
        draw: makes it from a :class:`FigureRequest`: a figure of matplotlib, or, where ``endings`` is
            ``(".html",)``, a :class:`reid_models.report.Report`. Wrong input raises before anything runs.
        inputs: the least and the most INPUT.
        options: its own options.
        endings: of the files it may be written to.

    Example:
        >>> def draw(request):
        ...     from reid_models.report.style import new_figure
        ...     return new_figure(4, request.options["height"])
        >>> height = FigureOption("height", int, "inches", 3)
        >>> FIGURES = {"blank": FigureKind("nothing", draw, inputs=(0, 0), options=(height,))}
    """

    summary: str
    draw: Callable[[FigureRequest], Any]
    inputs: tuple[int, int] = (1, MANY)
    options: tuple[FigureOption, ...] = ()
    endings: tuple[str, ...] = PICTURES


def _check(thing: object) -> None:
    if not isinstance(thing, FigureKind):
        raise TypeError(f"must be a reid_models.report.kinds.FigureKind, got {thing!r}")


_OURS = ("ranks", "cam", "curves", "montage", "report")
#: Kinds by name, with those of papers (``FIGURES`` in ``figures.py``).
FIGURES: Registry[FigureKind] = Registry(
    "kind of figure",
    {name: f"{__package__}.figures:{name.upper()}" for name in _OURS},
    "figures",
    table("FIGURES"),
    _check,
)
