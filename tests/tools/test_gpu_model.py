"""The model's parts against counts by hand: occupancy, instructions, bounds, and what is compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.emulation.observation import Launch, Site, Tensor
from tools import cuda_resources, sass
from tools.gpu_model import __main__ as command_line
from tools.gpu_model import instructions
from tools.gpu_model.devices import DEVICES, LAUNCH_US, resident_blocks
from tools.gpu_model.predict import Kernel, launch_time
from tools.gpu_model.trace import carry_on

H200 = DEVICES["h200"]
SASS = (
    (Path(__file__).parent / "loops.sass")
    .read_text(encoding="utf-8")
    .replace('"loops.cu"', '"/csrc/loops.cu"')
)


def kernel(part: str) -> sass.Kernel:
    """The kernel of loops.cu with this in its name."""
    (found,) = [each for each in sass.read(SASS) if part in each.name]
    return found


def line_of(text: str) -> int:
    """The number of the line of loops.cu with this text."""
    lines = (Path(__file__).parent / "loops.cu").read_text(encoding="utf-8").splitlines()
    (found,) = [number for number, line in enumerate(lines, 1) if text in line]
    return found


def site(text: str, space: str, kind: str, requests: int, size: int = 4, units: int | None = None) -> Site:
    """Full requests at one line of loops.cu."""
    full = requests * size if units is None else units  # 32 lanes of `size` bytes are so many sectors
    return Site((("loops.cu", line_of(text)),), space, kind, size, requests, 32 * requests, full, full)


def launch(sites: list[Site], tensors: list[Tensor], blocks: int, threads: int = 32) -> Launch:
    """A launch of loops.cu's kernels, one warp a block unless said."""
    return Launch("kernel", (blocks, 1, 1), (threads, 1, 1), 0, 1, tuple(sites), tuple(tensors))


def test_resident_blocks() -> None:
    """By threads, by registers (93 of them: 20 warps), by shared memory with the system's 1 KB, by blocks."""
    assert resident_blocks(H200, 256, 32, 0) == 8
    assert resident_blocks(H200, 32, 93, 0) == 20
    assert resident_blocks(H200, 128, 93, 0) == 5
    assert resident_blocks(H200, 128, 32, 75 << 10) == 3
    assert resident_blocks(H200, 128, 32, 76 << 10) == 2
    assert resident_blocks(H200, 32, 16, 0) == 32
    assert resident_blocks(H200, 1024, 32, 228 << 10) == 0
    assert resident_blocks(DEVICES["l40s"], 256, 32, 0) == 6


def test_instructions_of_a_simple_loop() -> None:
    """Four warps, eight iterations each: 16 instructions outside, 19 inside."""
    loads, stores = "const float a = from[i]", "to[i] = a, to[i + 32] = b"
    seen = launch([site(loads, "global", "read", 4 * 32), site(stores, "global", "write", 4 * 32)], [], 4)
    # The stores' lines are 20 and 21 in the SASS as clang-format leaves them: one line in the source.
    counted = instructions.count(kernel("four_first"), seen, 4, H200, 479)
    assert counted.instructions == 4 * 16 + 32 * 19
    assert counted.by_kind["global load"] == counted.by_kind["global store"] == 4 * 32
    assert counted.unseen_loops == 0 and counted.matched == 1
    # An iteration waits once for memory: its loads come together.
    assert 8 * 479 < counted.warp_clocks < 8 * (479 + 19) + 16 * 5


def test_loads_one_by_one_wait_each() -> None:
    """Two loads an iteration, the second after the first's store."""
    first, second = "to[i] = from[i] * 2.0f", "to[i + 32] = from[i + 32] * 2.0f"
    sites = [site(text, "global", kind, 8) for text in (first, second) for kind in ("read", "write")]
    counted = instructions.count(kernel("one_by_one"), launch(sites, [], 1), 1, H200, 479)
    assert counted.instructions == 16 + 8 * 16
    assert counted.warp_clocks > 8 * 2 * 479


def test_nested_loops() -> None:
    """Five rows of three iterations; half of the blocks without accesses, and no slow path, count."""
    sites = [
        site("const float4 v", "global", "read", 15, size=16),
        site("partial[threadIdx.x] = sum", "shared", "write", 5, units=5),
        site("if (threadIdx.x == 0)", "shared", "read", 10, units=10),
        site("if (threadIdx.x == 0)", "global", "write", 5, size=8, units=5),
    ]
    counted = instructions.count(kernel("sums"), launch(sites, [], 1), 1, H200, 479)
    assert counted.by_kind["global load"] == 15 and counted.by_kind["shared store"] == 5
    assert counted.by_kind["barrier"] == 10
    # Inside: 20 always, of 3 conditional ones none, since they call. Outside: 53, less those that call.
    assert counted.instructions < 12 + 5 * 53 + 15 * 20
    assert counted.instructions > 6 + 5 * 40 + 15 * 20


def test_code_whose_lines_never_ran_does_not_count() -> None:
    """A loop whose accesses the emulation did not see."""
    counted = instructions.count(kernel("four_first"), launch([], [], 1), 1, H200, 479)
    assert counted.instructions == 16


def test_bounds() -> None:
    """A copy by 132 x 64 warps: bytes over the reachable bandwidth, and the launch's least."""
    loads, stores = "const float a = from[i]", "to[i] = a, to[i + 32] = b"
    warps, iterations = 132 * 64, 1000
    requests = 4 * warps * iterations
    sites = [site(loads, "global", "read", requests), site(stores, "global", "write", requests)]
    size = requests * 128
    tensors = [Tensor(0, size, 0, size // 32, 0), Tensor(1, 0, size, 0, size // 32)]
    resources = cuda_resources.Resources("kernel", "sm_90", 24, 0, 0, 0, 0)
    compiled = Kernel(kernel("four_first"), resources)
    found = launch_time(compiled, launch(sites, tensors, warps), H200)
    assert found.bound == "bytes"
    assert found.microseconds == pytest.approx(2 * size / (4.8e12 * 0.9) * 1e6)
    assert found.bounds["issue"] == pytest.approx(found.instructions / (132 * 4 * 1.755e9) * 1e6)
    assert found.bounds["shared"] == pytest.approx(2 * requests / (132 * 1.755e9) * 1e6)
    assert found.warps_resident == 32  # no more blocks than that
    empty = launch_time(compiled, launch([], [], 1), H200)
    assert (empty.bound, empty.microseconds) == ("launches", LAUNCH_US)
    too_large = replace(launch([], [], 1), dynamic_shared=300 << 10)
    with pytest.raises(ValueError, match="does not fit on H200"):
        launch_time(compiled, too_large, H200)


def test_carry_on() -> None:
    """From batches of 2 and 4 to 8, along a straight line."""
    text = "const float4 v"
    small = launch([site(text, "global", "read", 10)], [Tensor(0, 64, 0, 2, 0)], 3)
    large = launch([site(text, "global", "read", 16)], [Tensor(0, 128, 0, 4, 0)], 5)
    whole = carry_on(small, large, share=3.0)
    assert (whole.blocks, whole.sites[0].requests, whole.tensors) == (9, 28, (Tensor(0, 256, 0, 8, 0),))


def test_predicted_beside_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of a GPU's JSON with their predictions; nothing to compare is an error."""
    row = {
        "op": "a",
        "size": "N=1",
        "mode": "forward",
        "dtype": "float32",
        "predicted_us": 10.0,
        "bound": "bytes",
    }
    record = {"case": "N=1", "mode": "forward", "dtype": "float32", "sizes": {"batch": 1}}
    record |= {"contenders": {"ours": {"median": 20e-6}}}
    data = {"operator": "a", "device": "cuda", "records": [record, {**record, "case": "other"}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert command_line.compare([row], tmp_path) == 0
    said = capsys.readouterr().out
    assert "predicted      10.0  measured      20.0  x  2.00  bytes" in said
    assert "bytes: measured is 2.00 times predicted, over 1 rows" in said
    (tmp_path / "a.json").write_text(json.dumps(data | {"device": "cpu"}))
    assert command_line.compare([row], tmp_path) == 2


def test_unknown_operator(capsys: pytest.CaptureFixture[str]) -> None:
    """Said in one line, with what there is."""
    assert command_line.main(["nonsense"]) == 2
    assert capsys.readouterr().err.startswith("error: no predictions for 'nonsense'; there are augmentation")
