"""`make` and its tools: what a build shows, when CUDA is left out, what a step says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import quiet_build

ROOT = Path(__file__).resolve().parent.parent
COMPILER = (
    "[3/17] c++ -MMD -MF /here/build/k.o.d -O3 -c -c /here/csrc/k_reciprocal/cpu.cpp -o /here/build/k.o -Wall"
)


def make(*arguments: str, **environment: str) -> str:
    """What `make -n` would run, in a checkout whose environment is there."""
    command = ["make", "-n", *arguments]
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return ran.stdout


class TestQuietBuild:
    """tools/quiet_build.py."""

    @pytest.mark.parametrize(
        ("line", "shown"),
        [
            (COMPILER, "[3/17] csrc/k_reciprocal/cpu.cpp"),
            ("[1/2] /cuda/bin/nvcc -c -c /here/csrc/a/cuda.cu -o a.o", "[1/2] csrc/a/cuda.cu"),
            ("reid-ops: CUDA off: nvcc is not on PATH", "reid-ops: CUDA off: nvcc is not on PATH"),
            ("SetuptoolsDeprecationWarning: License classifiers are deprecated.", None),
            ("g++ -shared -o reid_ops/_C.so", None),
            ("", None),
        ],
    )
    def test_a_line_a_step(self, line, shown):
        assert quiet_build.step_of(line, Path("/here")) == shown

    @pytest.mark.parametrize(
        ("given", "gpu", "added"),
        [
            ({}, False, {"REID_OPS_CUDA": "0"}),
            ({"REID_OPS_CUDA": ""}, False, {"REID_OPS_CUDA": "0"}),
            ({"REID_OPS_CUDA": "1"}, False, {}),
            ({"REID_OPS_CUDA": "0"}, True, {}),
            ({}, True, {}),
        ],
    )
    def test_cuda_is_left_out_where_nothing_could_run_it_and_nobody_asks(self, given, gpu, added):
        assert quiet_build.cuda_environment(given, lambda: gpu) == added

    def run(self, monkeypatch, tmp_path, program: str, *arguments: str) -> int:
        monkeypatch.setattr(quiet_build, "COMMAND", (sys.executable, "-c", program))
        monkeypatch.setattr(quiet_build, "ROOT", tmp_path)
        monkeypatch.setattr(quiet_build, "LOG", tmp_path / "build" / "build.log")
        return quiet_build.main(arguments)

    def test_success_shows_steps_and_counts_warnings(self, monkeypatch, tmp_path, capfd):
        program = f"print({COMPILER!r}); print('a.cpp:3:1: warning: unused'); print('noise')"
        assert self.run(monkeypatch, tmp_path, program) == 0
        first, last = capfd.readouterr().out.splitlines()
        assert first.startswith("[3/17] ") and last.startswith("reid-ops: built in ")
        assert last.endswith(", 1 warning in build/build.log")
        assert "noise" in (tmp_path / "build" / "build.log").read_text()

    def test_makes_jobs_are_not_the_compilers(self, monkeypatch, tmp_path, capfd):
        monkeypatch.setenv("MAKEFLAGS", "-j2 --jobserver-auth=3,4")
        program = "import os; print('reid-ops: ' + os.environ.get('MAKEFLAGS', 'none'))"
        assert self.run(monkeypatch, tmp_path, program) == 0
        assert capfd.readouterr().out.startswith("reid-ops: none\n")

    def test_failure_shows_everything(self, monkeypatch, tmp_path, capfd):
        program = "import sys; print('noise'); print('error: no such header', file=sys.stderr); sys.exit(3)"
        assert self.run(monkeypatch, tmp_path, program) == 3
        shown = capfd.readouterr()
        assert shown.out == ""
        assert "noise\n" in shown.err and "error: no such header\n" in shown.err
        assert shown.err.endswith("the build failed; the lines above are in build/build.log\n")

    def test_without_a_gpu_one_line_says_how_to_force_cuda(self, monkeypatch, tmp_path, capfd):
        monkeypatch.delenv("REID_OPS_CUDA", raising=False)
        monkeypatch.setattr(quiet_build, "torch_sees_a_gpu", lambda: False)
        program = "import os; print('reid-ops: CUDA off: REID_OPS_CUDA=' + os.environ['REID_OPS_CUDA'])"
        assert self.run(monkeypatch, tmp_path, program, "--no-cuda-without-gpu") == 0
        first, _ = capfd.readouterr().out.splitlines()
        assert first == quiet_build.NO_GPU and "REID_OPS_CUDA=1" in first


class TestMakefile:
    """Which target builds what."""

    def test_only_the_demo_leaves_cuda_out(self):
        assert "--no-cuda-without-gpu" in make("demo-job")
        assert "--no-cuda-without-gpu" not in make("build") + make("test")

    def test_the_demo_installs_less_than_the_tests(self, tmp_path):
        demo, test = (make(target, f"VENV={tmp_path}/none") for target in ("demo-job", "test"))
        for name in ("requirements-build.txt", "requirements-demo.txt"):
            assert f"-r {name}" in demo and f"-r {name}" in test
        assert "-r requirements-dev.txt" in test and "requirements-dev.txt" not in demo

    def test_another_torch_installs_anew(self):
        assert "torch==2.11.0" in make("build", "TORCH=torch==2.11.0")

    def test_continuous_integration_compiles_cuda(self):
        text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        assert text.index("export REID_OPS_CUDA=1 ") < text.index("\nmake test")


@pytest.mark.parametrize(("command", "status", "word"), [("true", 0, "passed"), ("false", 1, "FAILED")])
def test_a_step_says_how_it_ended(command: str, status: int, word: str) -> None:
    ran = subprocess.run([ROOT / "tools" / "step.sh", "some step", command], capture_output=True, text=True)
    heading, end = ran.stdout.strip().splitlines()
    assert ran.returncode == status and heading == "=== some step"
    assert end.startswith(f"=== some step: {word} after ")
