// part_correlation on CUDA: how a call is cut into blocks and what a block keeps in shared memory.
// Decided on the host, per call, from the sizes alone.
//
// All three calls are the same correlation of a "signal" in shared memory with "taps" in shared
// memory, into sums in registers:
//
//   call          signal (with zero border)      taps                  sums
//   forward       x tile                         filters of 3 parts    map tile x parts
//   grad_signal   upstream g tile, one part      that part's filter,   map tile, over all parts
//                                                turned by 180 degrees
//   grad_parts    x tile                         upstream g of 3 parts filter tile x parts
//
// A thread holds a strip of kStrip neighbouring sums in each of kRows rows, for kParts parts. One
// row of signal (kStrip + kw - 1 values, in 16-byte loads) then feeds kStrip * kw * kParts
// multiply-adds. At the paper's level 2 (10x10 filters, three parts): 5 loads of signal and 9 of taps,
// which the whole warp shares, for 240 multiply-adds; 29 shared-memory cycles against 60 arithmetic
// cycles of an SM with 128 lanes, so the arithmetic is the limit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "part_correlation/kernels.h"

namespace reid_ops::part_correlation {

constexpr int kThreads = 256;      // at most, in a block
constexpr int kBlocksAtLeast = 2;  // per SM: 128 registers a thread, so that nothing spills
constexpr int kStripForward = 8;   // columns of a thread's strip: forward and grad_signal
constexpr int kStripParts = 4;     // grad_parts: filters are narrow, 10 columns fill 12 but not 16
constexpr int kPartsTogether = 3;  // the paper's number of parts
// Below this, four blocks fit the 164 KB of an A100 SM or the 228 KB of an H100/H200.
constexpr std::size_t kSharedTarget = 40 * 1024;
// What one block may take on sm_80, sm_90 and sm_100 (163 KB or more), with room to spare. The widest
// case, 64x64 filters, takes 63 KB.
constexpr std::size_t kSharedMost = 96 * 1024;

inline int round_up(std::int64_t value, std::int64_t multiple) {
  return static_cast<int>((value + multiple - 1) / multiple * multiple);
}

inline std::int64_t ceil_divide(std::int64_t value, std::int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

// The row stride of a shared tile that threads read in 16-byte pieces, neighbouring threads in
// neighbouring rows: an odd multiple of four words, so that eight rows fall into different banks.
inline int bank_stride(std::int64_t columns) {
  const int stride = round_up(columns, 4);
  return stride % 8 == 0 ? stride + 4 : stride;
}

// Everything in elements of the computing type, per block.
struct Plan {
  int channels;                     // channels of one block
  int tile_height, tile_width;      // map tile; tile_width a whole number of strips
  int output_height, output_width;  // grad_parts: filter tile
  int parts;                        // parts computed together
  int slices;                       // grad_parts: threads that share the sum over the tile's rows
  int strips, row_groups;           // threads of one channel: strips * row_groups (* slices)
  int signal_rows, signal_stride;   // shared signal of one channel
  int tap_rows, tap_stride;         // shared taps of one channel and part
  int threads;
  std::size_t shared_elements;
  std::int64_t channel_blocks, tiles_down, tiles_across, blocks;

  REID_OPS_HOST_DEVICE int units() const { return strips * row_groups * slices; }
  REID_OPS_HOST_DEVICE int signal_size() const { return signal_rows * signal_stride; }
  REID_OPS_HOST_DEVICE int taps_size() const { return tap_rows * tap_stride; }
};

inline void finish_plan(Plan& plan, const Problem& problem, std::int64_t rows, std::size_t element_bytes,
                        std::size_t elements_per_channel) {
  const std::int64_t fit_threads = std::max(1, kThreads / plan.units());
  const std::int64_t fit_shared =
      std::max<std::int64_t>(1, kSharedTarget / (elements_per_channel * element_bytes));
  const std::int64_t most = std::min({fit_threads, fit_shared, problem.channels});
  plan.channel_blocks = ceil_divide(problem.channels, most);
  plan.channels = static_cast<int>(ceil_divide(problem.channels, plan.channel_blocks));  // evenly
  plan.threads = round_up(plan.channels * plan.units(), 32);
  plan.shared_elements = elements_per_channel * plan.channels;
  plan.blocks = rows * plan.channel_blocks * plan.tiles_down * plan.tiles_across;
}

// Forward (parts together, one row a thread; two rows when only one part is computed) and
// grad_signal (one part at a time, two rows a thread).
inline Plan plan_map(const Problem& problem, std::int64_t rows, int parts, int rows_per_thread,
                     std::size_t element_bytes) {
  const int pool = static_cast<int>(problem.pool);
  Plan plan = {};
  plan.parts = parts;
  plan.slices = 1;
  int most_height = 64, most_width = 64;
  for (;;) {
    // Tiles hold whole pooling windows; their width is filled up to strips for the threads alone.
    plan.tile_height = std::min(round_up(problem.height, pool), std::max(pool, most_height / pool * pool));
    plan.tile_width = std::min(round_up(problem.width, pool), std::max(pool, most_width / pool * pool));
    plan.strips = static_cast<int>(ceil_divide(plan.tile_width, kStripForward));
    plan.row_groups = static_cast<int>(ceil_divide(plan.tile_height, rows_per_thread));
    plan.signal_rows = plan.row_groups * rows_per_thread + static_cast<int>(problem.kernel_height) - 1;
    plan.signal_stride = bank_stride(plan.strips * kStripForward + round_up(problem.kernel_width, 4));
    plan.tap_rows = static_cast<int>(problem.kernel_height);
    plan.tap_stride = round_up(problem.kernel_width, 4);
    const std::size_t staged = static_cast<std::size_t>(plan.tile_height) * plan.tile_width * parts;
    const std::size_t per_channel =
        static_cast<std::size_t>(plan.signal_size()) + round_up(staged, 4) + plan.taps_size() * parts;
    const bool fits = plan.units() <= kThreads && per_channel * element_bytes <= kSharedMost;
    if (fits || (plan.tile_height <= pool && plan.tile_width <= pool && plan.units() <= kThreads)) {
      plan.tiles_down = ceil_divide(problem.height, plan.tile_height);
      plan.tiles_across = ceil_divide(problem.width, plan.tile_width);
      finish_plan(plan, problem, rows, element_bytes, per_channel);
      return plan;
    }
    (most_height > most_width || most_width <= 8 ? most_height : most_width) /= 2;
    most_height = std::max(most_height, 1), most_width = std::max(most_width, 1);
  }
}

// grad_parts: a block owns a filter tile and walks over the whole map, tile by tile.
inline Plan plan_parts(const Problem& problem, std::int64_t rows, int parts, std::size_t element_bytes) {
  Plan plan = {};
  plan.parts = parts;
  plan.output_height = static_cast<int>(std::min<std::int64_t>(problem.kernel_height, 16));
  plan.output_width = static_cast<int>(problem.kernel_width);
  plan.strips = static_cast<int>(ceil_divide(plan.output_width, kStripParts));
  plan.row_groups = plan.output_height;
  plan.tiles_down = ceil_divide(problem.kernel_height, plan.output_height);
  plan.tiles_across = 1;
  int most = 64;
  for (;;) {
    plan.tile_height = static_cast<int>(std::min<std::int64_t>(problem.height, most));
    plan.tile_width = static_cast<int>(std::min<std::int64_t>(problem.width, most));
    // Eight rows or more for each slice, and no more slices than one channel's threads allow.
    plan.slices = std::max(1, std::min(plan.tile_height / 8, kThreads / (plan.strips * plan.row_groups)));
    plan.slices = std::min(plan.slices, 4);
    plan.signal_rows = plan.tile_height + plan.output_height - 1;
    plan.signal_stride = bank_stride(plan.strips * kStripParts + round_up(plan.tile_width, 4));
    plan.tap_rows = plan.tile_height;
    plan.tap_stride = round_up(plan.tile_width, 4);
    const std::size_t staged =
        static_cast<std::size_t>(plan.slices) * parts * plan.output_height * plan.strips * kStripParts;
    const std::size_t per_channel = std::max<std::size_t>(
        static_cast<std::size_t>(plan.signal_size()) + plan.taps_size() * parts, round_up(staged, 4));
    if (per_channel * element_bytes <= kSharedMost || most <= 8) {
      finish_plan(plan, problem, rows, element_bytes, per_channel);
      return plan;
    }
    most /= 2;
  }
}

}  // namespace reid_ops::part_correlation
