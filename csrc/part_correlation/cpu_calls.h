// part_correlation on the CPU: the three calls, one work item at a time.
// Part of cpu_kernels.h, compiled once per instruction set.

#include "part_correlation/cpu_pointwise.h"

// Which pairs does row `row` take part in? Without an index only pair `row`; with one, a run of
// `order`, found by bisection (`column` 0: signal rows, 1: part rows).
struct PairRun {
  std::int64_t begin, end;
};

inline PairRun pairs_of_row(const Problem& problem, const std::int64_t* order, int column, std::int64_t row) {
  const auto row_of = [&](std::int64_t pair) { return problem.pair_index[2 * pair + column]; };
  const std::int64_t* begin = std::lower_bound(
      order, order + problem.pairs, row, [&](std::int64_t pair, std::int64_t r) { return row_of(pair) < r; });
  const std::int64_t* end = std::upper_bound(
      begin, order + problem.pairs, row, [&](std::int64_t r, std::int64_t pair) { return r < row_of(pair); });
  return {begin - order, end - order};
}

// body(pair) for every pair of `row`, in a fixed order.
template <typename Body>
void for_each_pair(const Problem& problem, const std::int64_t* order, int column, std::int64_t row,
                   const Body& body) {
  if (order == nullptr) return body(row);
  const PairRun run = pairs_of_row(problem, order, column, row);
  for (std::int64_t k = run.begin; k < run.end; ++k) body(order[k]);
}

struct Cut {
  std::int64_t groups;
  Bands bands;
};

// Bands of the forward: scratch per row is the signal's and the widest run of parts' maps.
template <typename T>
Cut cut_forward(const Forward& call, std::int64_t threads) {
  const Problem& problem = call.problem;
  const std::int64_t groups = Group::count(problem.pairs, problem.channels, false, kLanes<T>);
  const std::int64_t bytes = problem.width * (1 + parts_together(problem.parts)) * REID_OPS_VECTOR_BYTES;
  return {groups, Bands::of(problem.height, bytes, groups, threads, problem.pool)};
}

template <typename S, typename T>
void run_forward(const Forward& call, std::int64_t items, std::int64_t begin, std::int64_t end) {
  constexpr int lanes = kLanes<T>;
  using Index = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  const Problem& problem = call.problem;
  const Worker<S, T> worker{problem};
  const std::int64_t groups = Group::count(problem.pairs, problem.channels, false, lanes);
  const Bands bands = Bands::with_count(problem.height, items / groups, problem.pool);
  const std::int64_t width = problem.width, kernel_height = problem.kernel_height;
  const std::int64_t together = parts_together(problem.parts), taps = kernel_height * problem.kernel_width;
  const std::int64_t signal_rows = bands.rows + kernel_height - 1;
  const std::int64_t pooled_rows = (bands.rows + problem.pool - 1) / problem.pool;
  const std::int64_t pooled_size = pooled_rows * worker.pooled_width;

  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(signal_rows * width * lanes) +
                  CpuScratch::bytes_of<T>(taps * together * lanes) +
                  CpuScratch::bytes_of<T>(bands.rows * width * together * lanes) +
                  2 * CpuScratch::bytes_of<T>(pooled_size * lanes));
  T* const signal = scratch.take<T>(signal_rows * width * lanes);
  T* const filter = scratch.take<T>(taps * together * lanes);
  T* const maps = scratch.take<T>(bands.rows * width * together * lanes);
  T* const pooled = scratch.take<T>(pooled_size * lanes);
  Index* const argmax = scratch.take<Index>(pooled_size * lanes);

  const auto signal_row = [&](std::int64_t pair) { return problem.signal_row(pair); };
  const auto part_row = [&](std::int64_t pair) { return problem.part_row(pair); };
  const auto same_pair = [](std::int64_t pair) { return pair; };
  const bool pointwise = is_pointwise(problem) && has_dense_planes(problem);

  for (std::int64_t item = begin; item < end; ++item) {
    const Group group = Group::at(item / bands.count, problem.pairs, problem.channels, false, lanes);
    if (pointwise) {
      if (item % bands.count == 0) run_forward_pointwise(call, worker, group);
      continue;
    }
    const std::int64_t first = item % bands.count * bands.rows;
    const std::int64_t rows = std::min(bands.rows, problem.height - first);
    if (rows <= 0) continue;
    const std::int64_t column_step = rows + kernel_height - 1;
    worker.pack_rows(worker.signal_planes(static_cast<const S*>(call.signal), group, signal_row),
                     first - worker.top, column_step, signal);

    for (std::int64_t part = 0; part < problem.parts; part += together) {
      const std::int64_t count = std::min(together, problem.parts - part);
      for (std::int64_t p = 0; p < count; ++p) {
        worker.pack_filter(worker.parts_planes(static_cast<const S*>(call.parts), group, part + p, part_row),
                           count, filter + p * lanes);
      }
      with_constant<kMaxTileParts>(count, [&](auto parts_constant) {
        constexpr int kParts = decltype(parts_constant)::value;
        constexpr int kMostRows = tile_rows(kParts);
        for_each_tile(rows, kMostRows, [&](std::int64_t tile_first, std::int64_t tile_count) {
          const std::int64_t row = first + tile_first;  // map row of the tile's first row
          Tile tile = {};
          tile.u_begin = std::max<std::int64_t>(0, worker.top - (row + tile_count - 1));
          tile.u_end = std::min(kernel_height, problem.height + worker.top - row);
          tile.kernel_height = kernel_height;
          tile.signal_column_step = column_step;
          tile.output_part_step = rows * width;
          with_constant<kMostRows>(tile_count, [&](auto rows_constant) {
            constexpr int kRows = decltype(rows_constant)::value;
            for (std::int64_t j = 0; j < width; ++j) {
              tile.v_begin = std::max<std::int64_t>(0, worker.left - j);
              tile.v_end = std::min(problem.kernel_width, width + worker.left - j);
              correlate_tile<T, kRows, kParts>(
                  tile, signal + ((j - worker.left) * column_step + tile_first) * lanes, filter,
                  maps + (j * rows + tile_first) * lanes);
            }
          });
        });
      });
      for (std::int64_t p = 0; p < count; ++p) {
        const T* map = maps + p * rows * width * lanes;
        const auto output = worker.map_planes(static_cast<S*>(call.output), group, part + p, same_pair);
        if (problem.pool == 1) {
          unpack(output, {first, rows, width, rows, 1}, map);
          continue;
        }
        const std::int64_t out_rows = (rows + problem.pool - 1) / problem.pool;
        const Rectangle area = {first / problem.pool, out_rows, worker.pooled_width, out_rows, 1};
        max_pool(rows, width, problem.pool, map, pooled, call.argmax == nullptr ? nullptr : argmax);
        unpack(output, area, pooled);
        if (call.argmax != nullptr)
          unpack(worker.map_planes(call.argmax, group, part + p, same_pair), area, argmax);
      }
    }
  }
}

#include "part_correlation/cpu_gradients.h"

// From the run-time type to the templates: float16 and bfloat16 compute in float.
inline std::int64_t items_of(const Forward& call, std::int64_t threads) {
  const bool wide = call.problem.type == DataType::kFloat64;
  const Cut cut = wide ? cut_forward<double>(call, threads) : cut_forward<float>(call, threads);
  return cut.groups * cut.bands.count;
}
inline std::int64_t items_of(const GradSignal& call, std::int64_t threads) {
  const bool wide = call.problem.type == DataType::kFloat64;
  const Cut cut = wide ? cut_grad_signal<double>(call, threads) : cut_grad_signal<float>(call, threads);
  return cut.groups * cut.bands.count;
}
inline int lanes_of(const Problem& problem) {
  return problem.type == DataType::kFloat64 ? kLanes<double> : kLanes<float>;
}
inline std::int64_t items_of(const GradParts& call, std::int64_t) {
  const Problem& problem = call.problem;
  return Group::count(problem.part_rows, problem.channels, call.order != nullptr, lanes_of(problem));
}
inline std::int64_t items_of(const Backward& call, std::int64_t) {
  const Problem& problem = call.problem;
  return Group::count(problem.pairs, problem.channels, false, lanes_of(problem));
}

#define REID_OPS_RUN_BY_TYPE(Call, function)                                                    \
  inline void run(const Call& call, std::int64_t items, std::int64_t begin, std::int64_t end) { \
    switch (call.problem.type) {                                                                \
      case DataType::kFloat32:                                                                  \
        return function<float, float>(call, items, begin, end);                                 \
      case DataType::kFloat64:                                                                  \
        return function<double, double>(call, items, begin, end);                               \
      case DataType::kFloat16:                                                                  \
        return function<Float16, float>(call, items, begin, end);                               \
      case DataType::kBFloat16:                                                                 \
        return function<BFloat16, float>(call, items, begin, end);                              \
    }                                                                                           \
  }
REID_OPS_RUN_BY_TYPE(Forward, run_forward)
REID_OPS_RUN_BY_TYPE(GradSignal, run_grad_signal)
REID_OPS_RUN_BY_TYPE(GradParts, run_grad_parts)
REID_OPS_RUN_BY_TYPE(Backward, run_backward)
#undef REID_OPS_RUN_BY_TYPE
