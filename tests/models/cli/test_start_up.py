"""`reid search` answers soon: what it must not import, and how long it takes beside `import torch`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from reid_models.retrieval.features import Features, save_features
from reid_models.retrieval.gallery import Gallery

ROOT = Path(__file__).resolve().parents[3]
# Some take longer to import than torch. timm and torchvision are for queries that are images.
NEVER = {"lightning", "matplotlib", "onnx", "pytorch_grad_cam", "pytorch_lightning", "scipy", "sklearn"}
NEVER |= {"tensorboard", "torchmetrics"}
FOR_IMAGES = {"timm", "torch._dynamo", "torchvision"}
PROGRAM = """
import sys
from reid_models.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
assert not status, status
print(*sys.modules, file=open("modules", "w"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A features file and its index."""
    path = tmp_path_factory.mktemp("search")
    values = torch.eye(6)
    known = torch.arange(6)
    features = Features(values, known, known, tuple(f"{row}.jpg" for row in range(6)))
    save_features(path / "features.safetensors", features)
    gallery, _ = Gallery.build([features])
    gallery.save(path / "some.index")
    return path


def run(folder: Path, *command: str) -> tuple[str, float]:
    """What a fresh Python says, and the seconds that it took."""
    start = time.perf_counter()
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'models'}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, time.perf_counter() - start


SEARCH = ("-c", PROGRAM, "search", "features.safetensors", "--index", "some.index", "-k", "1")


def test_modules(folder: Path) -> None:
    found, _ = run(folder, *SEARCH)
    assert "0.jpg" in found
    modules = (folder / "modules").read_text().split()
    assert not (NEVER | FOR_IMAGES) & set(modules)


@pytest.mark.slow
def test_takes_little_more_than_importing_torch(folder: Path) -> None:
    """The best of three each: other processes may take the machine for a while."""
    searching = min(run(folder, *SEARCH)[1] for _ in range(3))
    importing = min(run(folder, "-c", "import torch")[1] for _ in range(3))
    assert searching < 2 * importing + 0.5
