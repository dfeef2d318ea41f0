"""HSGM's evaluation in one kernel, an image in the shared memory of a cluster of blocks (sm_90 and later).

On the CPU and on older devices there is no such kernel: everything here runs emulated, or on such a GPU.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch

from reid_ops import _dispatch
from tests.conftest import Backend
from tests.similarity_graph.support import make
from tests.similarity_graph.test_graph import DTYPES, ROUNDING

WISH = "REID_OPS_HSGM_CLUSTER"
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "grid of eight": {"split": "grid", "levels": (1, 2, 4, 8)},
    "one level": {"levels": (1,)},
    "levels that do not nest": {"levels": (1, 3, 4)},
    "wide windows": {"channel_window": 7, "neighborhood": ("radius", 3)},
    "product": {"edges": "product", "include_self": True},
    "printed": {"edges": "printed"},
    "channel graph without edges": {"channel": False, "ablate": "edges"},
    "no spatial graph": {"spatial": False},
    "no channel graph": {"channel": False},
    "no residual": {"residual": False, "aggregate_scale": 1 / 3},
    "bilinear pooling, large windows": {"pooling": "stride_bilinear", "scales": (1, 5, 40, 2)},
}
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(params=[
    pytest.param("emulated", marks=pytest.mark.emulated), pytest.param("cuda", marks=pytest.mark.cuda)
])  # fmt: skip
def backend(request: pytest.FixtureRequest) -> Any:
    """Where such a kernel can run."""
    if request.param == "cuda" and (
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0)
    ):
        pytest.skip("no CUDA device of capability 9.0")
    is_cuda = request.param == "cuda"
    library = "reid_ops" if is_cuda else request.getfixturevalue("emulated_library")
    with _dispatch.use_library(library):
        yield Backend(request.param, "cuda" if is_cuda else "cpu", library)


def launches(module: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """The output, and whether clusters were launched for it."""
    with torch.no_grad():
        if x.is_cuda:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                y = module(x)
                torch.cuda.synchronize()
            return y, any("evaluate_cluster" in event.key for event in profile.key_averages())
        path = next(path for path in torch.ops.loaded_libraries if "emulated" in str(path))
        count = ctypes.CDLL(str(path)).reid_ops_emulation_cluster_launches
        count.restype = ctypes.c_longlong
        before = count()
        return module(x), count() > before


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("default", "reverse"), ("default", "shuffled:3"), *((name, "forward") for name in OPTIONS)],
)
def test_options(backend: Backend, name: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to the reference for shares of many channels and of few, down to none at all."""
    monkeypatch.setenv("REID_OPS_EMULATION_SCHEDULE", schedule)
    shape = (3, 21, 9, 6)
    x = torch.randn(shape, dtype=torch.float64, device=backend.device)
    module = make(shape, backend.device, **OPTIONS[name]).eval()
    expected = make(shape, backend.device, impl="reference", **OPTIONS[name]).eval()(x).detach()
    for layout in LAYOUTS:
        for blocks in (0, 1, 2, 8, 16):  # 0: the generic kernels
            monkeypatch.setenv(WISH, str(blocks))
            y, launched = launches(module, x.to(memory_format=layout))
            assert launched is (blocks > (0 if x.is_cuda else 1)) and y.is_contiguous(memory_format=layout)
            torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.sanitize
@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", [(2, 130, 16, 8), (3, 33, 13, 7), (2, 1, 4, 1), (1, 40, 31, 19)], ids=str)
def test_shapes(
    backend: Backend, shape: tuple[int, ...], layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(shape, dtype=torch.float64, device=backend.device)
    expected = make(shape, backend.device, impl="reference").eval()(x).detach()
    for blocks in ("2", "4", "auto"):
        monkeypatch.setenv(WISH, blocks)
        y, _ = launches(make(shape, backend.device).eval(), x.to(memory_format=layout))
        torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(
    backend: Backend, dtype: torch.dtype, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As precise as plain PyTorch in float32, against float64; rows of whole 16 bytes, and others."""
    own = torch.float64 if dtype == torch.float64 else torch.float32
    monkeypatch.setenv(WISH, "4")
    for shape in ((2, 160, 16, 8), (2, 37, 13, 7)):
        x = torch.randn(shape, device=backend.device).to(dtype)
        exact = make(shape, backend.device, impl="reference").eval()(x.double()).detach()
        plain = make(shape, backend.device, own, impl="reference").eval()(x.to(own)).detach()
        y, launched = launches(make(shape, backend.device, own).eval(), x.to(memory_format=layout))
        assert launched and y.dtype == dtype
        usual, largest = (plain.double() - exact).abs().max(), exact.abs().max()
        allowed = 4 * usual + (2 * ROUNDING[dtype] + 16 * ROUNDING[own]) * largest
        assert (y.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_papers_size_fits(backend: Backend, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself: an image of 1024 x 16 x 16; bit for bit the same alone and with others."""
    monkeypatch.delenv(WISH, raising=False)
    shape = (2, 1024, 16, 16)
    x = torch.randn(shape, device=backend.device).to(dtype)
    module = make(shape, backend.device, torch.float32).eval()
    y, launched = launches(module, x)
    assert launched
    alone, _ = launches(module, x[1:])
    assert torch.equal(alone, y[1:])
    monkeypatch.setenv(WISH, "0")
    generic, launched = launches(module, x)
    assert not launched
    torch.testing.assert_close(y, generic, rtol=8 * ROUNDING[dtype], atol=1e-5 * float(y.abs().max()))


def test_where_no_cluster_fits(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generic kernels take over, unless a size was insisted on; a misspelt wish is refused."""
    shape = (1, 1024, 40, 48)  # 480 KB for each of 16 blocks
    x = torch.randn(shape, device=backend.device)
    module = make(shape, backend.device, torch.float32).eval()
    monkeypatch.delenv(WISH, raising=False)
    y, launched = launches(module, x)
    assert not launched and y.isfinite().all()
    monkeypatch.setenv(WISH, "8")
    with pytest.raises(RuntimeError, match="cannot hold an image in a cluster of so many blocks"):
        launches(module, x)
    monkeypatch.setenv(WISH, "3")
    with pytest.raises(RuntimeError, match="must be auto, 0, 1, 2, 4, 8 or 16, got 3"):
        launches(module, x)
