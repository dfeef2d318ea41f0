// part_correlation on the CPU: the forward pass, one work item at a time.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

// ceil-mode max of every pool x pool window of maps [width][rows] -> [pooled_width][pooled_rows],
// and where it was. The first of equal values wins; NaN wins over everything, as in max_pool2d.
template <typename T, typename Index>
void max_pool(std::int64_t rows, std::int64_t width, std::int64_t pool, const T* maps, T* pooled,
              Index* argmax) {
  constexpr int lanes = kLanes<T>;
  const std::int64_t pooled_rows = (rows + pool - 1) / pool, pooled_width = (width + pool - 1) / pool;
  for (std::int64_t column = 0; column < pooled_width; ++column) {
    for (std::int64_t row = 0; row < pooled_rows; ++row) {
      const std::int64_t i_end = std::min(pool, rows - row * pool),
                         j_end = std::min(pool, width - column * pool);
      const T* window = maps + (column * pool * rows + row * pool) * lanes;
      Vector<T> best = load_aligned(window);
      Vector<Index> where = {};
      for (std::int64_t i = 0; i < i_end; ++i) {
        for (std::int64_t j = 0; j < j_end; ++j) {
          const Vector<T> value = load_aligned(window + (j * rows + i) * lanes);
          const auto better = (value > best) | (value != value);
          best = better ? value : best;
          where = better ? Vector<Index>{} + static_cast<Index>(i * pool + j) : where;
        }
      }
      store_aligned(pooled + (column * pooled_rows + row) * lanes, best);
      if (argmax != nullptr) store_aligned(argmax + (column * pooled_rows + row) * lanes, where);
    }
  }
}

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
