"""Which distributions the project's files import."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Where a package is imported by another name than it is installed by. Of faiss's
# two distributions a machine takes one: tests/test_requirements.py.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-gpu",
    "lightning_utilities": "lightning-utilities",
    "pytorch_grad_cam": "grad-cam",
    "yaml": "pyyaml",
}
OWN = {"benchmarks", "examples", "reid_models", "reid_ops", "tests", "tools"}


def imported(*folders: str, deferred: bool = True) -> set[str]:
    """Distributions that the folders' Python files import; ``deferred``: in functions as well."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree) if deferred else tree.body:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).partition(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in found - OWN - set(sys.stdlib_module_names)}
