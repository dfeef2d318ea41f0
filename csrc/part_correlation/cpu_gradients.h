// part_correlation on the CPU: the two gradients, apart or in one go.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

// Adds one part's share to grad_signal, rows first .. first + rows - 1 of the map.
//   grad:   [width][grad_rows], from map row grad_first on     filter: [kw][kh]     sum: [width][rows]
template <typename S, typename T>
void sweep_grad_signal(const Worker<S, T>& worker, std::int64_t first, std::int64_t rows, const T* grad,
                       std::int64_t grad_first, std::int64_t grad_rows, const T* filter, T* sum) {
  constexpr int lanes = kLanes<T>;
  const Problem& problem = worker.problem;
  for_each_tile(rows, kMaxTileRows, [&](std::int64_t tile_first, std::int64_t tile_count) {
    const std::int64_t row = first + tile_first;
    Tile tile = {};
    tile.u_begin = std::max<std::int64_t>(0, row + worker.top - (problem.height - 1));
    tile.u_end = std::min(problem.kernel_height, row + tile_count + worker.top);
    tile.kernel_height = problem.kernel_height;
    tile.signal_column_step = grad_rows;
    with_constant<kMaxTileRows>(tile_count, [&](auto rows_constant) {
      constexpr int kRows = decltype(rows_constant)::value;
      for (std::int64_t j = 0; j < problem.width; ++j) {
        tile.v_begin = std::max<std::int64_t>(0, j + worker.left - (problem.width - 1));
        tile.v_end = std::min(problem.kernel_width, j + worker.left + 1);
        const std::int64_t origin = (j + worker.left) * grad_rows + row + worker.top - grad_first;
        grad_signal_tile<T, kRows>(tile, grad + origin * lanes, filter,
                                   sum + (j * rows + tile_first) * lanes);
      }
    });
  });
}

// Adds `rows` map rows' share to grad_parts of `count` parts.
//   grad:   [count][width], columns and parts so many vectors apart     sum: [kw][kh][count]
//   signal: [width][column_step], its row 0 meeting map row 0 of grad at tap u = 0
template <typename S, typename T>
void sweep_grad_parts(const Worker<S, T>& worker, std::int64_t count, std::int64_t rows, const T* grad,
                      std::int64_t grad_column_step, std::int64_t grad_part_step, const T* signal,
                      std::int64_t column_step, T* sum) {
  constexpr int lanes = kLanes<T>;
  const Problem& problem = worker.problem;
  with_constant<kMaxTileParts>(count, [&](auto parts_constant) {
    constexpr int kParts = decltype(parts_constant)::value;
    constexpr int kMostTaps = tile_rows(kParts);
    Tile tile = {};
    tile.rows = rows;
    tile.signal_column_step = column_step;
    tile.output_part_step = grad_part_step;
    for_each_tile(problem.kernel_height, kMostTaps, [&](std::int64_t u_first, std::int64_t u_count) {
      with_constant<kMostTaps>(u_count, [&](auto taps_constant) {
        constexpr int kTaps = decltype(taps_constant)::value;
        for (std::int64_t v = 0; v < problem.kernel_width; ++v) {
          tile.j_begin = std::max<std::int64_t>(0, worker.left - v);
          tile.j_end = std::min(problem.width, problem.width + worker.left - v);
          grad_parts_tile<T, kTaps, kParts>(tile, grad, grad_column_step,
                                            signal + ((v - worker.left) * column_step + u_first) * lanes,
                                            sum + (v * problem.kernel_height + u_first) * count * lanes);
        }
      });
    });
  });
}

template <typename S, typename T>
void write_grad_signal(const Worker<S, T>& worker, const Group& group, std::int64_t first, std::int64_t rows,
                       const T* sum, void* grad_signal) {
  Planes<S, T> output = {};
  output.used = group.used;
  for (int lane = 0; lane < group.used; ++lane) {
    output.plane[lane] = static_cast<S*>(grad_signal) + (group.first + lane) * worker.height * worker.width;
  }
  unpack(output, {first, rows, worker.width, rows, 1}, sum);
}

// sum: [kw][kh][count]
template <typename S, typename T>
void write_grad_parts(const Worker<S, T>& worker, const Group& group, std::int64_t first_part,
                      std::int64_t count, const T* sum, void* grad_parts) {
  const Problem& problem = worker.problem;
  const std::int64_t taps = problem.kernel_height * problem.kernel_width;
  for (std::int64_t p = 0; p < count; ++p) {
    Planes<S, T> output = {};
    worker.place_planes(output, group, [&](std::int64_t row, std::int64_t channel) {
      return static_cast<S*>(grad_parts) +
             ((row * problem.parts + first_part + p) * problem.channels + channel) * taps;
    });
    unpack(output, {0, problem.kernel_height, problem.kernel_width, problem.kernel_height * count, count},
           sum + p * kLanes<T>);
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
        sweep_grad_signal(worker, first, rows, grad, grad_first, grad_rows, filter, sum);
      }
    }
    write_grad_signal(worker, group, first, rows, sum, call.grad_signal);
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
          sweep_grad_parts(worker, count, rows, grad, rows, rows * width, signal, column_step, sum);
        }
      }
      write_grad_parts(worker, group, part, count, sum, call.grad_parts);
    }
  }
}

// Both gradients of a group from one reading of the upstream gradient, which is the largest operand.
// Without a pair index only, so that signal and parts have the same planes; whole maps at once.
inline bool fits_backward(const Problem& problem) {
  const std::int64_t grad_rows = problem.height + problem.kernel_height - 1;
  constexpr std::int64_t kCacheBytes = 768 * 1024;  // of a 1 MiB second-level cache
  const std::int64_t vectors = (problem.parts + 1) * problem.width * grad_rows +
                               2 * problem.parts * problem.kernel_height * problem.kernel_width;
  const bool pointwise = is_pointwise(problem);
  return problem.pair_index == nullptr && !pointwise && vectors * REID_OPS_VECTOR_BYTES <= kCacheBytes;
}

template <typename S, typename T>
void run_backward(const Backward& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  constexpr int lanes = kLanes<T>;
  const Problem& problem = call.problem;
  const Worker<S, T> worker{problem};
  const std::int64_t width = problem.width, height = problem.height, kernel_height = problem.kernel_height;
  const std::int64_t together = parts_together(problem.parts), taps = kernel_height * problem.kernel_width;
  // The map with a border of kh-1 rows, of which `above` lie before it: what grad_signal reaches.
  const std::int64_t grad_rows = height + kernel_height - 1, above = kernel_height - 1 - worker.top;
  const std::int64_t signal_rows = grad_rows;

  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(
      CpuScratch::bytes_of<T>(grad_rows * width * problem.parts * lanes) +
      CpuScratch::bytes_of<T>(signal_rows * width * lanes) + CpuScratch::bytes_of<T>(height * width * lanes) +
      2 * CpuScratch::bytes_of<T>(taps * together * lanes) + worker.gradient_scratch_bytes(grad_rows));
  T* const grad = scratch.take<T>(grad_rows * width * problem.parts * lanes);
  T* const signal = scratch.take<T>(signal_rows * width * lanes);
  T* const signal_sum = scratch.take<T>(height * width * lanes);
  T* const filter = scratch.take<T>(taps * together * lanes);
  T* const parts_sum = scratch.take<T>(taps * together * lanes);
  T* const pooled = problem.pool > 1 ? scratch.take<T>(0) : nullptr;
  const auto same = [](std::int64_t row) { return row; };

  for (std::int64_t item = begin; item < end; ++item) {
    const Group group = Group::at(item, problem.pairs, problem.channels, false, lanes);
    std::memset(signal_sum, 0, height * width * lanes * sizeof(T));
    for (std::int64_t part = 0; part < problem.parts; ++part) {
      T* const map = grad + part * grad_rows * width * lanes;
      worker.pack_gradient(static_cast<const S*>(call.grad_output), call.argmax, group, part, same, -above,
                           grad_rows, map, pooled);
      worker.pack_filter(worker.parts_planes(static_cast<const S*>(call.parts), group, part, same), 1,
                         filter);
      sweep_grad_signal(worker, 0, height, map, -above, grad_rows, filter, signal_sum);
    }
    write_grad_signal(worker, group, 0, height, signal_sum, call.grad_signal);

    worker.pack_rows(worker.signal_planes(static_cast<const S*>(call.signal), group, same), -worker.top,
                     signal_rows, signal);
    for (std::int64_t part = 0; part < problem.parts; part += together) {
      const std::int64_t count = std::min(together, problem.parts - part);
      std::memset(parts_sum, 0, taps * count * lanes * sizeof(T));
      sweep_grad_parts(worker, count, height, grad + (part * grad_rows * width + above) * lanes, grad_rows,
                       grad_rows * width, signal, signal_rows, parts_sum);
      write_grad_parts(worker, group, part, count, parts_sum, call.grad_parts);
    }
  }
}
