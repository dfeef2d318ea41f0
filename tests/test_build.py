"""The build's decisions as functions, what the build says of itself, and what the sdist carries."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import reid_ops
from reid_ops import _extension
from tests.import_support import DISTRIBUTIONS, imported
from tools import build_config, cmake_config, cuda_resources

ROOT = Path(__file__).resolve().parent.parent
TOOLKIT = build_config.Toolkit(Path("/toolkit"), "13.0")
ALL_ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]


def make_toolkit(home: Path, version: str = "13.0") -> Path:
    """A folder that looks like a CUDA toolkit; its nvcc answers what the build asks."""
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        f'  --dryrun) echo "#\\$ _HERE_={home}/bin" >&2; echo "#\\$ TOP={home}/bin/.." >&2 ;;\n'
        f'  --version) echo "Cuda compilation tools, release {version}, V{version}.88" ;;\n'
        "  --list-gpu-code) printf 'sm_80\\nsm_90\\nsm_100\\n' ;;\n"
        "esac\n"
    )
    nvcc.chmod(0o755)
    return home


class TestDecision:
    """REID_OPS_CUDA, torch's CUDA and the toolkit's."""

    def test_joins_when_torch_and_toolkit_agree_on_the_major_version(self):
        decision = build_config.decide_cuda(None, "13.2", TOOLKIT, "")
        assert decision.enabled
        assert decision.toolkit == TOOLKIT

    @pytest.mark.parametrize(
        ("torch_cuda", "toolkit", "problem", "words"),
        [
            (None, TOOLKIT, "", "torch is not a CUDA build"),
            ("13.2", None, "nvcc is not on PATH", "nvcc is not on PATH"),
            ("12.8", TOOLKIT, "", "toolkit is 13.0 but torch was built with CUDA 12.8"),
        ],
        ids=["torch without CUDA", "no toolkit", "another major version"],
    )
    def test_a_missing_condition_turns_it_off_or_is_an_error_when_forced(
        self, torch_cuda, toolkit, problem, words
    ):
        decision = build_config.decide_cuda("", torch_cuda, toolkit, problem)
        assert not decision.enabled
        assert words in decision.reason
        with pytest.raises(build_config.BuildError, match=words) as raised:
            build_config.decide_cuda("1", torch_cuda, toolkit, problem)
        assert "\n" not in str(raised.value)

    def test_zero_turns_it_off(self):
        assert not build_config.decide_cuda("0", "13.0", TOOLKIT, "").enabled

    def test_other_values_are_refused(self):
        with pytest.raises(build_config.BuildError, match=r"must be 0, 1 or unset, got 'yes'"):
            build_config.decide_cuda("yes", "13.0", TOOLKIT, "")


class TestToolkit:
    """Finding the toolkit."""

    def test_cuda_home_decides(self, tmp_path):
        home = make_toolkit(tmp_path / "cuda", "12.8")
        other = make_toolkit(tmp_path / "other")
        found, problem = build_config.find_toolkit({"CUDA_HOME": str(home), "PATH": f"{other}/bin"})
        assert found == build_config.Toolkit(home, "12.8")
        assert problem == ""

    def test_cuda_home_without_nvcc_is_named(self, tmp_path):
        found, problem = build_config.find_toolkit({"CUDA_HOME": str(tmp_path)})
        assert found is None
        assert problem == f"CUDA_HOME={tmp_path} has no bin/nvcc"

    def test_a_wrapper_script_on_path_is_seen_through(self, tmp_path):
        home = make_toolkit(tmp_path / "cuda")
        wrapper = tmp_path / "bin" / "nvcc"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {home}/bin/nvcc "$@"\n')
        wrapper.chmod(0o755)
        found, _ = build_config.find_toolkit({"PATH": str(wrapper.parent)})
        assert found == build_config.Toolkit(home, "13.0")

    def test_a_link_on_path_is_seen_through(self, tmp_path):
        home = make_toolkit(tmp_path / "cuda-13.0")
        (tmp_path / "cuda").symlink_to(home)
        found, _ = build_config.find_toolkit({"PATH": str(tmp_path / "cuda" / "bin")})
        assert found == build_config.Toolkit(home, "13.0")

    def test_an_nvcc_that_fails_is_named(self, tmp_path):
        broken = tmp_path / "nvcc"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        found, problem = build_config.find_toolkit({"PATH": str(tmp_path)})
        assert found is None
        assert "set CUDA_HOME" in problem

    def test_nothing_found_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setattr(build_config, "CONVENTIONAL_TOOLKIT", tmp_path / "none")
        found, problem = build_config.find_toolkit({"PATH": str(tmp_path)})
        assert found is None
        assert problem == "nvcc is not on PATH and CUDA_HOME is not set"


class TestArchitectures:
    """TORCH_CUDA_ARCH_LIST and its default."""

    def test_the_users_list_is_kept_word_for_word(self):
        assert build_config.choose_architectures("8.6 9.0+PTX", ALL_ARCHITECTURES) == "8.6 9.0+PTX"

    def test_default_is_what_nvcc_supports_and_ptx_for_the_newest(self):
        assert build_config.choose_architectures(None, ALL_ARCHITECTURES) == "8.0;8.6;8.9;9.0;10.0;12.0+PTX"
        assert build_config.choose_architectures("", ["sm_80", "sm_90"]) == "8.0;9.0+PTX"

    def test_nvcc_that_supports_none_is_an_error(self):
        with pytest.raises(build_config.BuildError, match="set TORCH_CUDA_ARCH_LIST"):
            build_config.choose_architectures(None, ["sm_50"])

    def test_nvcc_is_asked(self, tmp_path):
        toolkit = build_config.Toolkit(make_toolkit(tmp_path / "cuda"), "13.0")
        assert build_config.supported_architectures(toolkit) == ["sm_80", "sm_90", "sm_100"]

    def test_cmake_spelling(self):
        assert cmake_config.cmake_architectures("8.0;9.0a 12.0+PTX") == "80-real;90a-real;120"
        with pytest.raises(build_config.BuildError, match="Hopper"):
            cmake_config.cmake_architectures("Hopper")

    @pytest.mark.parametrize(
        ("environment", "threads"),
        [({"MAX_JOBS": "1"}, 1), ({"MAX_JOBS": "64"}, 4), ({"NVCC_THREADS": "2"}, 2)],
    )
    def test_nvcc_threads_stay_within_max_jobs(self, environment, threads):
        assert build_config.nvcc_threads(environment) == threads


def test_target_version_flag():
    assert build_config.target_version_macro("2.11") == "-DTORCH_TARGET_VERSION=0x020b000000000000"


def test_version_has_one_source():
    version = build_config.read_version(ROOT)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert reid_ops.build_info()["version"] == version
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt"):
        assert f'"{version}"' not in (ROOT / name).read_text()


def test_facts_header_is_only_touched_when_they_change(tmp_path):
    header = tmp_path / "build_facts.h"
    build_config.write_facts(header, {"flags": ['-D"quoted"']})
    assert r"-D\\\"quoted\\\"" in header.read_text()
    os.utime(header, (1, 1))
    build_config.write_facts(header, {"flags": ['-D"quoted"']})
    assert header.stat().st_mtime == 1
    build_config.write_facts(header, {"flags": []})
    assert header.stat().st_mtime > 1


def test_commit_is_unknown_outside_a_checkout(tmp_path):
    assert build_config.read_commit(tmp_path) is None


class TestBuildInfo:
    """What the built modules say of themselves."""

    def test_running_facts(self):
        info = reid_ops.build_info()
        assert info["runtime_torch"] == str(torch.__version__)
        assert info["runtime_cuda"] == torch.version.cuda
        assert info["loaded"] is reid_ops.is_available()

    @pytest.mark.skipif(not reid_ops.is_available(), reason="the operators are not built")
    def test_build_facts(self):
        info = reid_ops.build_info()
        assert info["torch_target"] == "2.11"
        assert info["cpu_capability"] in ("avx512", "avx2", "baseline")
        assert re.match(r"(gcc|clang) \d+", info["compiler"])
        assert "-O3" in info["cxx_flags"]
        assert not any(flag.startswith("-march") or "fast" in flag for flag in info["cxx_flags"])
        assert not any("fast" in flag for flag in info["nvcc_flags"])
        assert info["cuda_reason"]
        assert bool(info["cuda_architectures"]) == info["cuda"] == (info["cuda_toolkit"] is not None)

    def test_missing_operators_raise_with_the_cause(self, monkeypatch):
        missing = ModuleNotFoundError("No module named 'reid_ops._C'")
        monkeypatch.setattr(_extension, "_operators_error", missing)
        assert not reid_ops.is_available()
        with pytest.raises(RuntimeError, match="not built; run `pip install") as raised:
            _extension.require()
        assert raised.value.__cause__ is missing

    @pytest.mark.parametrize(
        ("torch_version", "torch_cuda", "facts", "words"),
        [
            ("2.10.1+cu128", "12.8", {}, "torch 2.10.1.cu128 is older than 2.11"),
            ("2.15.0+cpu", None, {"cuda": True, "cuda_toolkit": "13.0"}, "rebuild them with REID_OPS_CUDA=0"),
            ("2.15.0+cu126", "12.6", {"cuda": True, "cuda_toolkit": "13.0"}, "a CUDA library is missing"),
            ("2.15.0", "13.2", {"cuda": True, "cuda_toolkit": "13.0"}, "a library is missing"),
        ],
        ids=["old torch", "torch without CUDA", "another CUDA", "unknown"],
    )
    def test_operators_that_do_not_load_raise_with_the_cause(
        self, monkeypatch, torch_version, torch_cuda, facts, words
    ):
        broken = ImportError("libcudart.so.13: cannot open shared object file")
        monkeypatch.setattr(_extension, "_operators_error", broken)
        monkeypatch.setattr(_extension, "_build_facts", lambda: facts)
        monkeypatch.setattr(torch, "__version__", torch_version)
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        with pytest.raises(RuntimeError, match=words) as raised:
            _extension.require()
        assert raised.value.__cause__ is broken
        assert "libcudart.so.13" in str(raised.value)


class TestSetup:
    """setup.py itself, run as pip runs it."""

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "setup.py", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_forced_cuda_that_cannot_be_met_ends_with_one_line(self, tmp_path):
        result = self.run("build_ext", REID_OPS_CUDA="1", CUDA_HOME=str(tmp_path))
        assert result.returncode == 1
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("error: REID_OPS_CUDA=1 can't be met: ")

    def test_sdist_carries_all_that_a_wheel_is_built_from(self, tmp_path):
        result = self.run(
            "--quiet", "egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path)
        )
        assert result.returncode == 0, result.stderr
        (archive,) = tmp_path.glob("*.tar.gz")
        assert archive.name == f"reid_ops-{build_config.read_version(ROOT)}.tar.gz"
        with tarfile.open(archive) as opened:
            carried = {name.partition("/")[2] for name in opened.getnames()}
        sources = {
            path.relative_to(ROOT).as_posix()
            for folder in ("csrc", "tools", "tests/emulation")
            for pattern in ("*.h", "*.cpp", "*.cu", "*.py", "*.sh")
            for path in (ROOT / folder).rglob(pattern)
        }
        assert sources - carried == set()
        assert {"pyproject.toml", "setup.py", "LICENSE", "CMakeLists.txt", "reid_ops/py.typed"} <= carried
        assert "models/reid_models/report/report.html.jinja" in carried
        assert "models/reid_models/papers/hsgnet/recipes.yaml" in carried
        assert not [name for name in carried if name.endswith((".so", ".pyc"))]


class TestGpuCheck:
    """tools/gpu_check.sh, which meets a GPU seldom: what can be told without one."""

    SCRIPT = (ROOT / "tools" / "gpu_check.sh").read_text(encoding="utf-8")

    @pytest.fixture
    def files(self) -> list[str]:
        """The script's list of tests, as bash has it."""
        (tests,) = re.findall(r"^tests=\(.*?\)$", self.SCRIPT, re.MULTILINE | re.DOTALL)
        command = f'{tests}; printf "%s\\n" "${{tests[@]}}"'
        return subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=True
        ).stdout.split()

    def test_names_every_file_with_tests_on_cuda(self, files):
        marks = re.compile(r"backend: Backend|pytest\.mark\.cuda")
        with_tests = {
            str(path.relative_to(ROOT))
            for path in (ROOT / "tests").rglob("test_*.py")
            if marks.search(path.read_text(encoding="utf-8")) and path.name != "test_build.py"
        }
        assert set(files) == with_tests

    def test_its_tests_are_found_without_the_extras(self, files):
        """On a machine with torch, numpy and pytest alone; hypothesis takes its own file along."""
        missing = imported("models/reid_models", "tests") - {"numpy", "torch", "pytest"}
        names = [*missing, *DISTRIBUTIONS, "reid_models", "scipy"]
        options = ["--collect-only", "-q", "-m", "cuda", "-p", "no:cacheprovider", *files]
        program = (
            f"import sys; sys.modules.update(dict.fromkeys({names!r})); import pytest; "
            f"sys.exit(pytest.main({options!r}))"
        )
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # such as hypothesis's own
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout[-2000:]
        found = {line.partition("::")[0] for line in ran.stdout.splitlines() if "::" in line}
        assert found == set(files) - {"tests/test_operator_properties.py"}

    def test_limits_add_up_to_less_than_ten_minutes(self):
        steps = re.findall(r"^( *)step \S+ (\d+) ", self.SCRIPT, re.MULTILINE)
        in_loops = 4  # tools, and sizes of clusters
        total = sum(int(limit) * (in_loops if indent else 1) for indent, limit in steps)
        (deadline,) = re.findall(r"^deadline=(\d+)", self.SCRIPT, re.MULTILINE)
        assert len(steps) == 6 and total <= int(deadline) < 600


PTXAS_REPORT = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstPf' for 'sm_90'
ptxas info    : Function properties for _Z5firstPf
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 2048 bytes smem
ptxas info    : Compiling entry function '_Z6secondPf' for 'sm_90'
ptxas info    : Function properties for _Z6secondPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
"""


class TestCudaResources:
    """Reading ptxas."""

    def test_report_is_read_kernel_by_kernel(self):
        first, second = cuda_resources.parse(PTXAS_REPORT)
        assert first == cuda_resources.Resources("_Z5firstPf", "sm_90", 40, 16, 8, 12, 2048)
        assert first.spills
        assert second == cuda_resources.Resources("_Z6secondPf", "sm_90", 10, 0, 0, 0, 0)
        assert not second.spills

    def test_names_are_shortened(self):
        name = (
            "void reid_ops::part_correlation::(anonymous namespace)::forward<float, (int)4>(reid_ops::Call)"
        )
        assert cuda_resources.shorten(name) == "part_correlation::forward<float, 4>"

    def test_a_spill_needs_a_reason(self):
        source = "// spill: forward<double: 64 accumulators beat a second pass\n// spill: backward:\n"
        assert cuda_resources.permitted_spills(source) == ["forward<double"]
