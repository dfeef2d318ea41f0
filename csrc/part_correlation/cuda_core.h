// part_correlation on CUDA: what the three kernels share on the device.
#pragma once

#include "common/cuda_load.h"
#include "part_correlation/cuda_plan.h"

namespace reid_ops::part_correlation {

// sums[row][part][s] += sum_{u,v} signal[row + u][s + v] * taps[part][u][v]
//   signal: shared, at the thread's first row and strip, 16-byte aligned rows of `signal_stride`
//   taps:   shared, [kParts] of `part_step`, rows of `tap_stride`; the same for the whole warp, or
//           nearly, so that loading them is a broadcast
// kWidth: the number of tap columns when known at compile time (then everything unrolls), else 0.
template <typename T, int kWidth, int kParts, int kRows, int kStrip>
__device__ __forceinline__ void correlate(const T* signal, int signal_stride, const T* taps, int tap_stride,
                                          int part_step, int tap_rows, int tap_columns,
                                          T (&sums)[kRows][kParts][kStrip]) {
  const int columns = kWidth > 0 ? kWidth : tap_columns;
  for (int r = 0; r < tap_rows + kRows - 1; ++r) {
    const T* signal_row = signal + r * signal_stride;
    T window[kStrip + 4];  // signal columns v0 .. v0 + kStrip + 3
#pragma unroll
    for (int s = 0; s < kStrip; s += 4) load_four(signal_row + s, window + s);
#pragma unroll
    for (int v0 = 0; v0 < columns; v0 += 4) {
      load_four(signal_row + v0 + kStrip, window + kStrip);
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        const int u = r - row;
        if (kRows > 1 && (u < 0 || u >= tap_rows)) continue;
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          T tap[4];
          load_four(taps + part * part_step + u * tap_stride + v0, tap);
#pragma unroll
          for (int dv = 0; dv < 4; ++dv) {
            // The padding beyond the last tap is skipped, not multiplied: 0 * infinity would be NaN.
            if (v0 + dv < columns) {
#pragma unroll
              for (int s = 0; s < kStrip; ++s) sums[row][part][s] += window[s + dv] * tap[dv];
            }
          }
        }
      }
#pragma unroll
      for (int s = 0; s < kStrip; ++s) window[s] = window[s + 4];
    }
  }
}

// A plane's rectangle into shared memory; what lies outside the plane is 0.
//   value(i, j) gives the plane's element; (first_row, first_column) may be negative.
template <typename T, typename Value>
__device__ __forceinline__ void fill_tile(T* tile, int rows, int stride, std::int64_t first_row,
                                          std::int64_t first_column, std::int64_t height, std::int64_t width,
                                          const Value& value) {
  const ThreadRows threads(stride);
  for (int row = threads.row; row < rows; row += threads.row_step) {
    const std::int64_t i = first_row + row;
    for (int column = threads.column; column < stride; column += threads.column_step) {
      const std::int64_t j = first_column + column;
      const bool inside = i >= 0 && i < height && j >= 0 && j < width;
      tile[row * stride + column] = inside ? value(i, j) : T(0);
    }
  }
}

// Upstream gradient at map position (i, j) of one [pooled_height, pooled_width] plane at `offset`:
// behind a pool, only the position that was the maximum has any.
template <typename T>
struct Upstream {
  const void* grad;
  const std::int16_t* argmax;
  DataType type;
  int pool;
  std::int64_t pooled_width, offset;

  __device__ __forceinline__ T operator()(std::int64_t i, std::int64_t j) const {
    if (pool == 1) return load_as<T>(grad, offset + i * pooled_width + j, type);
    const std::int64_t row = i / pool, column = j / pool;
    const std::int64_t at = offset + row * pooled_width + column;
    const std::int64_t here = (i - row * pool) * pool + j - column * pool;
    return argmax[at] == here ? load_as<T>(grad, at, type) : T(0);
  }
};

// Where a block's index points: pair or row, first channel, tile.
struct BlockPlace {
  std::int64_t row, channel, tile_down, tile_across;
  int channels;  // of this block; the last block of a row may have fewer

  __device__ __forceinline__ BlockPlace(std::int64_t index, const Plan& plan, const Problem& problem) {
    tile_across = index % plan.tiles_across, index /= plan.tiles_across;
    tile_down = index % plan.tiles_down, index /= plan.tiles_down;
    channel = index % plan.channel_blocks * plan.channels;
    row = index / plan.channel_blocks;
    const std::int64_t left = problem.channels - channel;
    channels = left < plan.channels ? static_cast<int>(left) : plan.channels;
  }
};

// Which thread of its channel a thread is, and what it computes.
struct ThreadPlace {
  int channel, strip, row_group, slice;
  bool active;

  __device__ __forceinline__ ThreadPlace(const Plan& plan, int channels) {
    int unit = threadIdx.x;
    row_group = unit % plan.row_groups, unit /= plan.row_groups;  // neighbours in neighbouring rows
    strip = unit % plan.strips, unit /= plan.strips;
    slice = unit % plan.slices;
    channel = unit / plan.slices;
    active = channel < channels;
  }
};

// The run of `order` whose pairs have `row` in `column` (0: signal, 1: parts), by bisection.
struct PairRun {
  std::int64_t begin, end;
};

__device__ inline std::int64_t first_pair_not_below(const Problem& problem, const std::int64_t* order,
                                                    int column, std::int64_t row) {
  std::int64_t low = 0, high = problem.pairs;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    const std::int64_t pair = order[middle];
    const bool there = pair >= 0 && pair < problem.pairs;  // a stray entry is skipped, not followed
    if (!there || problem.pair_index[2 * pair + column] < row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

__device__ inline PairRun pairs_of_row(const Problem& problem, const std::int64_t* order, int column,
                                       std::int64_t row) {
  if (order == nullptr) return {row, row + 1};
  return {first_pair_not_below(problem, order, column, row),
          first_pair_not_below(problem, order, column, row + 1)};
}

struct PairRows {
  std::int64_t signal, parts;
  bool valid;  // both rows are there; the host could not look
};

__device__ inline PairRows rows_of_pair(const Problem& problem, std::int64_t pair) {
  if (problem.pair_index == nullptr) return {pair, pair, true};
  if (pair < 0 || pair >= problem.pairs) return {0, 0, false};
  const std::int64_t signal = problem.pair_index[2 * pair], parts = problem.pair_index[2 * pair + 1];
  const bool valid = signal >= 0 && signal < problem.signal_rows && parts >= 0 && parts < problem.part_rows;
  return {signal, parts, valid};
}

}  // namespace reid_ops::part_correlation
