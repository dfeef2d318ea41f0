"""Tells CMakeLists.txt what it would otherwise have to guess, one `NAME=value` a line.

Run by CMake from the repository root: `python -m tools.cmake_config`. torch is looked up, not imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from tools import build_config


def find_torch() -> Path | None:
    """The folder of the installed torch, without importing it."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def cmake_architectures(torch_list: str) -> str:
    """CMake's spelling of torch's architecture list: "9.0+PTX" is "90", "9.0" is "90-real"."""
    spelled = []
    for entry in torch_list.replace(" ", ";").split(";"):
        match = re.fullmatch(r"(\d+)\.(\d+)([a-z]?)(\+PTX)?", entry)
        if match is None:
            raise build_config.BuildError(f"TORCH_CUDA_ARCH_LIST={torch_list}: CMake needs numbers, like 9.0")
        major, minor, suffix, intermediate = match.groups()
        spelled.append(f"{major}{minor}{suffix}" + ("" if intermediate else "-real"))
    return ";".join(spelled)


def main() -> None:
    """Prints the facts."""
    torch_folder = find_torch()
    toolkit, problem = build_config.find_toolkit(os.environ)
    print(f"TORCH={torch_folder or ''}")
    print(f"TORCH_TARGET_VERSION_FLAG={build_config.target_version_macro()}")
    print(f"TOOLKIT_PROBLEM={problem}")
    if toolkit is not None:
        architectures = build_config.choose_architectures(
            os.environ.get("TORCH_CUDA_ARCH_LIST"), build_config.supported_architectures(toolkit)
        )
        print(f"NVCC={toolkit.nvcc}")
        print(f"ARCHITECTURES={cmake_architectures(architectures)}")


if __name__ == "__main__":
    main()
