"""The machine: what it is, and whether it is quiet enough to measure on."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

BUSY_SHARE = 0.10  # of one core, used by other processes
_INSTRUCTION_SETS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "neon",
    "asimd",
    "sve",
)
_ROOT = Path(__file__).resolve().parents[2]


def describe(device: str) -> dict[str, Any]:
    """CPU, cores, instruction sets, memory and, on CUDA, the GPU."""
    cpuinfo = _read("/proc/cpuinfo")
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    facts: dict[str, Any] = {
        "cpu": model.group(1).strip() if model else platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": available_cores(),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in present],
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "system": platform.system(),
        "gpu": None,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        facts["gpu"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_cache_bytes": properties.L2_cache_size,
        }
    return facts


def slug(machine: dict[str, Any]) -> str:
    """A name for file names: the GPU's, or the CPU's and its number of cores."""
    name = machine["gpu"]["name"] if machine["gpu"] else f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory for reuse; False where it cannot be told.

    By default glibc hands large blocks back to the system as soon as they are freed, or not, depending
    on what was freed before. Every call then pays page faults for its output, about 0.3 microseconds
    for each 4 KiB, which drowns the operators and says nothing about them. A training loop's heap is
    warm; so is every contender's here.
    """
    try:
        library = ctypes.CDLL(None)
        trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
        return bool(library.mallopt(mmap_max, 0)) and bool(library.mallopt(trim_threshold, 2**31 - 1))
    except (AttributeError, OSError):
        return False


def return_freed_memory() -> None:
    """Gives memory kept for reuse back to the system, for a process that needs as much; no-op elsewhere."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> dict[str, Any]:
    """Commit of the checkout and whether it has changes; None and None outside one."""
    head, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {"commit": head.strip() if head else None, "dirty": bool(status) if status is not None else None}


def why_not_kept(build_commit: str | None) -> str | None:
    """Why a result of this checkout can't be kept, None if it can: what ran must be what is committed."""
    sources = ("csrc", "reid_ops", "setup.py")
    if _git("rev-parse", "HEAD") is None:
        return "this is no git checkout, so the result could not name its commit"
    if _git("status", "--porcelain", "--", *sources):
        return "the sources have uncommitted changes"
    if build_commit is None or _git("diff", "--name-only", build_commit, "HEAD", "--", "csrc") != "":
        return "the built kernels are not those of this commit: build again"
    return None


@dataclass
class Window:
    """A stretch of time and what other processes used of it, in cores; None where it can't be told."""

    seconds: float = 0.0
    others: float | None = None

    @property
    def busy(self) -> bool:
        """Whether others used too much. Windows under a second are too short for the kernel's clock ticks."""
        return self.others is not None and self.seconds >= 1.0 and self.others > BUSY_SHARE


class LoadWatch:
    """Tells how many cores other processes use while we measure, from the kernel's counters.

    All busy time of all cores (time stolen by the host of a virtual machine included), less our own and our
    children's: the finished ones', and that of the workers of a DataLoader.
    """

    def __init__(
        self,
        stat: Path = Path("/proc/stat"),
        own_seconds: Callable[[], float] = lambda: sum(os.times()[:4]) + _workers_seconds(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stat, self._own_seconds, self._clock = stat, own_seconds, clock
        self._ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        self.windows: list[Window] = []
        self.load_before = list(os.getloadavg()) if hasattr(os, "getloadavg") else None

    @contextlib.contextmanager
    def window(self) -> Iterator[Window]:
        """Watches over a ``with`` block; the window's figures are there after it."""
        window = Window()
        start, own, total = self._clock(), self._own_seconds(), self._busy_seconds()
        try:
            yield window
        finally:
            window.seconds = self._clock() - start
            end = self._busy_seconds()
            if total is not None and end is not None and window.seconds > 0:
                used = (end - total) - (self._own_seconds() - own)
                window.others = max(0.0, used / window.seconds)
            self.windows.append(window)

    def settle(self, seconds: float = 1.2) -> Window:
        """Watches for a moment while we do nothing."""
        with self.window() as window:
            time.sleep(seconds)
        return window

    def overall(self) -> Window:
        """All windows together."""
        known = [window for window in self.windows if window.others is not None]
        seconds = sum(window.seconds for window in known)
        if not known or seconds == 0:
            return Window()
        return Window(seconds, sum(window.seconds * (window.others or 0.0) for window in known) / seconds)

    @property
    def worst(self) -> float | None:
        """Largest use by others, in cores, over the whole and every window long enough to judge."""
        judged = [self.overall(), *(window for window in self.windows if window.seconds >= 1.0)]
        return max((window.others for window in judged if window.others is not None), default=None)

    @property
    def busy(self) -> bool:
        """Whether the whole or any window was busy."""
        return self.overall().busy or any(window.busy for window in self.windows)

    def _busy_seconds(self) -> float | None:
        try:
            fields = self._stat.read_text().splitlines()[0].split()[1:]
        except (OSError, IndexError):
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
        return (user + nice + system + irq + softirq + steal) / self._ticks


def _workers_seconds() -> float:
    """Processor time of the processes that ``multiprocessing`` runs for us."""
    ticks = 0
    for process in multiprocessing.active_children():
        fields = _read(f"/proc/{process.pid}/stat").rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:13])  # utime and stime, after the name in brackets
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout
