"""Runs the tests marked `sanitize` over emulated kernels under the race detector (tests/emulation/observe/).

    python -m tools.race_test [pytest's arguments instead]

A race that does no harm says so where one of its accesses stands: `// race: <reason>`, on that line or the
one before it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.emulation.build import build_operators
from tests.emulation.observation import Place, Race, read

ROOT = Path(__file__).resolve().parent.parent
MARKED = ("-m", "sanitize and emulated")


def reason(race: Race) -> str | None:
    """Why this race does no harm, from the comment at one of its accesses."""
    return next((found for place in (race.before, race.now) if (found := _comment(place)) is not None), None)


def _comment(place: Place) -> str | None:
    file = ROOT / "csrc" / place[0]
    if not file.is_file():
        return None
    lines = ["", *file.read_text(encoding="utf-8").splitlines()]
    for line in lines[place[1] - 1 : place[1] + 1]:
        found = re.search(r"//\s*race:\s*(\S.*)", line)
        if found and (line is lines[place[1]] or line.lstrip().startswith("//")):
            return found[1]
    return None


def main(arguments: Sequence[str]) -> int:
    """Exit status: the tests', or 1 for a race without a reason."""
    library = build_operators(observe=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "races"
        report.touch()
        environment = os.environ | {
            "REID_OPS_EMULATED_LIBRARY": str(library),
            "REID_OPS_EMULATION_OBSERVE": "races",
            "REID_OPS_EMULATION_REPORT": str(report),
        }
        command = [sys.executable, "-m", "pytest", "-q", *(arguments or MARKED), "-p", "no:cacheprovider"]
        status = subprocess.run(command, cwd=ROOT, env=environment).returncode
        _, races = read(library, report.read_text(encoding="utf-8").splitlines())
    unexplained = [race for race in races if reason(race) is None]
    for race in races:
        print(f"{race}" + (f" (harmless: {why})" if (why := reason(race)) is not None else ""))
    print(f"{len(races)} races, {len(unexplained)} of them without a reason")
    return status or int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
