// part_correlation on CUDA: three kernels over the plan of cuda_plan.h, and their launches.
//
// Deterministic: every output has one owner, and sums over pairs and over slices run in a fixed
// order. No atomics. Half types are widened on the way into shared memory and accumulate in float.
#include "common/launch.h"
#include "part_correlation/cuda_core.h"
#include "part_correlation/kernels.h"

namespace reid_ops::part_correlation {
namespace {

// Sums of one block's map tile go through shared memory, so that the writes to global memory are
// whole rows and pooling windows that span threads can be reduced.
//   staged: [channels][parts][tile_height][tile_width]
template <typename T, int kParts, int kRows>
__device__ __forceinline__ void stage_sums(const T (&sums)[kRows][kParts][kStripForward], const Plan& plan,
                                           const ThreadPlace& thread, T* staged) {
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int i = thread.row_group * kRows + row;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      T* target = staged + ((thread.channel * kParts + part) * plan.tile_height + i) * plan.tile_width;
#pragma unroll
      for (int s = 0; s < kStripForward; ++s) {
        const int j = thread.strip * kStripForward + s;
        if (i < plan.tile_height && j < plan.tile_width) target[j] = sums[row][part][s];
      }
    }
  }
}

// One staged map tile -> global memory, pooled.
template <typename T>
__device__ __forceinline__ void write_map(const T* staged, const Plan& plan, const Problem& problem, int rows,
                                          int columns, std::int64_t first_row, std::int64_t first_column,
                                          bool valid, void* output, std::int16_t* argmax,
                                          std::int64_t offset) {
  const int pool = static_cast<int>(problem.pool);
  const std::int64_t pooled_width = problem.pooled_width();
  const int pooled_rows = (rows + pool - 1) / pool, pooled_columns = (columns + pool - 1) / pool;
  const ThreadRows threads(pooled_columns);
  for (int row = threads.row; row < pooled_rows; row += threads.row_step) {
    for (int column = threads.column; column < pooled_columns; column += threads.column_step) {
      const T* window = staged + row * pool * plan.tile_width + column * pool;
      T best = window[0];
      int where = 0;
      // The first of equal values wins; NaN wins over everything, as in max_pool2d.
      for (int i = 0; i < pool && row * pool + i < rows; ++i) {
        for (int j = 0; j < pool && column * pool + j < columns; ++j) {
          const T value = window[i * plan.tile_width + j];
          if (value > best || value != value) best = value, where = i * pool + j;
        }
      }
      const std::int64_t at = offset + (first_row / pool + row) * pooled_width + first_column / pool + column;
      if (!valid) best = T(0) / T(0);
      store_as<T>(output, at, problem.type, best);
      if (argmax != nullptr) argmax[at] = static_cast<std::int16_t>(where);
    }
  }
}

// The part of a tile that lies in the map.
__device__ __forceinline__ int clipped(int tile, std::int64_t first, std::int64_t size) {
  return size - first < tile ? static_cast<int>(size - first) : tile;
}

template <typename T, int kWidth, int kParts, int kRows>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast)
    forward_kernel(Forward call, Plan plan, std::int64_t first_part) {
  REID_OPS_DYNAMIC_SHARED(T, shared);
  const Problem& problem = call.problem;
  T* const signal = shared;                                     // [channels][signal_rows][signal_stride]
  T* const taps = signal + plan.channels * plan.signal_size();  // [channels][kParts][tap_rows][tap_stride]
  T* const staged = taps + plan.channels * kParts * plan.taps_size();
  const std::int64_t map_size = problem.height * problem.width;
  const std::int64_t filter_size = problem.kernel_height * problem.kernel_width;
  const std::int64_t pooled_size = problem.pooled_height() * problem.pooled_width();

  for (std::int64_t block = blockIdx.x; block < plan.blocks; block += gridDim.x) {
    const BlockPlace place(block, plan, problem);
    const PairRows rows = rows_of_pair(problem, place.row);
    const std::int64_t first_row = place.tile_down * plan.tile_height;
    const std::int64_t first_column = place.tile_across * plan.tile_width;
    const ThreadPlace thread(plan, place.channels);

    if (rows.valid) {
      for (int channel = 0; channel < place.channels; ++channel) {
        const std::int64_t plane = (rows.signal * problem.channels + place.channel + channel) * map_size;
        fill_tile(signal + channel * plan.signal_size(), plan.signal_rows, plan.signal_stride,
                  first_row - problem.top(), first_column - problem.left(), problem.height, problem.width,
                  [&](std::int64_t i, std::int64_t j) {
                    return load_as<T>(call.signal, plane + i * problem.width + j, problem.type);
                  });
        for (int part = 0; part < kParts; ++part) {
          const std::int64_t filter = ((rows.parts * problem.parts + first_part + part) * problem.channels +
                                       place.channel + channel) *
                                      filter_size;
          fill_tile(taps + (channel * kParts + part) * plan.taps_size(), plan.tap_rows, plan.tap_stride, 0, 0,
                    problem.kernel_height, problem.kernel_width, [&](std::int64_t u, std::int64_t v) {
                      return load_as<T>(call.parts, filter + u * problem.kernel_width + v, problem.type);
                    });
        }
      }
    }
    __syncthreads();

    if (thread.active) {
      T sums[kRows][kParts][kStripForward] = {};
      if (rows.valid) {
        correlate<T, kWidth, kParts, kRows, kStripForward>(
            signal + thread.channel * plan.signal_size() + thread.row_group * kRows * plan.signal_stride +
                thread.strip * kStripForward,
            plan.signal_stride, taps + thread.channel * kParts * plan.taps_size(), plan.tap_stride,
            plan.taps_size(), plan.tap_rows, static_cast<int>(problem.kernel_width), sums);
      }
      stage_sums<T, kParts, kRows>(sums, plan, thread, staged);
    }
    __syncthreads();

    for (int k = 0; k < place.channels * kParts; ++k) {
      const std::int64_t channel = place.channel + k / kParts, part = first_part + k % kParts;
      const std::int64_t offset =
          ((place.row * problem.parts + part) * problem.channels + channel) * pooled_size;
      write_map(staged + k * plan.tile_height * plan.tile_width, plan, problem,
                clipped(plan.tile_height, first_row, problem.height),
                clipped(plan.tile_width, first_column, problem.width), first_row, first_column, rows.valid,
                call.output, call.argmax, offset);
    }
    __syncthreads();  // the next block of this loop writes the same shared memory
  }
}

// grad_signal[y, x] = sum_{p,u,v} g[p, y - u + top, x - v + left] f[p, u, v]
//                   = sum_{p,u,v} g[p, y + u - (kh-1-top), x + v - (kw-1-left)] f[p, kh-1-u, kw-1-v]:
// the forward's correlation with the filters turned by 180 degrees and the padding's sides swapped.
template <typename T, int kWidth, int kRows>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) grad_signal_kernel(GradSignal call, Plan plan) {
  REID_OPS_DYNAMIC_SHARED(T, shared);
  const Problem& problem = call.problem;
  T* const upstream = shared;                                     // [channels][signal_rows][signal_stride]
  T* const taps = upstream + plan.channels * plan.signal_size();  // [channels][tap_rows][tap_stride]
  T* const staged = taps + plan.channels * plan.taps_size();      // [channels][tile_height][tile_width]
  const std::int64_t map_size = problem.height * problem.width;
  const std::int64_t filter_size = problem.kernel_height * problem.kernel_width;
  const std::int64_t pooled_size = problem.pooled_height() * problem.pooled_width();
  const std::int64_t top = problem.kernel_height - 1 - problem.top();
  const std::int64_t left = problem.kernel_width - 1 - problem.left();

  for (std::int64_t block = blockIdx.x; block < plan.blocks; block += gridDim.x) {
    const BlockPlace place(block, plan, problem);
    const PairRun run = pairs_of_row(problem, call.order, 0, place.row);
    const std::int64_t first_row = place.tile_down * plan.tile_height;
    const std::int64_t first_column = place.tile_across * plan.tile_width;
    const ThreadPlace thread(plan, place.channels);
    T sums[kRows][1][kStripForward] = {};

    for (std::int64_t k = run.begin; k < run.end; ++k) {
      const std::int64_t pair = call.order == nullptr ? k : call.order[k];
      const PairRows rows = rows_of_pair(problem, pair);
      if (!rows.valid) continue;  // the same for the whole block
      for (std::int64_t part = 0; part < problem.parts; ++part) {
        for (int channel = 0; channel < place.channels; ++channel) {
          const std::int64_t c = place.channel + channel;
          const Upstream<T> grad = {
              call.grad_output,       call.argmax,
              problem.type,           static_cast<int>(problem.pool),
              problem.pooled_width(), ((pair * problem.parts + part) * problem.channels + c) * pooled_size};
          fill_tile(upstream + channel * plan.signal_size(), plan.signal_rows, plan.signal_stride,
                    first_row - top, first_column - left, problem.height, problem.width, grad);
          const std::int64_t filter =
              ((rows.parts * problem.parts + part) * problem.channels + c + 1) * filter_size -
              1;  // its last tap
          fill_tile(taps + channel * plan.taps_size(), plan.tap_rows, plan.tap_stride, 0, 0,
                    problem.kernel_height, problem.kernel_width, [&](std::int64_t u, std::int64_t v) {
                      return load_as<T>(call.parts, filter - (u * problem.kernel_width + v), problem.type);
                    });
        }
        __syncthreads();
        if (thread.active) {
          correlate<T, kWidth, 1, kRows, kStripForward>(
              upstream + thread.channel * plan.signal_size() + thread.row_group * kRows * plan.signal_stride +
                  thread.strip * kStripForward,
              plan.signal_stride, taps + thread.channel * plan.taps_size(), plan.tap_stride, 0, plan.tap_rows,
              static_cast<int>(problem.kernel_width), sums);
        }
        __syncthreads();
      }
    }

    if (thread.active) stage_sums<T, 1, kRows>(sums, plan, thread, staged);
    __syncthreads();
    const int rows = clipped(plan.tile_height, first_row, problem.height);
    const int columns = clipped(plan.tile_width, first_column, problem.width);
    const ThreadRows threads(columns);
    for (int channel = 0; channel < place.channels; ++channel) {
      const T* tile = staged + channel * plan.tile_height * plan.tile_width;
      const std::int64_t plane = (place.row * problem.channels + place.channel + channel) * map_size;
      for (int row = threads.row; row < rows; row += threads.row_step) {
        for (int column = threads.column; column < columns; column += threads.column_step) {
          store_as<T>(call.grad_signal, plane + (first_row + row) * problem.width + first_column + column,
                      problem.type, tile[row * plan.tile_width + column]);
        }
      }
    }
    __syncthreads();
  }
}

// grad_parts[p, u, v] = sum_{i,j} x[i + u - top, j + v - left] g[p, i, j]: the forward's correlation
// again, the upstream maps being the taps and the filter's positions the outputs. The sum over the
// map's rows is shared out to `slices` threads and added up in shared memory.
template <typename T, int kParts>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast)
    grad_parts_kernel(GradParts call, Plan plan, std::int64_t first_part) {
  REID_OPS_DYNAMIC_SHARED(T, shared);
  const Problem& problem = call.problem;
  T* const signal = shared;                                     // [channels][signal_rows][signal_stride]
  T* const taps = signal + plan.channels * plan.signal_size();  // [channels][kParts][tap_rows][tap_stride]
  T* const partial = shared;  // later: [slices][channels][kParts][output_height][strips * kStripParts]
  const std::int64_t map_size = problem.height * problem.width;
  const std::int64_t filter_size = problem.kernel_height * problem.kernel_width;
  const std::int64_t pooled_size = problem.pooled_height() * problem.pooled_width();
  const int partial_width = plan.strips * kStripParts;

  for (std::int64_t block = blockIdx.x; block < plan.blocks; block += gridDim.x) {
    const BlockPlace place(block, plan, problem);
    const PairRun run = pairs_of_row(problem, call.order, 1, place.row);
    const std::int64_t first_u = place.tile_down * plan.output_height;
    const ThreadPlace thread(plan, place.channels);
    T sums[1][kParts][kStripParts] = {};

    for (std::int64_t k = run.begin; k < run.end; ++k) {
      const std::int64_t pair = call.order == nullptr ? k : call.order[k];
      const PairRows rows = rows_of_pair(problem, pair);
      if (!rows.valid) continue;  // the same for the whole block
      for (std::int64_t first_row = 0; first_row < problem.height; first_row += plan.tile_height) {
        const int tile_rows = clipped(plan.tile_height, first_row, problem.height);
        for (std::int64_t first_column = 0; first_column < problem.width; first_column += plan.tile_width) {
          for (int channel = 0; channel < place.channels; ++channel) {
            const std::int64_t c = place.channel + channel;
            const std::int64_t plane = (rows.signal * problem.channels + c) * map_size;
            fill_tile(signal + channel * plan.signal_size(), plan.signal_rows, plan.signal_stride,
                      first_row + first_u - problem.top(), first_column - problem.left(), problem.height,
                      problem.width, [&](std::int64_t i, std::int64_t j) {
                        return load_as<T>(call.signal, plane + i * problem.width + j, problem.type);
                      });
            for (int part = 0; part < kParts; ++part) {
              const Upstream<T> grad = {
                  call.grad_output,
                  call.argmax,
                  problem.type,
                  static_cast<int>(problem.pool),
                  problem.pooled_width(),
                  ((pair * problem.parts + first_part + part) * problem.channels + c) * pooled_size};
              fill_tile(taps + (channel * kParts + part) * plan.taps_size(), tile_rows, plan.tap_stride,
                        first_row, first_column, problem.height, problem.width, grad);
            }
          }
          __syncthreads();
          if (thread.active) {
            const int begin = tile_rows * thread.slice / plan.slices;
            const int end = tile_rows * (thread.slice + 1) / plan.slices;
            correlate<T, 0, kParts, 1, kStripParts>(
                signal + thread.channel * plan.signal_size() +
                    (thread.row_group + begin) * plan.signal_stride + thread.strip * kStripParts,
                plan.signal_stride,
                taps + thread.channel * kParts * plan.taps_size() + begin * plan.tap_stride, plan.tap_stride,
                plan.taps_size(), end - begin, clipped(plan.tile_width, first_column, problem.width), sums);
          }
          __syncthreads();
        }
      }
    }

    if (thread.active) {
      for (int part = 0; part < kParts; ++part) {
        T* target = partial +
                    (((thread.slice * place.channels + thread.channel) * kParts + part) * plan.output_height +
                     thread.row_group) *
                        partial_width +
                    thread.strip * kStripParts;
        for (int s = 0; s < kStripParts; ++s) target[s] = sums[0][part][s];
      }
    }
    __syncthreads();
    const int rows = clipped(plan.output_height, first_u, problem.kernel_height);
    const int slice_step = place.channels * kParts * plan.output_height * partial_width;
    const ThreadRows threads(plan.output_width);
    for (int m = 0; m < place.channels * kParts; ++m) {
      const std::int64_t channel = place.channel + m / kParts, part = first_part + m % kParts;
      const std::int64_t filter =
          ((place.row * problem.parts + part) * problem.channels + channel) * filter_size;
      for (int row = threads.row; row < rows; row += threads.row_step) {
        for (int column = threads.column; column < plan.output_width; column += threads.column_step) {
          const T* first = partial + (m * plan.output_height + row) * partial_width + column;
          T total = first[0];
          for (int slice = 1; slice < plan.slices; ++slice) total += first[slice * slice_step];
          store_as<T>(call.grad_parts, filter + (first_u + row) * problem.kernel_width + column, problem.type,
                      total);
        }
      }
    }
    __syncthreads();
  }
}

dim3 grid_of(const Plan& plan) {
  // A block takes several places in turn when there are more than a grid may have blocks.
  return dim3(static_cast<unsigned>(std::min<std::int64_t>(plan.blocks, 0x7fffffff)));
}

template <typename T, int kWidth, int kParts, int kRows>
cudaError_t launch_forward(const Forward& call, std::int64_t first_part, cudaStream_t stream) {
  const Plan plan = plan_map(call.problem, call.problem.pairs, kParts, kRows, sizeof(T));
  return launch(forward_kernel<T, kWidth, kParts, kRows>, grid_of(plan), dim3(plan.threads),
                plan.shared_elements * sizeof(T), stream, call, plan, first_part);
}

template <typename T, int kWidth>
cudaError_t launch_forward_parts(const Forward& call, cudaStream_t stream) {
  // Three filters side by side pay while they are small; large ones would crowd shared memory.
  const bool small = call.problem.kernel_height * call.problem.kernel_width <= 256;
  const std::int64_t parts = call.problem.parts, together = small ? kPartsTogether : 1;
  for (std::int64_t part = 0; part < parts; part += together) {
    const std::int64_t count = std::min(together, parts - part);
    const cudaError_t error = count == 3   ? launch_forward<T, kWidth, 3, 1>(call, part, stream)
                              : count == 2 ? launch_forward<T, kWidth, 2, 1>(call, part, stream)
                                           : launch_forward<T, kWidth, 1, 2>(call, part, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <typename T, int kWidth>
cudaError_t launch_grad_signal(const GradSignal& call, cudaStream_t stream) {
  constexpr int kRows = 2;
  const Plan plan = plan_map(call.problem, call.problem.signal_rows, 1, kRows, sizeof(T));
  return launch(grad_signal_kernel<T, kWidth, kRows>, grid_of(plan), dim3(plan.threads),
                plan.shared_elements * sizeof(T), stream, call, plan);
}

template <typename T, int kParts>
cudaError_t launch_grad_parts(const GradParts& call, std::int64_t first_part, cudaStream_t stream) {
  const Plan plan = plan_parts(call.problem, call.problem.part_rows, kParts, sizeof(T));
  return launch(grad_parts_kernel<T, kParts>, grid_of(plan), dim3(plan.threads),
                plan.shared_elements * sizeof(T), stream, call, plan, first_part);
}

template <typename T>
cudaError_t launch_grad_parts_all(const GradParts& call, cudaStream_t stream) {
  const std::int64_t parts = call.problem.parts;
  for (std::int64_t part = 0; part < parts; part += kPartsTogether) {
    const std::int64_t count = std::min<std::int64_t>(kPartsTogether, parts - part);
    const cudaError_t error = count == 3   ? launch_grad_parts<T, 3>(call, part, stream)
                              : count == 2 ? launch_grad_parts<T, 2>(call, part, stream)
                                           : launch_grad_parts<T, 1>(call, part, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

// The paper's filter widths, 10 (level 2) and 5 (level 3), are unrolled; others run through the loop.
cudaError_t cuda_launch(const Forward& call, cudaStream_t stream) {
  if (call.problem.type == DataType::kFloat64) return launch_forward_parts<double, 0>(call, stream);
  if (call.problem.kernel_width == 10) return launch_forward_parts<float, 10>(call, stream);
  if (call.problem.kernel_width == 5) return launch_forward_parts<float, 5>(call, stream);
  return launch_forward_parts<float, 0>(call, stream);
}

cudaError_t cuda_launch(const GradSignal& call, cudaStream_t stream) {
  if (call.problem.type == DataType::kFloat64) return launch_grad_signal<double, 0>(call, stream);
  if (call.problem.kernel_width == 10) return launch_grad_signal<float, 10>(call, stream);
  if (call.problem.kernel_width == 5) return launch_grad_signal<float, 5>(call, stream);
  return launch_grad_signal<float, 0>(call, stream);
}

cudaError_t cuda_launch(const GradParts& call, cudaStream_t stream) {
  if (call.problem.type == DataType::kFloat64) return launch_grad_parts_all<double>(call, stream);
  return launch_grad_parts_all<float>(call, stream);
}

}  // namespace reid_ops::part_correlation
