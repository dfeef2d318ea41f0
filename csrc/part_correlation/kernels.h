// part_correlation: the contract between the torch-aware file (ops.cpp) and the kernels
// (cpu.cpp, cuda.cu). Plain pointers and sizes, no torch header.
//
// The op is one trilinear form in a signal x, a filter f (a "part") and an upstream gradient g,
// for every pair b = (n, m), part p and channel c:
//
//   T(x, f, g) = sum_{b,p,c} sum_{i,j} g[b,p,c,i,j] * sum_{u,v} x[n,c,i+u-top,j+v-left] * f[m,p,c,u,v]
//
// with top = (kh-1)/2, left = (kw-1)/2 and x = 0 outside the map (CSN, Eq. 2: "same" padding, no
// kernel flip). The forward is dT/dg, the two backward ops are dT/dx and dT/df; each is linear in
// its two inputs, so the three ops are also each other's double backward.
#pragma once

#include <cstdint>

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#include "common/data_type.h"
#include "common/host_device.h"

namespace reid_ops::part_correlation {

constexpr std::int64_t kMaxKernel = 64;  // filters up to 64 x 64
constexpr std::int64_t kMaxPool = 32;    // a CUDA block keeps whole pooling windows in shared memory

// Sizes are in elements. Strides are in elements too and may be anything (channels-last, slices).
struct Problem {
  std::int64_t pairs;                        // B
  std::int64_t signal_rows;                  // N
  std::int64_t part_rows;                    // M
  std::int64_t parts;                        // P
  std::int64_t channels;                     // C
  std::int64_t height, width;                // H, W
  std::int64_t kernel_height, kernel_width;  // kh, kw
  std::int64_t pool;                         // pooling window and stride, ceil mode; 1 = none
  std::int64_t signal_stride[4];             // of N, C, H, W
  std::int64_t parts_stride[5];              // of M, P, C, kh, kw
  const std::int64_t* pair_index;            // [B, 2] (signal row, part row), or nullptr: (b, b)
  DataType type;

  REID_OPS_HOST_DEVICE std::int64_t top() const { return (kernel_height - 1) / 2; }
  REID_OPS_HOST_DEVICE std::int64_t left() const { return (kernel_width - 1) / 2; }
  REID_OPS_HOST_DEVICE std::int64_t pooled_height() const { return (height + pool - 1) / pool; }
  REID_OPS_HOST_DEVICE std::int64_t pooled_width() const { return (width + pool - 1) / pool; }
  std::int64_t signal_row(std::int64_t pair) const { return pair_index ? pair_index[2 * pair] : pair; }
  std::int64_t part_row(std::int64_t pair) const { return pair_index ? pair_index[2 * pair + 1] : pair; }
};

struct Forward {
  Problem problem;
  const void* signal;    // in   [N, C, H, W], strided
  const void* parts;     // in   [M, P, C, kh, kw], strided
  void* output;          // out  [B, P*C, ceil(H/pool), ceil(W/pool)], contiguous
  std::int16_t* argmax;  // out  like output: row * pool + column inside the window; nullptr: not wanted
};

// A row of the signal (or of the parts) may take part in many pairs. `order` lists the pairs by
// that row, stably sorted, so that every row finds its own by binary search and adds them up in
// one fixed order: deterministic, no atomics. nullptr when there is no pair_index (row b: pair b).
struct GradSignal {
  Problem problem;
  const void* grad_output;     // in   [B, P*C, ceil(H/pool), ceil(W/pool)], contiguous
  const std::int16_t* argmax;  // in   like grad_output when pool > 1, else nullptr
  const void* parts;           // in   [M, P, C, kh, kw], strided
  const std::int64_t* order;   // in   [B] pairs sorted by signal row, or nullptr
  void* grad_signal;           // out  [N, C, H, W], contiguous
};

struct GradParts {
  Problem problem;
  const void* grad_output;     // in   [B, P*C, ceil(H/pool), ceil(W/pool)], contiguous
  const std::int16_t* argmax;  // in   like grad_output when pool > 1, else nullptr
  const void* signal;          // in   [N, C, H, W], strided
  const std::int64_t* order;   // in   [B] pairs sorted by part row, or nullptr
  void* grad_parts;            // out  [M, P, C, kh, kw], contiguous
};

// Both gradients at once, which reads the upstream gradient once. Only without a pair index.
struct Backward {
  Problem problem;
  const void* grad_output;     // in   [B, P*C, ceil(H/pool), ceil(W/pool)], contiguous
  const std::int16_t* argmax;  // in   like grad_output when pool > 1, else nullptr
  const void* signal;          // in   [N, C, H, W], strided
  const void* parts;           // in   [M, P, C, kh, kw], strided
  void* grad_signal;           // out  [N, C, H, W], contiguous
  void* grad_parts;            // out  [M, P, C, kh, kw], contiguous

  GradSignal signal_alone() const { return {problem, grad_output, argmax, parts, nullptr, grad_signal}; }
  GradParts parts_alone() const { return {problem, grad_output, argmax, signal, nullptr, grad_parts}; }
};

// CPU. The work is cut into independent items; the caller runs [0, items) in any split over any
// number of threads. `threads` only guides the cut.
std::int64_t cpu_items(const Forward& call, std::int64_t threads);
std::int64_t cpu_items(const GradSignal& call, std::int64_t threads);
std::int64_t cpu_items(const GradParts& call, std::int64_t threads);
std::int64_t cpu_items(const Backward& call, std::int64_t threads);
void cpu_run(const Forward& call, std::int64_t items, std::int64_t begin, std::int64_t end);
void cpu_run(const GradSignal& call, std::int64_t items, std::int64_t begin, std::int64_t end);
void cpu_run(const GradParts& call, std::int64_t items, std::int64_t begin, std::int64_t end);
void cpu_run(const Backward& call, std::int64_t items, std::int64_t begin, std::int64_t end);
// Whether the one-go backward fits the caches; otherwise the two gradients apart are faster.
bool cpu_fits(const Backward& call);

#if defined(REID_OPS_WITH_CUDA) || defined(REID_OPS_EMULATION) || defined(__CUDACC__)
// CUDA. Asynchronous on `stream`; the strided inputs must be contiguous here. A pair that names a
// row that is not there gives NaN outputs and no gradient (the device cannot raise).
cudaError_t cuda_launch(const Forward& call, cudaStream_t stream);
cudaError_t cuda_launch(const GradSignal& call, cudaStream_t stream);
cudaError_t cuda_launch(const GradParts& call, cudaStream_t stream);
#endif

}  // namespace reid_ops::part_correlation
