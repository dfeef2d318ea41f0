"""JPEG files that decode, but of which the decoder says that something is missing or wrong.

libjpeg fills up what it lacks with grey and returns as if nothing were; it only writes a line to stderr,
without the file's name, and not always: a scan that has no end is looked for here. So files are decoded in
other processes, one after another, and each process reads its own stderr. Run as a script this module is such
a process, which imports OpenCV alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

START, SCAN, END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"


def jpeg_warnings(paths: Sequence[str], *, workers: int = 4) -> dict[str, str]:
    """What libjpeg says of files, by path; those of which it says nothing, or that are no JPEG, are left out.

    Args:
        paths: files; any that can't be read are left out.
        workers: processes, at least 1.

    Example:
        >>> jpeg_warnings(["half.jpg", "whole.jpg"])
        {'half.jpg': 'Corrupt JPEG data: premature end of data segment'}
    """
    shares = [share for share in (paths[start::workers] for start in range(workers)) if share]
    found: dict[str, str] = {}
    with ThreadPoolExecutor(workers) as pool:
        for share, lines in zip(shares, pool.map(_ask, shares), strict=True):
            found |= {share[place]: text for place, text in map(json.loads, lines)}
    return {path: found[path] for path in paths if path in found}


def _ask(paths: Sequence[str]) -> list[bytes]:
    """A process's lines about some files."""
    names = b"\0".join(map(os.fsencode, paths))
    child = subprocess.run([sys.executable, os.path.abspath(__file__)], input=names, stdout=subprocess.PIPE)
    if child.returncode:
        raise RuntimeError(f"checking JPEG files ended with status {child.returncode}")
    return child.stdout.splitlines()


def _warnings(paths: Sequence[bytes]) -> Iterator[tuple[int, str]]:
    """(place, text) of the files of which libjpeg says something, on this process's stderr."""
    import cv2
    import numpy as np

    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        for place, path in enumerate(paths):
            try:
                with open(path, "rb") as file:
                    content = file.read()
                if not content.startswith(START):
                    continue
                said.seek(0)
                said.truncate()
                cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            except (OSError, cv2.error):  # somebody else's to report
                continue
            said.seek(0)
            text = " ".join(said.read().decode(errors="replace").split())
            if not text and content.rfind(END) < content.rfind(SCAN):  # such as zeros, which are grey's code
                text = "no end of the image"
            if text:
                yield place, text


if __name__ == "__main__":
    for found in _warnings(sys.stdin.buffer.read().split(b"\0")):
        print(json.dumps(found), flush=True)
