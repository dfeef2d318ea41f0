"""Makes the evidence of one paper.

python -m examples.evidence hcn
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pkgutil
import tempfile
import time
from pathlib import Path

from rich.console import Console

from examples import evidence
from examples.evidence.experiments import write_result

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "evidence"
HELPERS = ("__main__", "experiments")


def main() -> None:
    """Trains, measures, and writes the result."""
    papers = sorted(m.name for m in pkgutil.iter_modules(evidence.__path__) if m.name not in HELPERS)
    parser = argparse.ArgumentParser(prog="python -m examples.evidence", description=evidence.__doc__)
    parser.add_argument("paper", choices=papers)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    console, start = Console(), time.perf_counter()
    paper = importlib.import_module(f"examples.evidence.{options.paper}")
    with tempfile.TemporaryDirectory() as folder:
        result = paper.run(Path(folder), console)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"{options.paper}.json"
    write_result(file, options.paper, result, time.perf_counter() - start)
    console.print(f"written: {file} ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
