"""What is imported is what is asked for, by the extras and by `make`; faiss is the right one of two."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest
from packaging.requirements import Requirement

from tests.import_support import ROOT, imported

tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on

PLATFORMS = {
    "Linux x86-64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux arm64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macOS": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "Windows": {"sys_platform": "win32", "platform_machine": "AMD64"},
}


def extras() -> dict[str, list[str]]:
    """The extras of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]["optional-dependencies"]


def resolved(requirements: Iterable[str], environment: dict[str, str] | None = None) -> set[str]:
    """Distributions that the requirements stand for on a machine, extras of our own included."""
    found = set()
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        if requirement.name == "reid-ops":
            for extra in requirement.extras:
                found |= resolved(extras()[extra], environment)
        else:
            found.add(requirement.name)
    return found


def lines_of(name: str) -> list[str]:
    """The requirements in a file, those of the files that it takes along included."""
    found = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found += lines_of(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            found.append(line)
    return found


def on_linux(requirements: Iterable[str]) -> set[str]:
    return resolved(requirements, PLATFORMS["Linux x86-64"])


def test_extras_name_all_that_is_imported() -> None:
    models, search = on_linux(extras()["models"]), on_linux(extras()["search"])
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    always = on_linux(tomllib.loads(text)["project"]["dependencies"])
    assert imported("reid_ops", deferred=False) == always == {"numpy", "torch"}
    assert imported("reid_ops") <= always | search | models
    assert imported("models/reid_models", deferred=False) <= always | models
    assert imported("models/reid_models") <= always | models | on_linux(extras()["onnx"])
    assert "reid-ops[models]" in extras()["examples"]
    assert imported("examples") <= always | on_linux(extras()["examples"])


def test_make_installs_all_that_is_imported() -> None:
    named = (extras()[extra] for extra in ("build", "search", "test", "models", "onnx"))
    every = imported("reid_ops", "models/reid_models", "examples", "tests").union(*map(on_linux, named))
    assert every - {"torch"} <= on_linux(lines_of("requirements-dev.txt"))


def test_demo_has_what_it_imports() -> None:
    """Without the tests' packages, and by the same versions as the extras."""
    build, demo = lines_of("requirements-build.txt"), lines_of("requirements-demo.txt")
    assert on_linux(extras()["build"]) <= on_linux(build)
    needed = on_linux(extras()["models"]) | on_linux(extras()["benchmark"]) | imported("examples")
    assert needed <= on_linux([*build, *demo]) | {"torch"}
    versions = {Requirement(each).name: Requirement(each).specifier for each in [*build, *demo]}
    for extra in ("build", "models", "search"):
        for each in map(Requirement, extras()[extra]):
            assert each.name == "reid-ops" or versions[each.name] == each.specifier


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize("asked", ["search", "test", "models", "requirements-dev.txt"])
def test_one_faiss_on_each_platform(asked: str, name: str) -> None:
    requirements = lines_of(asked) if asked.endswith(".txt") else extras()[asked]
    found = resolved(requirements, PLATFORMS[name])
    wanted = "faiss-gpu" if name == "Linux x86-64" else "faiss-cpu"
    assert found & {"faiss-cpu", "faiss-gpu"} == {wanted}


def test_markers_hold_here() -> None:
    """Without given platforms the markers are those of this machine; one of the two holds on any."""
    assert len(resolved(extras()["search"])) == 1, sys.platform
