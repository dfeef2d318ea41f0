"""Networks, losses, readers, samplers, schedules, figures by name: built in, of papers, of one's own.

A paper has a room: a folder in ``reid_models/papers``, or in a folder that ``REID_MODELS_PAPERS`` lists (as
``PATH`` lists folders). A room is there by being there, as the package ``reid_models.papers.ROOM``. Its files
say what is in it: ``network.py``, ``losses.py``, ``samplers.py``, ``datasets.py``, ``schedules.py``,
``figures.py`` and ``recipes.yaml``. They are imported when a name is looked for that is not built in.

Imports nothing but the standard library, so that ``reid --help`` is quick.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from ._suggest import unknown

PAPERS = "REID_MODELS_PAPERS"
PACKAGE = f"{__package__}.papers"  # imported when rooms are looked for: what is in it stands above
BUILT_IN = Path(__file__).parent / "papers"
DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by name: those built in, those in papers' rooms, and ``package.module:Name``.

    As a mapping it has the names that are listed; :meth:`find` knows ``package.module:Name`` as well, and its
    errors are for users.

    Args:
        what: what a thing is called in errors: ``"loss"``.
        built_in: the package's own things; one as ``package.module:Name`` is imported when it is asked for.
        file: the file of a room, without its suffix, that may have more of them: ``"losses"``.
        collect: gives the things in a room's module by name.
        check: raises TypeError or ValueError, with what it is given, unless that is such a thing; the message
            goes behind the name.

    Example:
        >>> LOSSES = Registry("loss", {"triplet": TripletLoss}, "losses", table("LOSSES"), check_loss)
        >>> LOSSES.find("my_package.losses:CircleLoss")
        <class 'my_package.losses.CircleLoss'>
    """

    def __init__(
        self,
        what: str,
        built_in: Mapping[str, T | str],
        file: str,
        collect: Callable[[ModuleType], Mapping[str, T]],
        check: Callable[[object], None],
    ) -> None:
        self.what, self.file = what, file
        self._built_in, self._collect, self._check = dict(built_in), collect, check

    def find(self, name: str) -> T:
        """The thing of that name.

        Raises:
            ValueError: no such name (the nearest is suggested), or ``package.module:Name`` does not import.
            TypeError: what the name stands for is something else.
        """
        if isinstance(name, str) and ":" in name:
            return self._import(name)
        if name not in self:
            raise unknown(self.what, name, self)
        return self[name]

    def name_of(self, thing: T) -> str:
        """The name by which :meth:`find` gives the thing again: a listed one, or ``package.module:Name``."""
        own = {name: self[name] for name in self._built_in}
        named = _name_in(own, thing) or _name_in(self._things(), thing)
        return named or f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"

    def __getitem__(self, name: str) -> T:
        if name not in self._built_in:
            return self._things()[name]
        thing = self._built_in[name]  # of which no room is imported
        return self._import(thing) if isinstance(thing, str) else thing

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._things()))

    def __len__(self) -> int:
        return len(self._things())

    def _things(self) -> dict[str, T]:
        things = {name: self[name] for name in self._built_in}
        owners = dict.fromkeys(self._built_in, "reid_models")
        for room, module in room_modules(self.file):
            for name, thing in self._collect(module).items():
                if name in things:
                    raise ValueError(f"{self.what} {name!r} is in {owners[name]} and in the room {room}")
                self._checked(thing, f"{self.what} {name!r} of the room {room}")
                things[name], owners[name] = thing, f"the room {room}"
        return things

    def _import(self, name: str) -> T:
        if not DOTTED.fullmatch(name):
            raise ValueError(f"{self.what} must be a name or package.module:Name, got {name!r}")
        path, _, attribute = name.partition(":")
        module = _imported(path, f"{self.what} {name!r}")
        if not hasattr(module, attribute):
            known = [known for known in vars(module) if not known.startswith("_")]
            raise unknown(f"name in {path} of the {self.what} {name!r}", attribute, known)
        return self._checked(getattr(module, attribute), f"{self.what} {name!r}")

    def _checked(self, thing: T, where: str) -> T:
        try:
            self._check(thing)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where} {error}") from None
        return thing


def check_class(base: type) -> Callable[[object], None]:
    """For :class:`Registry`: things are classes derived from a base."""

    def check(thing: object) -> None:
        if not (isinstance(thing, type) and issubclass(thing, base)):
            name = f"{base.__module__}.{base.__qualname__}"
            raise TypeError(f"must be a class derived from {name}, got {thing!r}")

    return check


def table(attribute: str) -> Callable[[ModuleType], Mapping[str, T]]:
    """For :class:`Registry`: a room's module lists its things in a mapping of that name, if it has any."""

    def collect(module: ModuleType) -> Mapping[str, T]:
        things = getattr(module, attribute, {})
        if not isinstance(things, Mapping):
            raise TypeError(f"{module.__file__} must have {attribute}, a mapping from names, got {things!r}")
        return things

    return collect


def rooms() -> dict[str, Path]:
    """The folders of all papers by name, the package's own first.

    Raises:
        FileNotFoundError: a folder in ``REID_MODELS_PAPERS`` does not exist.
        ValueError: two rooms have one name.
    """
    listed = os.environ.get(PAPERS, "").split(os.pathsep)
    folders = [BUILT_IN, *(Path(folder).absolute() for folder in listed if folder)]
    found: dict[str, Path] = {}
    for folder in folders:
        for room in _rooms_in(folder):
            if found.setdefault(room.name, room) != room:
                raise ValueError(f"{PAPERS}: two rooms are called {room.name}: {found[room.name]} and {room}")
    _look_in(folders)
    return found


def room_modules(file: str) -> Iterator[tuple[str, ModuleType]]:
    """The rooms' modules of that name, imported, with their rooms' names.

    Raises:
        ValueError: one does not import.
    """
    for room, folder in rooms().items():
        if (folder / f"{file}.py").is_file():
            path = f"{PACKAGE}.{room}.{file}"
            if folder.parent == BUILT_IN:  # its errors are ours
                yield room, importlib.import_module(path)
            else:
                yield room, _imported(path, f"the room {folder}")


def _rooms_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{PAPERS} must list folders of rooms, got {folder}")
    if any((folder / file).is_file() for file in ("network.py", "recipes.yaml")):
        raise ValueError(f"{PAPERS} must list folders of rooms, got the room {folder}: list its parent")
    names = (room for room in sorted(folder.iterdir()) if room.name.isidentifier() and room.name[0] != "_")
    return [room for room in names if room.is_dir()]


def _look_in(folders: list[Path]) -> None:
    """Where Python looks for reid_models.papers.ROOM: a room imports its files, and the package, as usual."""
    papers = importlib.import_module(PACKAGE)
    paths = [str(folder) for folder in folders]
    if list(papers.__path__) != paths:
        papers.__path__ = paths
        importlib.invalidate_caches()


def _name_in(things: Mapping[str, object], thing: object) -> str | None:
    return next((name for name, known in things.items() if known is thing), None)


def _imported(path: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except Exception as error:  # a module may raise anything
        reason = " ".join(str(error).split())
        raise ValueError(f"{what}: {path} does not import ({type(error).__name__}: {reason})") from error
