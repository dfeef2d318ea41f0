"""Loads the compiled modules and says what was built.

Importing `reid_ops` never fails because of them: the pure PyTorch reference works without. The error,
if any, is kept and raised with its likely causes when an operator is called.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from typing import Any

import torch  # first: the compiled module has no path of its own to torch's libraries

from reid_ops._version import __version__

_MINIMUM_TORCH = (2, 11)

_operators_error: Exception | None = None
try:
    importlib.import_module("reid_ops._C")  # an empty module: loading it registers torch.ops.reid_ops
except (ImportError, OSError, RuntimeError) as error:
    _operators_error = error

_host: Any = None
with contextlib.suppress(ImportError):  # not built: build_info() then has nothing to say about the build
    _host = importlib.import_module("reid_ops._host")


def is_available() -> bool:
    """Whether the compiled operators are loaded."""
    return _operators_error is None


def require() -> None:
    """Raises a RuntimeError that names the likely causes, unless the compiled operators are loaded."""
    if _operators_error is None:
        return
    raise RuntimeError(
        f"the compiled operators of reid_ops are not loaded: {_likely_cause()} "
        f"(original error: {_operators_error})"
    ) from _operators_error


def build_info() -> dict[str, Any]:
    """What was built and what is running.

    Built: ``version``, ``commit``, ``compiler``, ``cxx_flags``, ``torch`` (built against), ``torch_target``
    (oldest torch it serves), ``cuda``, ``cuda_reason``, ``cuda_toolkit``, ``cuda_architectures``,
    ``nvcc_flags``. Running: ``loaded``, ``runtime_torch``, ``runtime_cuda`` (torch's, None for a CPU
    build) and ``cpu_capability`` ("avx512", "avx2" or "baseline"). Facts of a build that is not there
    are None.
    """
    facts = _build_facts()
    return {
        "version": __version__,
        "commit": facts.get("commit"),
        "compiler": _host.compiler() if _host is not None else None,
        "cxx_flags": facts.get("cxx_flags"),
        "torch": facts.get("torch"),
        "torch_target": facts.get("torch_target"),
        "cuda": facts.get("cuda"),
        "cuda_reason": facts.get("cuda_reason"),
        "cuda_toolkit": facts.get("cuda_toolkit"),
        "cuda_architectures": facts.get("cuda_architectures"),
        "nvcc_flags": facts.get("nvcc_flags"),
        "loaded": is_available(),
        "runtime_torch": str(torch.__version__),
        "runtime_cuda": torch.version.cuda,
        "cpu_capability": _host.cpu_capability() if _host is not None else None,
    }


def _build_facts() -> dict[str, Any]:
    return json.loads(_host.build_facts()) if _host is not None else {}


def _likely_cause() -> str:
    """The first of the known causes that fits."""
    running = str(torch.__version__)
    if tuple(int(part) for part in running.split(".")[:2]) < _MINIMUM_TORCH:
        return f"torch {running} is older than {'.'.join(map(str, _MINIMUM_TORCH))}; install a newer torch"
    if isinstance(_operators_error, ModuleNotFoundError):
        return (
            "they are not built; run `pip install .` (in a checkout: `python setup.py build_ext --inplace`)"
        )
    facts = _build_facts()
    if facts.get("cuda") and torch.version.cuda is None:
        return "they were built with CUDA but this torch has none; rebuild them with REID_OPS_CUDA=0"
    if facts.get("cuda") and facts["cuda_toolkit"].split(".")[0] != str(torch.version.cuda).split(".")[0]:
        return (
            f"a CUDA library is missing, for they were built with CUDA {facts['cuda_toolkit']} "
            f"and this torch has CUDA {torch.version.cuda}; rebuild them with this torch"
        )
    return "a library is missing, or they were built for another torch; rebuild them with this torch"
