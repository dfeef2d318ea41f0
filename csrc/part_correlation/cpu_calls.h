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

template <typename T>
Cut cut_grad_signal(const GradSignal& call, std::int64_t threads) {
  const Problem& problem = call.problem;
  const std::int64_t groups =
      Group::count(problem.signal_rows, problem.channels, call.order != nullptr, kLanes<T>);
  const std::int64_t bytes = problem.width * 2 * REID_OPS_VECTOR_BYTES;
  return {groups, Bands::of(problem.height, bytes, groups, threads, 1)};
}

template <typename S, typename T>
void run_grad_signal(const GradSignal& call, std::int64_t items, std::int64_t begin, std::int64_t end) {
  constexpr int lanes = kLanes<T>;
  const Problem& problem = call.problem;
  const Worker<S, T> worker{problem};
  const bool row_groups = call.order != nullptr;
  const std::int64_t groups = Group::count(problem.signal_rows, problem.channels, row_groups, lanes);
  const Bands bands = Bands::with_count(problem.height, items / groups, 1);
  const std::int64_t width = problem.width, kernel_height = problem.kernel_height;
  const std::int64_t taps = kernel_height * problem.kernel_width;
  const std::int64_t most_grad_rows = bands.rows + kernel_height - 1;

  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(
      CpuScratch::bytes_of<T>(most_grad_rows * width * lanes) + CpuScratch::bytes_of<T>(taps * lanes) +
      CpuScratch::bytes_of<T>(bands.rows * width * lanes) + worker.gradient_scratch_bytes(most_grad_rows));
  T* const grad = scratch.take<T>(most_grad_rows * width * lanes);
  T* const filter = scratch.take<T>(taps * lanes);
  T* const sum = scratch.take<T>(bands.rows * width * lanes);
  T* const pooled = problem.pool > 1 ? scratch.take<T>(0) : nullptr;

  for (std::int64_t item = begin; item < end; ++item) {
    const Group group =
        Group::at(item / bands.count, problem.signal_rows, problem.channels, row_groups, lanes);
    if (is_pointwise(problem)) {
      if (item % bands.count == 0) {
        run_grad_signal_pointwise(call, worker, group, [&](std::int64_t row, const auto& body) {
          for_each_pair(problem, call.order, 0, row, body);
        });
      }
      continue;
    }
    const std::int64_t first = item % bands.count * bands.rows;
    const std::int64_t rows = std::min(bands.rows, problem.height - first);
    if (rows <= 0) continue;
    // Signal row y receives tap u from output row y - u + top.
    const std::int64_t grad_rows = rows + kernel_height - 1;
    const std::int64_t grad_first = first + worker.top - (kernel_height - 1);
    std::memset(sum, 0, rows * width * lanes * sizeof(T));
    const PairRun run =
        row_groups ? pairs_of_row(problem, call.order, 0, group.first / problem.channels) : PairRun{0, 1};
    for (std::int64_t k = run.begin; k < run.end; ++k) {
      const auto pair_of = [&](std::int64_t row) { return row_groups ? call.order[k] : row; };
      const auto part_row = [&](std::int64_t row) { return problem.part_row(pair_of(row)); };
      for (std::int64_t part = 0; part < problem.parts; ++part) {
        worker.pack_gradient(static_cast<const S*>(call.grad_output), call.argmax, group, part, pair_of,
                             grad_first, grad_rows, grad, pooled);
        worker.pack_filter(worker.parts_planes(static_cast<const S*>(call.parts), group, part, part_row), 1,
                           filter);
        for_each_tile(rows, kMaxTileRows, [&](std::int64_t tile_first, std::int64_t tile_count) {
          const std::int64_t row = first + tile_first;
          Tile tile = {};
          tile.u_begin = std::max<std::int64_t>(0, row + worker.top - (problem.height - 1));
          tile.u_end = std::min(kernel_height, row + tile_count + worker.top);
          tile.kernel_height = kernel_height;
          tile.signal_column_step = grad_rows;
          with_constant<kMaxTileRows>(tile_count, [&](auto rows_constant) {
            constexpr int kRows = decltype(rows_constant)::value;
            for (std::int64_t j = 0; j < width; ++j) {
              tile.v_begin = std::max<std::int64_t>(0, j + worker.left - (width - 1));
              tile.v_end = std::min(problem.kernel_width, j + worker.left + 1);
              const std::int64_t origin = (j + worker.left) * grad_rows + row + worker.top - grad_first;
              grad_signal_tile<T, kRows>(tile, grad + origin * lanes, filter,
                                         sum + (j * rows + tile_first) * lanes);
            }
          });
        });
      }
    }
    Planes<S, T> output = {};
    output.used = group.used;
    for (int lane = 0; lane < group.used; ++lane) {
      output.plane[lane] = static_cast<S*>(call.grad_signal) + (group.first + lane) * problem.height * width;
    }
    unpack(output, {first, rows, width, rows, 1}, sum);
  }
}

template <typename S, typename T>
void run_grad_parts(const GradParts& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  constexpr int lanes = kLanes<T>;
  const Problem& problem = call.problem;
  const Worker<S, T> worker{problem};
  const bool row_groups = call.order != nullptr;
  const std::int64_t width = problem.width, kernel_height = problem.kernel_height;
  const std::int64_t together = parts_together(problem.parts), taps = kernel_height * problem.kernel_width;
  const std::int64_t bytes = width * (1 + together) * REID_OPS_VECTOR_BYTES;
  const Bands bands = Bands::of(problem.height, bytes, 1, 1, 1);  // one after the other, into one sum
  const std::int64_t signal_rows = bands.rows + kernel_height - 1;

  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(signal_rows * width * lanes) +
                  CpuScratch::bytes_of<T>(taps * together * lanes) +
                  CpuScratch::bytes_of<T>(bands.rows * width * together * lanes) +
                  worker.gradient_scratch_bytes(bands.rows));
  T* const signal = scratch.take<T>(signal_rows * width * lanes);
  T* const sum = scratch.take<T>(taps * together * lanes);
  T* const grad = scratch.take<T>(bands.rows * width * together * lanes);
  T* const pooled = problem.pool > 1 ? scratch.take<T>(0) : nullptr;

  for (std::int64_t item = begin; item < end; ++item) {
    const Group group = Group::at(item, problem.part_rows, problem.channels, row_groups, lanes);
    if (is_pointwise(problem) && has_dense_planes(problem)) {
      run_grad_parts_pointwise(call, worker, group, [&](std::int64_t row, const auto& body) {
        for_each_pair(problem, call.order, 1, row, body);
      });
      continue;
    }
    const PairRun run =
        row_groups ? pairs_of_row(problem, call.order, 1, group.first / problem.channels) : PairRun{0, 1};
    for (std::int64_t part = 0; part < problem.parts; part += together) {
      const std::int64_t count = std::min(together, problem.parts - part);
      std::memset(sum, 0, taps * count * lanes * sizeof(T));
      for (std::int64_t k = run.begin; k < run.end; ++k) {
        const auto pair_of = [&](std::int64_t row) { return row_groups ? call.order[k] : row; };
        const auto signal_row = [&](std::int64_t row) { return problem.signal_row(pair_of(row)); };
        for (std::int64_t first = 0; first < problem.height; first += bands.rows) {
          const std::int64_t rows = std::min(bands.rows, problem.height - first);
          const std::int64_t column_step = rows + kernel_height - 1;
          worker.pack_rows(worker.signal_planes(static_cast<const S*>(call.signal), group, signal_row),
                           first - worker.top, column_step, signal);
          for (std::int64_t p = 0; p < count; ++p) {
            worker.pack_gradient(static_cast<const S*>(call.grad_output), call.argmax, group, part + p,
                                 pair_of, first, rows, grad + p * rows * width * lanes, pooled);
          }
          with_constant<kMaxTileParts>(count, [&](auto parts_constant) {
            constexpr int kParts = decltype(parts_constant)::value;
            constexpr int kMostTaps = tile_rows(kParts);
            Tile tile = {};
            tile.rows = rows;
            tile.signal_column_step = column_step;
            tile.output_part_step = rows * width;
            for_each_tile(kernel_height, kMostTaps, [&](std::int64_t u_first, std::int64_t u_count) {
              with_constant<kMostTaps>(u_count, [&](auto taps_constant) {
                constexpr int kTaps = decltype(taps_constant)::value;
                for (std::int64_t v = 0; v < problem.kernel_width; ++v) {
                  tile.j_begin = std::max<std::int64_t>(0, worker.left - v);
                  tile.j_end = std::min(width, width + worker.left - v);
                  grad_parts_tile<T, kTaps, kParts>(
                      tile, grad, rows, signal + ((v - worker.left) * column_step + u_first) * lanes,
                      sum + (v * kernel_height + u_first) * count * lanes);
                }
              });
            });
          });
        }
      }
      for (std::int64_t p = 0; p < count; ++p) {
        Planes<S, T> output = {};
        output.used = group.used;
        worker.for_each_plane(group, [&](int lane, std::int64_t row, std::int64_t channel) {
          output.plane[lane] = static_cast<S*>(call.grad_parts) +
                               ((row * problem.parts + part + p) * problem.channels + channel) * taps;
        });
        unpack(output, {0, kernel_height, problem.kernel_width, kernel_height * count, count},
               sum + p * lanes);
      }
    }
  }
}

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
inline std::int64_t items_of(const GradParts& call, std::int64_t) {
  const int lanes = call.problem.type == DataType::kFloat64 ? kLanes<double> : kLanes<float>;
  return Group::count(call.problem.part_rows, call.problem.channels, call.order != nullptr, lanes);
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
#undef REID_OPS_RUN_BY_TYPE
