"""What is published of GPUs, and the few numbers that are not."""

from __future__ import annotations

from dataclasses import dataclass, field

# Sources, by the letters that the devices name. Only the H200's bandwidth and multiprocessors were compared
# with theirs again; latencies and rates are yet to be.
#   H  NVIDIA H200 datasheet (2024): 4.8 TB/s; NVIDIA H100 datasheet: 3.35 TB/s
#   W  NVIDIA H100 Tensor Core GPU Architecture whitepaper (2022): 132 multiprocessors (SXM5), 50 MB of L2
#   A  NVIDIA A100 Tensor Core GPU Architecture whitepaper (2020), A100 80GB datasheet: 108 multiprocessors,
#      1.41 GHz, 2.039 TB/s, 40 MB of L2
#   L  NVIDIA L40S datasheet (2023): 864 GB/s, 18,176 CUDA cores, 91.6 TFLOPS (2.52 GHz)
#   C  CUDA C++ Programming Guide, "Technical Specifications per Compute Capability" and "Throughput of Native
#      Arithmetic Instructions": results a clock and multiprocessor
#   M  Luo et al., "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture", arXiv 2402.13499 (2024):
#      latencies of memory on A100, H100 and RTX 4090 (for L40S), in clocks, without load
#   J  Jia et al., "Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking", arXiv 1804.06826
#      (2018): 4 clocks from an arithmetic instruction to one that depends on it; taken for later ones too
# Not published, hence assumptions:
MEMORY_SHARE = 0.9  # of the peak bandwidth that a kernel can reach
LAUNCH_US = 2.5  # from one kernel of a stream to the next; 2 to 4 is usual
LATENCY = {
    "fp64": 8,
    "convert": 14,
    "special": 20,
    "warp": 24,
    "barrier": 30,
    "half": 5,
}  # clocks; the rest: 4
ARITHMETIC_LATENCY = 4  # J


@dataclass(frozen=True)
class Device:
    """A GPU. Rates are results a clock and multiprocessor, latencies clocks."""

    name: str
    architecture: str
    multiprocessors: int
    clock: float  # Hz, sustained
    bandwidth: float  # bytes a second, as published
    l2_bytes: int
    threads: int  # a multiprocessor
    blocks: int
    shared_bytes: int  # a multiprocessor
    shared_optin: int  # the most a block may have
    shared_latency: int
    l2_latency: int
    memory_latency: int
    rates: dict[str, int] = field(hash=False)
    sources: str
    registers: int = 65536
    schedulers: int = 4

    @property
    def capability(self) -> tuple[int, int]:
        """Such as (9, 0)."""
        number = int(self.architecture.removeprefix("sm_"))
        return number // 10, number % 10

    @property
    def reachable_bandwidth(self) -> float:
        """Bytes a second that a kernel can hope for."""
        return self.bandwidth * MEMORY_SHARE

    @property
    def fp32_peak(self) -> float:
        """Operations a second, two a multiply-add."""
        return 2 * self.rates["fp32"] * self.multiprocessors * self.clock


_HOPPER = {"fp32": 128, "fp64": 64, "special": 16, "convert": 16, "half": 256}
_GH100 = {
    "architecture": "sm_90",
    "multiprocessors": 132,
    # The boost clock of a published card; the SXM5's 1.98 GHz peak is not what a busy one keeps.
    "clock": 1.755e9,
    "l2_bytes": 50 << 20,
    "threads": 2048,
    "blocks": 32,
    "shared_bytes": 228 << 10,
    "shared_optin": 227 << 10,
    "shared_latency": 29,
    "l2_latency": 263,
    "memory_latency": 479,
    "rates": _HOPPER,
}
DEVICES = {
    "h200": Device(name="H200", bandwidth=4.8e12, sources="H W C M J", **_GH100),  # type: ignore[arg-type]
    "h100": Device(name="H100 SXM", bandwidth=3.35e12, sources="H W C M J", **_GH100),  # type: ignore[arg-type]
    "a100": Device(
        name="A100 80GB SXM",
        architecture="sm_80",
        multiprocessors=108,
        clock=1.41e9,
        bandwidth=2.039e12,
        l2_bytes=40 << 20,
        threads=2048,
        blocks=32,
        shared_bytes=164 << 10,
        shared_optin=163 << 10,
        shared_latency=29,
        l2_latency=262,
        memory_latency=466,
        rates={"fp32": 64, "fp64": 32, "special": 16, "convert": 16, "half": 256},
        sources="A C M J",
    ),
    "l40s": Device(
        name="L40S",
        architecture="sm_89",
        multiprocessors=142,
        clock=2.52e9,
        bandwidth=0.864e12,
        l2_bytes=96 << 20,
        threads=1536,
        blocks=24,
        shared_bytes=100 << 10,
        shared_optin=99 << 10,
        shared_latency=30,
        l2_latency=273,
        memory_latency=542,
        rates={"fp32": 128, "fp64": 2, "special": 16, "convert": 2, "half": 128},
        sources="L C M J",
    ),
}


def resident_blocks(device: Device, threads: int, registers: int, shared: int) -> int:
    """Blocks of so many threads, registers a thread and bytes of shared memory that a multiprocessor holds.

    Registers are given out to warps in units of 256, shared memory in units of 128 bytes, of which the system
    keeps 1 KB a block (C).
    """
    warps = -(-threads // 32)
    by_registers = device.registers // (-(-registers * 32 // 256) * 256)  # warps
    by_registers = by_registers // 4 * 4  # each scheduler has a quarter of the registers
    by_shared = device.shared_bytes // (-(-(shared + 1024) // 128) * 128)
    return max(0, min(device.blocks, device.threads // (32 * warps), by_registers // warps, by_shared))
