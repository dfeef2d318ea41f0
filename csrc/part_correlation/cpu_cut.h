// part_correlation on the CPU: how the work is cut into pairs, parts and bands of rows.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

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

// Parts are computed kMaxTileParts at a time at most; five or more in threes, which leave room for
// taller tiles.
REID_OPS_INLINE std::int64_t parts_together(std::int64_t parts) { return parts <= kMaxTileParts ? parts : 3; }

// How an op's map rows are cut into bands: a band and its neighbourhood fit the second-level cache,
// and few planes still make work for every thread.
struct Bands {
  std::int64_t rows, count;

  static Bands of(std::int64_t height, std::int64_t bytes_per_row, std::int64_t groups, std::int64_t threads,
                  std::int64_t multiple) {
    constexpr std::int64_t kCacheBytes = 512 * 1024;  // half a 1 MiB second-level cache
    std::int64_t rows = std::max<std::int64_t>(8, kCacheBytes / std::max<std::int64_t>(1, bytes_per_row));
    if (groups < 4 * threads) {
      const std::int64_t wanted = (4 * threads + groups - 1) / std::max<std::int64_t>(1, groups);
      if (threads > 1) rows = std::min(rows, std::max<std::int64_t>(8, (height + wanted - 1) / wanted));
    }
    return with_count(height, (height + rows - 1) / rows, multiple);
  }

  // `count` bands of equal rows, a multiple of `multiple`; the last may come out short or empty.
  static Bands with_count(std::int64_t height, std::int64_t count, std::int64_t multiple) {
    const std::int64_t rows = ((height + count - 1) / count + multiple - 1) / multiple * multiple;
    return {rows, count};
  }
};

struct Cut {
  std::int64_t groups;
  Bands bands;
};
