"""What the tests of the emulated CUDA runtime share."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

SCHEDULES = ["forward", "reverse", "shuffled", "shuffled:7"]

SUCCESS, INVALID_VALUE, INVALID_CONFIGURATION, LAUNCH_FAILURE = 0, 1, 9, 719
ILLEGAL_ADDRESS, NOT_SUPPORTED, UNKNOWN = 700, 801, 999


class Library:
    """The functions of a library of extern "C" launchers; numpy arrays pass as pointers."""

    def __init__(self, path: Path) -> None:
        """Load the library at `path`."""
        self.handle = ctypes.CDLL(str(path))
        self.handle.reid_ops_emulation_last_fault.restype = ctypes.c_char_p

    def __call__(self, name: str, *arguments: Any) -> int:
        """Call a function that returns a CUDA error code."""
        return int(getattr(self.handle, name)(*map(self._convert, arguments)))

    @staticmethod
    def _convert(argument: Any) -> Any:
        if isinstance(argument, np.ndarray):
            assert argument.flags.c_contiguous
            return ctypes.c_void_p(argument.ctypes.data)
        if isinstance(argument, str):
            return ctypes.c_char(argument.encode())
        return argument

    def last_fault(self) -> str:
        """The line of the last fault on this thread."""
        return str(self.handle.reid_ops_emulation_last_fault().decode())


def uints(*sizes: int) -> np.ndarray:
    """Sizes of a grid or a block."""
    return np.array(sizes, dtype=np.uint32)
