"""Cubins of the CUDA sources, kept in build/cubins/ until a source, nvcc or the command changes."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tools.build_config import BuildError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "cubins"


def compile_cubin(nvcc: Path, source: Path, architecture: str) -> tuple[Path, str]:
    """The cubin of one source for one architecture, with source lines, and what ptxas said of it.

    Raises:
        BuildError: nvcc failed; the message carries its output.
    """
    command = [
        *(str(nvcc), "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Xptxas=-v", "-lineinfo", "-cubin"),
        *(f"-arch={architecture}", f"-I{ROOT / 'csrc'}", "-DREID_OPS_WITH_CUDA", str(source)),
    ]
    made = FOLDER / f"{source.parent.name}-{source.stem}.{architecture}.{_key(command, source)}.cubin"
    report = made.with_suffix(".txt")
    if made.exists() and report.exists():
        return made, report.read_text(encoding="utf-8")
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = made.with_suffix(".partial")
    result = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"nvcc failed on {source} for {architecture}:\n{result.stderr}")
    for old in FOLDER.glob(f"{source.parent.name}-{source.stem}.{architecture}.*"):
        if old != partial:
            old.unlink()
    report.write_text(result.stderr, encoding="utf-8")
    partial.replace(made)
    return made, result.stderr


def _key(command: list[str], source: Path) -> str:
    """Of the command, the compiler's date, the source and every header that it may read."""
    compiler = Path(command[0]).resolve().stat()
    digest = hashlib.sha256(f"{command} {compiler.st_mtime_ns} {compiler.st_size}".encode())
    for header in sorted({*source.parent.glob("*.h"), *(ROOT / "csrc" / "common").glob("*.h"), source}):
        digest.update(header.read_bytes())
    return digest.hexdigest()[:16]
