// similarity_graph on the CPU: all sums of the backward pass from one read of the output's gradient.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

template <typename S, typename T, int kLevels>
void sums_chunk(const Sums& call, const Chunk& chunk) {
  constexpr int capacity = LevelsAt<T, kLevels>::capacity;
  const Geometry& geometry = call.excite.features.geometry;
  const std::int64_t channels = geometry.channels, size = geometry.pixels();
  const int regions = geometry.regions(), levels = kLevels > 0 ? kLevels : geometry.levels;
  const Vector<T> zero = {}, factor = zero + static_cast<T>(call.excite.factor);
  const Vector<T> slope = zero + static_cast<T>(call.excite.factor * call.excite.negative_slope);
  CpuScratch& scratch = CpuScratch::of_this_thread();
  const std::int64_t stride = size + kLanes<T>, chunk_stride = kChannelChunk + kLanes<T>;
  scratch.reserve(CpuScratch::bytes_of<T>(levels * stride) +
                  2 * CpuScratch::bytes_of<T>(levels * chunk_stride) +
                  LevelsAt<T, kLevels>::bytes(call.excite) + 2 * LaneSums<T>::bytes(regions * levels) +
                  Runs::bytes(geometry));
  T* pixels = scratch.take<T>(levels * stride);
  T* totals = scratch.take<T>(levels * chunk_stride);
  T* moments = scratch.take<T>(levels * chunk_stride);
  const auto* levels_at = LevelsAt<T, kLevels>::of_regions(scratch, call.excite, chunk.image);
  const Runs* runs = Runs::of_regions(scratch, geometry);
  const auto lane_totals = LaneSums<T>::take(scratch, regions * levels);
  const auto lane_moments = LaneSums<T>::take(scratch, regions * levels);
  std::fill(pixels, pixels + levels * stride, T(0));
  const std::int64_t region_place = chunk.image * regions * levels * channels + chunk.first;
  T* region_total = static_cast<T*>(call.region_total) + region_place;
  T* region_moment = static_cast<T*>(call.region_moment) + region_place;
  const std::int64_t image = chunk.image * channels * size;
  if (!call.excite.features.channels_last) {
    for (int c = 0; c < chunk.count; ++c) {
      const std::int64_t channel = chunk.first + c;
      const S* x = static_cast<const S*>(call.excite.x) + image + channel * size;
      for (int region = 0; region < regions; ++region) {
        const LevelsAt<T, kLevels>& at = levels_at[region];
        Vector<T> scale[capacity], shift[capacity], total[capacity] = {}, moment[capacity] = {};
        for (int l = 0; l < at.count(); ++l) {
          scale[l] = zero + at.scale[l][channel], shift[l] = zero + at.shift[l][channel];
        }
        for_each_run(runs[region], [&](std::int64_t begin, std::int64_t length) REID_OPS_NODE_LAMBDA {
          for_each_vector<T>(begin, length, [&](std::int64_t p, auto count) REID_OPS_NODE_LAMBDA {
            const Vector<T> grad = load_first<S, T>(x + p, count);
            for (int l = 0; l < at.count(); ++l) {
              const Vector<T> a = load_first<T, T>(at.centred[l] + p, count);
              const Vector<T> d = grad * (a * scale[l] + shift[l] > zero ? factor : slope);
              total[l] += d;
              moment[l] += d * a;
              // Lanes past the run are another map's pixels: 0 times an infinite scale would spoil them.
              T* target = pixels + l * stride + p;
              store_some<T, T>(target, load_first<T, T>(target, count) + d * scale[l], count);
            }
          });
        });
        for (int l = 0; l < at.count(); ++l) {
          lane_totals.vectors[region * levels + l] = total[l];
          lane_moments.vectors[region * levels + l] = moment[l];
        }
      }
      lane_totals.finish(regions * levels,
                         [&](std::int64_t k, T sum) { region_total[k * channels + c] = sum; });
      lane_moments.finish(regions * levels,
                          [&](std::int64_t k, T sum) { region_moment[k * channels + c] = sum; });
    }
  } else {
    const S* x = static_cast<const S*>(call.excite.x) + image + chunk.first;
    for (int region = 0; region < regions; ++region) {
      const LevelsAt<T, kLevels>& at = levels_at[region];
      std::fill(totals, totals + levels * chunk_stride, T(0));
      std::fill(moments, moments + levels * chunk_stride, T(0));
      for_each_run(runs[region], [&](std::int64_t begin, std::int64_t length) REID_OPS_NODE_LAMBDA {
        for (std::int64_t p = begin; p < begin + length; ++p) {
          Vector<T> sum[capacity] = {};
          for_each_vector<T>(0, chunk.count, [&](std::int64_t c, auto count) REID_OPS_NODE_LAMBDA {
            const Vector<T> grad = load_first<S, T>(x + p * channels + c, count);
            for (int l = 0; l < at.count(); ++l) {
              const T a = at.centred[l][p];
              const Vector<T> scale = load_first<T, T>(at.scale[l] + chunk.first + c, count);
              const Vector<T> shift = load_first<T, T>(at.shift[l] + chunk.first + c, count);
              const Vector<T> d = grad * (scale * a + shift > zero ? factor : slope);
              T* total = totals + l * chunk_stride + c;
              T* moment = moments + l * chunk_stride + c;
              store_narrowed<T, T>(total, load_widened<T, T>(total) + d);
              store_narrowed<T, T>(moment, load_widened<T, T>(moment) + d * a);
              sum[l] += d * scale;
            }
          });
          for (int l = 0; l < at.count(); ++l) pixels[l * stride + p] = sum_of_lanes<T>(sum[l]);
        }
      });
      for (int l = 0; l < levels; ++l) {
        std::copy_n(totals + l * chunk_stride, chunk.count, region_total + (region * levels + l) * channels);
        std::copy_n(moments + l * chunk_stride, chunk.count,
                    region_moment + (region * levels + l) * channels);
      }
    }
  }
  T* partial = static_cast<T*>(call.partial) +
               (chunk.image * call.excite.features.chunks() + chunk.index) * levels * size;
  for (int l = 0; l < levels; ++l) std::copy_n(pixels + l * stride, size, partial + l * size);
}

template <typename T>
void sums_finish(const Sums& call, std::int64_t image) {
  const Geometry& geometry = call.excite.features.geometry;
  const int levels = geometry.levels;
  const std::int64_t channels = geometry.channels, chunks = call.excite.features.chunks();
  const std::int64_t size = std::int64_t{levels} * geometry.pixels();
  const T* partial = static_cast<const T*>(call.partial) + image * chunks * size;
  T* sums = static_cast<T*>(call.sums) + image * size;
  std::copy_n(partial, size, sums);
  for (std::int64_t chunk = 1; chunk < chunks; ++chunk) {
    for (std::int64_t p = 0; p < size; ++p) sums[p] += partial[chunk * size + p];
  }
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(channels));
  T* map_sums = scratch.take<T>(channels);
  const std::int64_t stride = levels * channels, regions = image * geometry.regions() * stride;
  for (int level = 0; level < levels; ++level) {
    const auto add_up = [&](const void* source, void* target) {
      for_each_map_sum(geometry, level, static_cast<const T*>(source) + regions + level * channels, stride,
                       map_sums, [&](int map, const T* sum) {
                         std::copy_n(sum, channels,
                                     static_cast<T*>(target) + (image * geometry.maps() + map) * channels);
                       });
    };
    add_up(call.region_total, call.total);
    add_up(call.region_moment, call.moment);
  }
}

template <typename S, typename T>
void run_features(const Sums& call, int step, std::int64_t begin, std::int64_t end) {
  for (std::int64_t item = begin; item < end; ++item) {
    if (step == 1) {
      sums_finish<T>(call, item);
      continue;
    }
    const Chunk chunk = Chunk::at(call.excite.features, item);
    switch (call.excite.features.geometry.levels) {
      case 1:
        sums_chunk<S, T, 1>(call, chunk);
        break;
      case 2:
        sums_chunk<S, T, 2>(call, chunk);
        break;
      case 3:
        sums_chunk<S, T, 3>(call, chunk);
        break;
      default:
        sums_chunk<S, T, 0>(call, chunk);
        break;
    }
  }
}
