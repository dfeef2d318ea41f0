// stripe_pool: the contract between the torch-aware file (ops.cpp) and the kernels (cpu.cpp, cuda.cu).
// Plain pointers and sizes, no torch header.
//
// A map is cut into S stripes of H/S rows. A window is a run of consecutive stripes; there are
// S(S+1)/2, widest first, then from the top down: {1..S}; {1..S-1}, {2..S}; ...; {1}, ..., {S}. Every
// window's maximum and mean follow from the stripes' maxima and sums, so x is read once.
#pragma once

#include <cstdint>

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#include "common/data_type.h"
#include "common/host_device.h"

namespace reid_ops::stripe_pool {

// Kernels keep three numbers a stripe and channel at hand: in shared memory, or on the stack.
constexpr std::int64_t kMaxStripes = 64;
constexpr std::int64_t kMaxPositions = 0x7fffffff;  // H * W: argmax is 32 bits wide

struct Problem {
  std::int64_t batch, channels, height, width;  // N, C, H, W
  std::int64_t stripes;                         // S, a divisor of H
  bool channels_last;                           // x is [N, H, W, C] in memory, else [N, C, H, W]
  DataType type;

  REID_OPS_HOST_DEVICE std::int64_t windows() const { return stripes * (stripes + 1) / 2; }
  // Positions are numbered y * W + x; a stripe is a run of so many.
  REID_OPS_HOST_DEVICE std::int64_t stripe_size() const { return height / stripes * width; }
  REID_OPS_HOST_DEVICE std::int64_t positions() const { return height * width; }
  // The window of stripes first .. first + length - 1.
  REID_OPS_HOST_DEVICE std::int64_t window(std::int64_t first, std::int64_t length) const {
    const std::int64_t narrower = stripes - length;  // windows of that many sizes come before
    return narrower * (narrower + 1) / 2 + first;
  }
};

// The maximum is the first of equal ones, and the first NaN where there is one.
struct Forward {
  Problem problem;
  const void* x;         // in   [N, C, H, W], dense in either layout
  void* output;          // out  [N, windows, 2, C]: maximum, then mean
  std::int32_t* argmax;  // out  [N, windows, C]: the maximum's position in the map; nullptr: not wanted
};

// An argmax that is not one of its window's stripes' gets no gradient.
struct Backward {
  Problem problem;
  const void* grad_output;     // in   [N, windows, 2, C]
  const std::int32_t* argmax;  // in   [N, windows, C], of the forward
  void* grad_x;                // out  [N, C, H, W] in the layout that the problem names
};

// CPU. The work is cut into independent items; the caller runs [0, items) in any split over any
// number of threads.
std::int64_t cpu_items(const Forward& call, std::int64_t threads);
std::int64_t cpu_items(const Backward& call, std::int64_t threads);
void cpu_run(const Forward& call, std::int64_t items, std::int64_t begin, std::int64_t end);
void cpu_run(const Backward& call, std::int64_t items, std::int64_t begin, std::int64_t end);

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
// CUDA. Asynchronous on `stream`.
cudaError_t cuda_launch(const Forward& call, cudaStream_t stream);
cudaError_t cuda_launch(const Backward& call, cudaStream_t stream);
#endif

}  // namespace reid_ops::stripe_pool
