// part_correlation on the CPU: the innermost loops.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.
//
// All operands lie in scratch memory, lane-major and column by column: the vectors of neighbouring
// rows are neighbours in memory. A tile is a run of rows of one column, times a few parts, held in
// registers. Down a column, the taps that fall outside the map are known per column, so they are
// skipped exactly; across rows they meet zero rows that surround the map in scratch.

// How many rows of a tile fit the registers beside the parts' filters and one signal vector.
constexpr int tile_rows(int parts) {
  const int rows = (REID_OPS_VECTOR_REGISTERS - parts - 1) / parts;
  const int cap = parts == 1 ? 12 : 8;
  return rows > cap ? cap : rows;
}
constexpr int kMaxTileParts = 4;
constexpr int kMaxTileRows = 12;

// One row's vectors come again in the next tap's rows. Keeping them across iterations, as GCC's
// predictive commoning does, costs a register for each and spills sums; loading again costs nothing
// here. So loads must not be carried over.
#define REID_OPS_FORGET_LOADS() asm volatile("" ::: "memory")

// What a tile needs to know. Steps are in vectors; taps are half-open ranges.
struct Tile {
  std::int64_t v_begin, v_end;      // filter columns that meet the map
  std::int64_t u_begin, u_end;      // filter rows that meet the map
  std::int64_t kernel_height;       // filter vectors per filter column (times the parts)
  std::int64_t signal_column_step;  // vectors from one column to the next
  std::int64_t output_part_step;    // vectors from one part's map to the next
  std::int64_t rows;                // grad_parts: map rows to sum over
  std::int64_t j_begin, j_end;      // grad_parts: map columns to sum over
};

// output[p][t] = sum_{v,u} signal[column v][row t+u] * filter[v][u][p]
//   signal:  at (column of tap v = 0, first row of the tile)
//   filter:  [kw][kh][kParts]
template <typename T, int kRows, int kParts>
void correlate_tile(const Tile& tile, const T* signal, const T* filter, T* output) {
  constexpr int lanes = kLanes<T>;
  Vector<T> sum[kRows][kParts];
#pragma GCC unroll 12
  for (int t = 0; t < kRows; ++t) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) sum[t][p] = Vector<T>{};
  }
  for (std::int64_t v = tile.v_begin; v < tile.v_end; ++v) {
    const T* signal_column = signal + v * tile.signal_column_step * lanes;
    const T* filter_column = filter + v * tile.kernel_height * kParts * lanes;
    for (std::int64_t u = tile.u_begin; u < tile.u_end; ++u) {
      // With one part there are registers to spare, and a load saved is worth more than they are.
      if constexpr (kParts > 1) REID_OPS_FORGET_LOADS();
      Vector<T> tap[kParts];
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) tap[p] = load_aligned(filter_column + (u * kParts + p) * lanes);
#pragma GCC unroll 12
      for (int t = 0; t < kRows; ++t) {
        const Vector<T> value = load_aligned(signal_column + (u + t) * lanes);
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p) sum[t][p] += value * tap[p];
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kParts; ++p) {
#pragma GCC unroll 12
    for (int t = 0; t < kRows; ++t)
      store_aligned(output + (p * tile.output_part_step + t) * lanes, sum[t][p]);
  }
}

// grad_signal[t] += sum_{v,u} grad[column -v][row t-u] * filter[v][u]      (one part)
//   grad: at (column of tap v = 0, row of tap u = 0)
template <typename T, int kRows>
void grad_signal_tile(const Tile& tile, const T* grad, const T* filter, T* grad_signal) {
  constexpr int lanes = kLanes<T>;
  Vector<T> sum[kRows];
#pragma GCC unroll 12
  for (int t = 0; t < kRows; ++t) sum[t] = load_aligned(grad_signal + t * lanes);
  for (std::int64_t v = tile.v_begin; v < tile.v_end; ++v) {
    const T* grad_column = grad - v * tile.signal_column_step * lanes;
    const T* filter_column = filter + v * tile.kernel_height * lanes;
    for (std::int64_t u = tile.u_begin; u < tile.u_end; ++u) {
      const Vector<T> tap = load_aligned(filter_column + u * lanes);
#pragma GCC unroll 12
      for (int t = 0; t < kRows; ++t) sum[t] += load_aligned(grad_column + (t - u) * lanes) * tap;
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < kRows; ++t) store_aligned(grad_signal + t * lanes, sum[t]);
}

// grad_filter[u][p] += sum_{j,i} grad[p][column j][row i] * signal[column j][row i+u]
//   grad:   [kParts][columns][rows], signal: at (the column that meets j = 0, row of the tile's first u)
template <typename T, int kTaps, int kParts>
void grad_parts_tile(const Tile& tile, const T* grad, std::int64_t grad_column_step, const T* signal,
                     T* grad_filter) {
  constexpr int lanes = kLanes<T>;
  Vector<T> sum[kTaps][kParts];
#pragma GCC unroll 12
  for (int u = 0; u < kTaps; ++u) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) sum[u][p] = load_aligned(grad_filter + (u * kParts + p) * lanes);
  }
  for (std::int64_t j = tile.j_begin; j < tile.j_end; ++j) {
    const T* grad_column = grad + j * grad_column_step * lanes;
    const T* signal_column = signal + j * tile.signal_column_step * lanes;
    for (std::int64_t i = 0; i < tile.rows; ++i) {
      Vector<T> upstream[kParts];
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        upstream[p] = load_aligned(grad_column + (p * tile.output_part_step + i) * lanes);
      }
#pragma GCC unroll 12
      for (int u = 0; u < kTaps; ++u) {
        const Vector<T> value = load_aligned(signal_column + (i + u) * lanes);
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p) sum[u][p] += value * upstream[p];
      }
    }
  }
#pragma GCC unroll 12
  for (int u = 0; u < kTaps; ++u) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) store_aligned(grad_filter + (u * kParts + p) * lanes, sum[u][p]);
  }
}

// Calls body(std::integral_constant<int, value>) for the run-time `value` in 1 .. kMax.
template <int kMax, typename Body>
REID_OPS_INLINE void with_constant(std::int64_t value, const Body& body) {
  if constexpr (kMax >= 1) {
    if (value == kMax) return body(std::integral_constant<int, kMax>());
    if constexpr (kMax > 1) with_constant<kMax - 1>(value, body);
  }
}

// Cuts `count` rows into tiles of nearly equal size, none above `most`.
template <typename Body>
REID_OPS_INLINE void for_each_tile(std::int64_t count, std::int64_t most, const Body& body) {
  const std::int64_t tiles = (count + most - 1) / most;
  for (std::int64_t k = 0; k < tiles; ++k) {
    const std::int64_t begin = count * k / tiles, end = count * (k + 1) / tiles;
    body(begin, end - begin);
  }
}
