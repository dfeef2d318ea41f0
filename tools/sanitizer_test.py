"""Runs the tests marked `sanitize` over emulated kernels built with Address- and UndefinedBehaviorSanitizer.

Out-of-bounds, misaligned and undefined accesses in a cuda.cu then end the run with a report. Run from
the repository root: `python -m tools.sanitizer_test [pytest arguments]`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.emulation.build import build_operators, sanitizer_environment


def main() -> int:
    """Returns pytest's exit status; no test found is a failure too."""
    library = build_operators(sanitize=True)
    print(f"built {library.name}", flush=True)
    # tests/conftest.py loads this library instead of building the ordinary one.
    environment = {**os.environ, **sanitizer_environment(), "REID_OPS_EMULATED_LIBRARY": str(library)}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "sanitize and emulated", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *sys.argv[1:]], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
