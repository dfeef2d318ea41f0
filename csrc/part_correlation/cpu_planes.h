// part_correlation on the CPU: from planes to scratch and back.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

// The planes of one vector: channel planes first .. first + used - 1 of all rows * channels, or,
// when rows take part in different pairs (`row_groups`), of one row only.
struct Group {
  std::int64_t first;
  int used;

  static std::int64_t count(std::int64_t rows, std::int64_t channels, bool row_groups, int lanes) {
    if (row_groups) return rows * ((channels + lanes - 1) / lanes);
    return (rows * channels + lanes - 1) / lanes;
  }
  static Group at(std::int64_t index, std::int64_t rows, std::int64_t channels, bool row_groups, int lanes) {
    std::int64_t first = index * lanes, end = rows * channels;
    if (row_groups) {
      const std::int64_t blocks = (channels + lanes - 1) / lanes, row = index / blocks;
      first = row * channels + index % blocks * lanes;
      end = (row + 1) * channels;
    }
    return {first, static_cast<int>(std::min<std::int64_t>(lanes, end - first))};
  }
};

template <typename S>
const S* limit_of(const S* data, std::initializer_list<std::int64_t> sizes, const std::int64_t* strides) {
  const S* last = data;
  for (const std::int64_t size : sizes) last += (size - 1) * *strides++;
  return last + 1;
}

// One call's geometry and typed pointers. S: what tensors hold; T: what is computed in.
template <typename S, typename T>
struct Worker {
  const Problem& problem;
  const std::int64_t height = problem.height, width = problem.width, channels = problem.channels;
  const std::int64_t kernel_height = problem.kernel_height, kernel_width = problem.kernel_width;
  const std::int64_t top = problem.top(), left = problem.left(), pool = problem.pool;
  const std::int64_t pooled_height = problem.pooled_height(), pooled_width = problem.pooled_width();
  static constexpr int lanes = kLanes<T>;
  // Larger than what a core has of the third-level cache.
  const bool streams =
      (problem.signal_rows * height * width + problem.pairs * problem.parts * pooled_height * pooled_width) *
          channels * static_cast<std::int64_t>(sizeof(S)) >=
      (std::int64_t{16} << 20);

  // `row` of plane q is what pair_row(q / channels) says; `index` places it in the tensor.
  template <typename U, typename Place>
  Planes<U, T> planes(const Group& group, std::int64_t row_stride, std::int64_t column_stride, const U* limit,
                      const Place& place) const {
    Planes<U, T> result;
    result.row_stride = row_stride;
    result.column_stride = column_stride;
    result.limit = limit;
    place_planes(result, group, place);
    return result;
  }

  // body(lane, row, channel) for the group's planes: one division, then counting.
  template <typename Body>
  void for_each_plane(const Group& group, const Body& body) const {
    std::int64_t row = group.first / channels, channel = group.first % channels;
    for (int lane = 0; lane < group.used; ++lane) {
      body(lane, row, channel);
      if (++channel == channels) channel = 0, ++row;
    }
  }

  // place(row, channel) for the group's planes: evenly spaced if they belong to one row.
  template <typename Result, typename Place>
  void place_planes(Result& result, const Group& group, const Place& place) const {
    const std::int64_t row = group.first / channels, channel = group.first % channels;
    if (group.used == lanes && channel + lanes <= channels) {
      auto* const first = place(row, channel);
      return result.spread(first, place(row, channel + 1) - first, streams);
    }
    result.used = group.used;
    for_each_plane(group, [&](int lane, std::int64_t plane_row, std::int64_t plane_channel) {
      result.plane[lane] = place(plane_row, plane_channel);
    });
    result.finish();
  }

  template <typename RowOf>
  Planes<const S, T> signal_planes(const S* signal, const Group& group, const RowOf& row_of) const {
    const std::int64_t* stride = problem.signal_stride;
    const S* limit = limit_of(signal, {problem.signal_rows, channels, height, width}, stride);
    return planes<const S>(group, stride[2], stride[3], limit, [&](std::int64_t row, std::int64_t channel) {
      return signal + row_of(row) * stride[0] + channel * stride[1];
    });
  }

  template <typename RowOf>
  Planes<const S, T> parts_planes(const S* parts, const Group& group, std::int64_t part,
                                  const RowOf& row_of) const {
    const std::int64_t* stride = problem.parts_stride;
    const S* limit =
        limit_of(parts, {problem.part_rows, problem.parts, channels, kernel_height, kernel_width}, stride);
    return planes<const S>(group, stride[3], stride[4], limit, [&](std::int64_t row, std::int64_t channel) {
      return parts + row_of(row) * stride[0] + part * stride[1] + channel * stride[2];
    });
  }

  // Planes of the [B, P, C, pooled_height, pooled_width] side.
  template <typename U, typename RowOf>
  auto map_planes(U* maps, const Group& group, std::int64_t part, const RowOf& row_of) const {
    const std::int64_t size = pooled_height * pooled_width;
    const U* limit = maps + problem.pairs * problem.parts * channels * size;
    using Value = std::conditional_t<std::is_same_v<std::remove_const_t<U>, std::int16_t>,
                                     std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>, T>;
    Planes<U, Value> result;
    result.row_stride = pooled_width;
    result.column_stride = 1;
    result.limit = limit;
    place_planes(result, group, [&](std::int64_t row, std::int64_t channel) {
      return maps + ((row_of(row) * problem.parts + part) * channels + channel) * size;
    });
    return result;
  }

  // Rows first .. first + rows - 1 of the signal into scratch [width][rows]; rows outside the map are 0.
  void pack_rows(const Planes<const S, T>& source, std::int64_t first, std::int64_t rows, T* scratch) const {
    const std::int64_t begin = std::clamp<std::int64_t>(-first, 0, rows);
    const std::int64_t end = std::clamp<std::int64_t>(height - first, begin, rows);
    zero_rows(scratch, rows, 0, begin);
    zero_rows(scratch, rows, end, rows);
    if (end > begin) pack(source, {first + begin, end - begin, width, rows, 1}, scratch + begin * lanes);
  }

  void zero_rows(T* scratch, std::int64_t rows, std::int64_t begin, std::int64_t end) const {
    if (begin >= end) return;
    for (std::int64_t j = 0; j < width; ++j) {
      std::memset(scratch + (j * rows + begin) * lanes, 0, (end - begin) * lanes * sizeof(T));
    }
  }

  // One part's filters into scratch: [kw][kh] vectors, `step` vectors apart.
  void pack_filter(const Planes<const S, T>& source, std::int64_t step, T* scratch) const {
    pack(source, {0, kernel_height, kernel_width, kernel_height * step, step}, scratch);
  }

  // Upstream gradient rows first .. first + rows - 1 of one part into scratch [width][rows], undoing
  // the pool: a pooled gradient goes back to the position its maximum came from.
  template <typename RowOf>
  void pack_gradient(const S* grad, const std::int16_t* argmax, const Group& group, std::int64_t part,
                     const RowOf& row_of, std::int64_t first, std::int64_t rows, T* scratch,
                     T* pooled_scratch) const {
    const auto source = map_planes(grad, group, part, row_of);
    if (pool == 1) return pack_rows(source, first, rows, scratch);
    using Index = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    const std::int64_t begin = std::max<std::int64_t>(first, 0), end = std::min(first + rows, height);
    zero_rows(scratch, rows, 0, std::clamp<std::int64_t>(begin - first, 0, rows));
    zero_rows(scratch, rows, std::clamp<std::int64_t>(end - first, 0, rows), rows);
    if (begin >= end) return;
    const std::int64_t pooled_begin = begin / pool, pooled_rows = (end - 1) / pool + 1 - pooled_begin;
    Index* index_scratch = reinterpret_cast<Index*>(pooled_scratch + pooled_rows * pooled_width * lanes);
    pack(source, {pooled_begin, pooled_rows, pooled_width, 1, pooled_width}, pooled_scratch);
    pack(map_planes(argmax, group, part, row_of), {pooled_begin, pooled_rows, pooled_width, 1, pooled_width},
         index_scratch);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t pooled_row = (i / pool - pooled_begin) * pooled_width;
      for (std::int64_t j = 0; j < width; ++j) {
        const std::int64_t position = (pooled_row + j / pool) * lanes;
        const Index here = static_cast<Index>(i % pool * pool + j % pool);
        const Vector<Index> chosen = load_aligned(index_scratch + position) == here;
        const Vector<T> value = load_aligned(pooled_scratch + position);
        store_aligned(scratch + (j * rows + i - first) * lanes, chosen ? value : Vector<T>{});
      }
    }
  }

  std::size_t gradient_scratch_bytes(std::int64_t rows) const {
    if (pool == 1) return 0;
    return 2 * CpuScratch::bytes_of<T>((rows / pool + 2) * pooled_width * lanes);
  }
};
