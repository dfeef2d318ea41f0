"""How the packages stand: files of a readable length, imports one way, no circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"reid_ops": ROOT / "reid_ops", "reid_models": ROOT / "models" / "reid_models"}
FOLDERS = ("reid_ops", "csrc", "models", "benchmarks", "tools", "examples", "tests")
SUFFIXES = {".py", ".cpp", ".cu", ".cuh", ".h"}
LONGEST = 400  # lines of a file

#: Inside reid_models, from the ground up: a package imports those to its left. Single modules whose names
#: begin with an underscore stand below all, and whatever is not named here above all.
ORDER = (
    "networks", "losses", "data", "runs", "recipes", "retrieval", "training", "report", "papers", "cli",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    found: dict[str, Path] = {}
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()


def imports(name: str, *, everywhere: bool) -> Iterator[str]:
    """Modules of the packages that a module imports: when it is imported, or also in functions.

    Imports for annotations alone (``if TYPE_CHECKING``) count as those in functions do.
    """
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if not everywhere and (isinstance(node, ast.FunctionDef) or _is_type_checking(node)):
            continue
        nodes.extend(ast.iter_child_nodes(node))
        for target in _targets(node, package):
            yield from _known(target)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _targets(node: ast.AST, package: str) -> Iterator[str]:
    """What an import statement may name: modules, or names in them."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
        start = base if node.level else node.module or ""
        yield from (f"{start}.{alias.name}" for alias in node.names)


def _known(target: str) -> Iterator[str]:
    """The module itself, or the one that the name is in."""
    for name in (target, target.rpartition(".")[0]):
        if name in MODULES:
            yield name
            return


def place(name: str) -> tuple[int, str]:
    """Where a module of reid_models stands in the order, and the package it is in."""
    parts = name.split(".")
    if len(parts) == 1:
        return len(ORDER), "reid_models"  # the package itself
    if parts[1] in ORDER:
        return ORDER.index(parts[1]), parts[1]
    return (-1, "_") if parts[1].startswith("_") and parts[1] != "__main__" else (len(ORDER), parts[1])


def test_files_are_of_a_readable_length() -> None:
    files = [*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
        if path.suffix in SUFFIXES
    }
    assert len(lengths) > 400 and "setup.py" in lengths
    assert {name: count for name, count in lengths.items() if count > LONGEST} == {}


def test_operators_do_not_know_the_models() -> None:
    wrong = {
        (name, target)
        for name in MODULES
        if name.startswith("reid_ops")
        for target in imports(name, everywhere=True)
        if target.startswith("reid_models")
    }
    assert wrong == set()


def test_packages_import_downwards() -> None:
    wrong = {
        (name, target)
        for name in MODULES
        if name.startswith("reid_models.")
        for target in imports(name, everywhere=True)
        if target.startswith("reid_models") and place(target)[0] > place(name)[0]
    }
    assert wrong == set()


def test_papers_do_not_know_each_other() -> None:
    rooms = {name: name.split(".")[2] for name in MODULES if name.startswith("reid_models.papers.")}
    wrong = {
        (name, target)
        for name, room in rooms.items()
        for target in imports(name, everywhere=True)
        if rooms.get(target, room) != room
    }
    assert wrong == set()


def test_every_package_has_its_place() -> None:
    folders = {path.name for path in SOURCES["reid_models"].iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(ORDER)


@pytest.mark.parametrize("package", SOURCES)
def test_no_circle(package: str) -> None:
    """Neither of modules that import each other when imported, nor one for annotations or in functions."""
    names = [name for name in MODULES if name.split(".")[0] == package]
    graph = {name: set(imports(name, everywhere=True)) - {name} for name in names}
    assert _circles(graph) == []


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other: strongly connected components of two or more (Tarjan)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for target in sorted(graph.get(name, ())):
            if target not in number:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in stack:
                lowest[name] = min(lowest[name], number[target])
        if lowest[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in number:
            visit(name)
    return found


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert _circles(graph) == [["b", "c"]]
