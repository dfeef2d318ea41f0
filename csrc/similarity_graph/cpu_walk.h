// similarity_graph on the CPU: how the passes over the features walk them, and sums over lanes.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.
//
// An item is one image's chunk of channels. [N,C,H,W]: planes one by one, a vector is consecutive
// pixels of a region. [N,H,W,C]: pixels one by one, a vector is consecutive channels.

// A region's runs of consecutive pixels. Looked up once for a chunk: the region's place takes divisions.
struct Runs {
  int first, length, count, stride;

  static Runs of(const Geometry& geometry, int region) {
    const Area area = geometry.region(region);
    const int first = area.top * geometry.width + area.left;
    if (area.columns() == geometry.width) return {first, area.size(), 1, 0};
    return {first, area.columns(), area.rows(), geometry.width};
  }
  static std::size_t bytes(const Geometry& geometry) {
    return CpuScratch::bytes_of<Runs>(geometry.regions());
  }
  static const Runs* of_regions(CpuScratch& scratch, const Geometry& geometry) {
    Runs* result = scratch.take<Runs>(geometry.regions());
    for (int region = 0; region < geometry.regions(); ++region) result[region] = of(geometry, region);
    return result;
  }
};

// f(first pixel, pixels) for every run.
template <typename Function>
REID_OPS_INLINE void for_each_run(const Runs& runs, const Function& f) {
  for (int run = 0; run < runs.count; ++run) {
    f(std::int64_t{runs.first} + run * runs.stride, std::int64_t{runs.length});
  }
}

// f(offset, lanes used): whole vectors, then what is left.
template <typename T, typename Function>
REID_OPS_INLINE void for_each_vector(std::int64_t begin, std::int64_t length, const Function& f) {
  constexpr int lanes = kLanes<T>;
  std::int64_t done = 0;
  for (; done + lanes <= length; done += lanes) f(begin + done, std::integral_constant<int, lanes>());
  if (done < length) f(begin + done, static_cast<int>(length - done));
}

// One exchange of sums_of_lanes: lanes without the bit kDistance get upper[l] + upper[l ^ kDistance], the
// others lower's.
template <typename T, int kDistance, int... kLane>
REID_OPS_INLINE Vector<T> exchange(Vector<T> upper, Vector<T> lower, std::integer_sequence<int, kLane...>) {
  constexpr int lanes = kLanes<T>;
  return __builtin_shufflevector(upper, lower, ((kLane & kDistance) ? lanes + kLane : kLane)...) +
         __builtin_shufflevector(upper, lower,
                                 ((kLane & kDistance) ? lanes + (kLane ^ kDistance) : kLane ^ kDistance)...);
}

// Adds up the lanes of kLanes vectors at once, in kLanes - 1 exchanges: lane l becomes the sum of vectors[l].
template <typename T, int kDistance = kLanes<T> / 2>
REID_OPS_INLINE Vector<T> sums_of_lanes(Vector<T>* vectors) {
  for (int i = 0; i < kDistance; ++i) {
    vectors[i] = exchange<T, kDistance>(vectors[i], vectors[i + kDistance],
                                        std::make_integer_sequence<int, kLanes<T>>());
  }
  if constexpr (kDistance > 1) return sums_of_lanes<T, kDistance / 2>(vectors);
  return vectors[0];
}

template <typename T>
REID_OPS_INLINE T sum_of_lanes(Vector<T> value) {
  Vector<T> vectors[kLanes<T>] = {};
  vectors[0] = value;
  return sums_of_lanes<T>(vectors)[0];
}

// Vectors to be added up across their lanes, many at once.
template <typename T>
struct LaneSums {
  Vector<T>* vectors;

  static std::int64_t padded(std::int64_t count) { return (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>; }
  static std::size_t bytes(std::int64_t count) { return CpuScratch::bytes_of<T>(padded(count) * kLanes<T>); }
  static LaneSums take(CpuScratch& scratch, std::int64_t count) {
    T* memory = scratch.take<T>(padded(count) * kLanes<T>);
    std::fill(memory, memory + padded(count) * kLanes<T>, T(0));
    return {reinterpret_cast<Vector<T>*>(memory)};
  }
  // f(index, sum) for the first `count` vectors; what they held is lost.
  template <typename Function>
  REID_OPS_INLINE void finish(std::int64_t count, const Function& f) const {
    for (std::int64_t first = 0; first < count; first += kLanes<T>) {
      const Vector<T> sums = sums_of_lanes<T>(vectors + first);
      const int used = static_cast<int>(std::min<std::int64_t>(kLanes<T>, count - first));
      for (int lane = 0; lane < used; ++lane) f(first + lane, sums[lane]);
    }
  }
};

template <typename T>
REID_OPS_INLINE Vector<T> leaky(Vector<T> value, Vector<T> slope) {
  return value > Vector<T>{} ? value : value * slope;
}

struct Chunk {
  std::int64_t image, index, first;
  int count;
  static Chunk at(const Features& features, std::int64_t item) {
    const std::int64_t chunks = features.chunks(), first = item % chunks * kChannelChunk;
    return {item / chunks, item % chunks, first,
            static_cast<int>(std::min<std::int64_t>(kChannelChunk, features.geometry.channels - first))};
  }
};
