"""Builds `reid_ops._C` (torch operators, C++ and CUDA) and `reid_ops._host` (pybind11, no torch).

Variables, all optional:
    REID_OPS_CUDA=0|1     force CUDA off or on; unset: on when torch is a CUDA build and a toolkit is found
    CUDA_HOME             the CUDA toolkit; unset: the one that nvcc on PATH belongs to
    TORCH_CUDA_ARCH_LIST  architectures, as in "8.0;9.0+PTX"; unset: a default list, whatever GPU is present
    MAX_JOBS              compile jobs at a time

What was chosen is printed (`pip install -v` shows it) and kept: see `reid_ops.build_info()`.
"""

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # PEP 517 front ends run this file without its folder on the path

from tools import build_config  # noqa: E402

# These write metadata or pack sources. They need neither torch nor a compiler.
METADATA_COMMANDS = {"egg_info", "dist_info", "sdist"}

FACTS_FOLDER = ROOT / "build" / "facts"

# No -march: the CPU kernels pick instruction sets at run time. No -use_fast_math: it changes results.
# -g0 takes back the -g that many Pythons add and that makes the modules several times as large.
CXX_FLAGS = ["-std=c++17", "-O3", "-g0", "-Wall", "-fvisibility=hidden"]
NVCC_FLAGS = ["-std=c++17", "-O3", "-lineinfo", "-Xcompiler=-fvisibility=hidden"]

# `_C` keeps to Python's limited API, so its one file would serve every Python from 3.10. `_host` can't:
# pybind11 needs the full API. A wheel's tag must be true of everything inside, so no py_limited_api
# option is given to bdist_wheel and wheels are tagged for one Python (cp311-cp311, say).
LIMITED_API = True


def pybind11_include() -> str:
    """pybind11's headers; torch ships a copy, which serves where pybind11 is not installed."""
    try:
        import pybind11
    except ImportError:
        from torch.utils.cpp_extension import include_paths

        return include_paths()[0]
    return pybind11.get_include()


def configure() -> dict[str, Any]:
    """Decides on CUDA, says so, and returns what setup() needs in order to compile."""
    try:
        import torch
    except ImportError as error:
        raise build_config.BuildError(
            f"building reid-ops needs torch >= {build_config.TORCH_TARGET} ({error}): install it first, "
            "or let pip do so by leaving out --no-build-isolation"
        ) from None
    toolkit, toolkit_problem = build_config.find_toolkit(os.environ)
    decision = build_config.decide_cuda(
        os.environ.get("REID_OPS_CUDA"), torch.version.cuda, toolkit, toolkit_problem
    )
    toolkit = decision.toolkit
    architectures = ""
    if toolkit is not None:
        architectures = build_config.choose_architectures(
            os.environ.get("TORCH_CUDA_ARCH_LIST"), build_config.supported_architectures(toolkit)
        )
        # torch reads both: the first when cpp_extension is imported, the second when it compiles.
        os.environ["CUDA_HOME"] = str(toolkit.home)
        os.environ["TORCH_CUDA_ARCH_LIST"] = architectures

    print(f"reid-ops: torch {torch.__version__}, stable ABI of torch {build_config.TORCH_TARGET}")
    print(f"reid-ops: CUDA {'on' if decision.enabled else 'off'}: {decision.reason}")
    if toolkit is not None:
        print(f"reid-ops: toolkit {toolkit.version} in {toolkit.home}, architectures {architectures}")
    sys.stdout.flush()

    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    # Error messages name source files: without the folders of the machine that built them.
    short_names = [
        f"-fmacro-prefix-map={ROOT}/=",
        f"-fmacro-prefix-map={Path(torch.__file__).parent / 'include'}/=",
    ]
    definitions = [build_config.target_version_macro()]
    if decision.enabled:
        definitions += ["-DREID_OPS_WITH_CUDA", "-DUSE_CUDA"]
    operators = (CUDAExtension if decision.enabled else CppExtension)(
        "reid_ops._C",
        build_config.find_sources(ROOT, decision.enabled),
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args={
            "cxx": [*CXX_FLAGS, *definitions, *short_names],
            "nvcc": [*NVCC_FLAGS, *definitions, f"--threads={build_config.nvcc_threads(os.environ)}"],
        },
        py_limited_api=LIMITED_API,
    )
    build_config.write_facts(
        FACTS_FOLDER / "build_facts.h",
        {
            "version": build_config.read_version(ROOT),
            "commit": build_config.read_commit(ROOT),
            "cxx_flags": [*CXX_FLAGS, *definitions],
            "torch": str(torch.__version__),
            "torch_target": build_config.TORCH_TARGET,
            "cuda": decision.enabled,
            "cuda_reason": decision.reason,
            "cuda_toolkit": toolkit.version if toolkit is not None else None,
            "cuda_architectures": architectures.replace(" ", ";").split(";") if architectures else [],
            "nvcc_flags": NVCC_FLAGS if decision.enabled else [],
        },
    )
    host = Extension(
        "reid_ops._host",
        build_config.find_host_sources(ROOT),
        include_dirs=[str(ROOT / "csrc"), str(FACTS_FOLDER), pybind11_include()],
        extra_compile_args={"cxx": [*CXX_FLAGS, *short_names]},
        language="c++",
    )
    return {"ext_modules": [operators, host], "cmdclass": {"build_ext": BuildExtension}}


if METADATA_COMMANDS.intersection(sys.argv):
    sources = [*build_config.find_sources(ROOT, cuda=True), *build_config.find_host_sources(ROOT)]
    setup(ext_modules=[Extension("reid_ops._C", sources)])
else:
    setup(**configure())
