// similarity_graph on the CPU: the passes over the features, streaming along memory. Sums is in cpu_sums.h.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.

// ------------------------------------------------------------------ Squeeze

template <typename S, typename T>
void squeeze_chunk(const Squeeze& call, const Chunk& chunk) {
  const Geometry& geometry = call.features.geometry;
  const std::int64_t channels = geometry.channels, size = geometry.pixels(), regions = geometry.regions();
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(size + kLanes<T>) +
                  CpuScratch::bytes_of<T>(kChannelChunk + kLanes<T>) + LaneSums<T>::bytes(regions) +
                  Runs::bytes(geometry));
  T* pixels = scratch.take<T>(size + kLanes<T>);
  T* sums = scratch.take<T>(kChannelChunk + kLanes<T>);
  const auto lane_sums = LaneSums<T>::take(scratch, regions);
  const Runs* runs = Runs::of_regions(scratch, geometry);
  std::fill(pixels, pixels + size + kLanes<T>, T(0));
  T* region_sums = static_cast<T*>(call.region_sums) + chunk.image * regions * channels + chunk.first;
  if (!call.features.channels_last) {
    const S* x = static_cast<const S*>(call.x) + (chunk.image * channels + chunk.first) * size;
    for (int c = 0; c < chunk.count; ++c, x += size) {
      for (int region = 0; region < regions; ++region) {
        Vector<T> sum = {};
        for_each_run(runs[region], [&](std::int64_t begin, std::int64_t length) REID_OPS_NODE_LAMBDA {
          for_each_vector<T>(begin, length, [&](std::int64_t p, auto count) REID_OPS_NODE_LAMBDA {
            const Vector<T> value = load_first<S, T>(x + p, count);
            store_narrowed<T, T>(pixels + p, load_widened<T, T>(pixels + p) + value);
            sum += value;
          });
        });
        lane_sums.vectors[region] = sum;
      }
      lane_sums.finish(regions,
                       [&](std::int64_t region, T sum) { region_sums[region * channels + c] = sum; });
    }
  } else {
    const S* x = static_cast<const S*>(call.x) + chunk.image * size * channels + chunk.first;
    for (int region = 0; region < regions; ++region) {
      std::fill(sums, sums + kChannelChunk, T(0));
      for_each_run(runs[region], [&](std::int64_t begin, std::int64_t length) {
        for (std::int64_t p = begin; p < begin + length; ++p) {
          Vector<T> sum = {};
          for_each_vector<T>(0, chunk.count, [&](std::int64_t c, auto count) REID_OPS_NODE_LAMBDA {
            const Vector<T> value = load_first<S, T>(x + p * channels + c, count);
            store_narrowed<T, T>(sums + c, load_widened<T, T>(sums + c) + value);
            sum += value;
          });
          pixels[p] = sum_of_lanes<T>(sum);
        }
      });
      std::copy_n(sums, chunk.count, region_sums + region * channels);
    }
  }
  std::copy_n(pixels, size,
              static_cast<T*>(call.partial) + (chunk.image * call.features.chunks() + chunk.index) * size);
}

// Adds up the regions of every map: source [regions, stride], f(map, channel, sum).
template <typename T, typename Function>
void for_each_map_sum(const Geometry& geometry, int level, const T* source, std::int64_t stride, T* sums,
                      const Function& f) {
  const std::int64_t channels = geometry.channels;
  const int last = geometry.maps_before(level + 1);
  for (int map = geometry.maps_before(level); map < last; ++map) {
    std::fill(sums, sums + channels, T(0));
    for (int region = 0; region < geometry.regions(); ++region) {
      if (geometry.map_of_region(level, region) != map) continue;
      for (std::int64_t c = 0; c < channels; ++c) sums[c] += source[region * stride + c];
    }
    f(map, sums);
  }
}

template <typename T>
void squeeze_finish(const Squeeze& call, std::int64_t image) {
  const Geometry& geometry = call.features.geometry;
  const std::int64_t channels = geometry.channels, size = geometry.pixels(), chunks = call.features.chunks();
  const T* partial = static_cast<const T*>(call.partial) + image * chunks * size;
  T* squeezed = static_cast<T*>(call.squeezed) + image * size;
  std::copy_n(partial, size, squeezed);
  for (std::int64_t chunk = 1; chunk < chunks; ++chunk) {
    for (std::int64_t p = 0; p < size; ++p) squeezed[p] += partial[chunk * size + p];
  }
  for (std::int64_t p = 0; p < size; ++p) squeezed[p] /= static_cast<T>(channels);
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(channels));
  T* sums = scratch.take<T>(channels);
  const T* region_sums = static_cast<const T*>(call.region_sums) + image * geometry.regions() * channels;
  T* means = static_cast<T*>(call.means) + image * geometry.maps() * channels;
  for (int level = 0; level < geometry.levels; ++level) {
    for_each_map_sum(geometry, level, region_sums, channels, sums, [&](int map, const T* total) {
      const T pixels = static_cast<T>(geometry.map_area(map).size());
      for (std::int64_t c = 0; c < channels; ++c) means[map * channels + c] = total[c] / pixels;
    });
  }
}

template <typename S, typename T>
void run_features(const Squeeze& call, int step, std::int64_t begin, std::int64_t end) {
  for (std::int64_t item = begin; item < end; ++item) {
    if (step == 0) {
      squeeze_chunk<S, T>(call, Chunk::at(call.features, item));
    } else {
      squeeze_finish<T>(call, item);
    }
  }
}

// ------------------------------------------------------------------ Excite

// The arrays of one image at one region: a level's plane of a, and its map's coefficients.
template <typename T, int kLevels>
struct LevelsAt {
  static constexpr int capacity = kLevels > 0 ? kLevels : kMaxLevels;
  int levels;
  const T *centred[capacity], *scale[capacity], *shift[capacity];

  // For all regions of an image: finding maps takes divisions, too many to repeat for every channel.
  static const LevelsAt* of_regions(CpuScratch& scratch, const Excite& call, std::int64_t image) {
    const int regions = call.features.geometry.regions();
    LevelsAt* result = scratch.take<LevelsAt>(regions);
    for (int region = 0; region < regions; ++region) result[region].fill(call, image, region);
    return result;
  }
  static std::size_t bytes(const Excite& call) {
    return CpuScratch::bytes_of<LevelsAt>(call.features.geometry.regions());
  }
  void fill(const Excite& call, std::int64_t image, int region) {
    const Geometry& geometry = call.features.geometry;
    levels = kLevels > 0 ? kLevels : geometry.levels;
    for (int level = 0; level < levels; ++level) {
      const std::int64_t map = image * geometry.maps() + geometry.map_of_region(level, region);
      centred[level] =
          static_cast<const T*>(call.centred) + (image * geometry.levels + level) * geometry.pixels();
      scale[level] = static_cast<const T*>(call.scale) + map * geometry.channels;
      shift[level] = static_cast<const T*>(call.shift) + map * geometry.channels;
    }
  }
  REID_OPS_INLINE int count() const { return kLevels > 0 ? kLevels : levels; }
};

template <typename S, typename T, int kLevels>
void excite_chunk(const Excite& call, const Chunk& chunk) {
  const Geometry& geometry = call.features.geometry;
  const std::int64_t channels = geometry.channels, size = geometry.pixels();
  const Vector<T> residual = Vector<T>{} + static_cast<T>(call.residual);
  const Vector<T> factor = Vector<T>{} + static_cast<T>(call.factor);
  const Vector<T> slope = Vector<T>{} + static_cast<T>(call.negative_slope);
  const int regions = geometry.regions();
  const std::int64_t image = chunk.image * channels * size;
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(LevelsAt<T, kLevels>::bytes(call) + Runs::bytes(geometry));
  const Runs* runs = Runs::of_regions(scratch, geometry);
  const auto* levels_at = LevelsAt<T, kLevels>::of_regions(scratch, call, chunk.image);
  if (!call.features.channels_last) {
    for (int c = 0; c < chunk.count; ++c) {
      const std::int64_t channel = chunk.first + c;
      const S* x = static_cast<const S*>(call.x) + image + channel * size;
      S* y = static_cast<S*>(call.y) + image + channel * size;
      for (int region = 0; region < regions; ++region) {
        const LevelsAt<T, kLevels>& at = levels_at[region];
        Vector<T> scale[LevelsAt<T, kLevels>::capacity], shift[LevelsAt<T, kLevels>::capacity];
        for (int l = 0; l < at.count(); ++l) {
          scale[l] = Vector<T>{} + at.scale[l][channel], shift[l] = Vector<T>{} + at.shift[l][channel];
        }
        for_each_run(runs[region], [&](std::int64_t begin, std::int64_t length) REID_OPS_NODE_LAMBDA {
          for_each_vector<T>(begin, length, [&](std::int64_t p, auto count) REID_OPS_NODE_LAMBDA {
            Vector<T> sum = {};
            for (int l = 0; l < at.count(); ++l) {
              sum += leaky<T>(load_first<T, T>(at.centred[l] + p, count) * scale[l] + shift[l], slope);
            }
            store_some<S, T>(y + p, load_first<S, T>(x + p, count) * residual + sum * factor, count);
          });
        });
      }
    }
    return;
  }
  const S* x = static_cast<const S*>(call.x) + image + chunk.first;
  S* y = static_cast<S*>(call.y) + image + chunk.first;
  for (int region = 0; region < regions; ++region) {
    const LevelsAt<T, kLevels>& at = levels_at[region];
    for_each_run(runs[region], [&](std::int64_t begin, std::int64_t length) REID_OPS_NODE_LAMBDA {
      for (std::int64_t p = begin; p < begin + length; ++p) {
        for_each_vector<T>(0, chunk.count, [&](std::int64_t c, auto count) REID_OPS_NODE_LAMBDA {
          Vector<T> sum = {};
          for (int l = 0; l < at.count(); ++l) {
            sum += leaky<T>(load_first<T, T>(at.scale[l] + chunk.first + c, count) * at.centred[l][p] +
                                load_first<T, T>(at.shift[l] + chunk.first + c, count),
                            slope);
          }
          const std::int64_t place = p * channels + c;
          store_some<S, T>(y + place, load_first<S, T>(x + place, count) * residual + sum * factor, count);
        });
      }
    });
  }
}

template <typename S, typename T>
void run_features(const Excite& call, int, std::int64_t begin, std::int64_t end) {
  for (std::int64_t item = begin; item < end; ++item) {
    const Chunk chunk = Chunk::at(call.features, item);
    switch (call.features.geometry.levels) {
      case 1:
        excite_chunk<S, T, 1>(call, chunk);
        break;
      case 2:
        excite_chunk<S, T, 2>(call, chunk);
        break;
      case 3:
        excite_chunk<S, T, 3>(call, chunk);
        break;
      default:
        excite_chunk<S, T, 0>(call, chunk);
        break;
    }
  }
}

// ------------------------------------------------------------------ Input

template <typename S, typename T>
void input_chunk(const Input& call, const Chunk& chunk) {
  const Geometry& geometry = call.features.geometry;
  const std::int64_t channels = geometry.channels, size = geometry.pixels(), maps = geometry.maps();
  const int regions = geometry.regions();
  const Vector<T> residual = Vector<T>{} + static_cast<T>(call.residual);
  constexpr std::int64_t stride = kChannelChunk + kLanes<T>;
  CpuScratch& scratch = CpuScratch::of_this_thread();
  scratch.reserve(CpuScratch::bytes_of<T>(size + kLanes<T>) + CpuScratch::bytes_of<T>(regions * stride) +
                  Runs::bytes(geometry));
  const Runs* runs = Runs::of_regions(scratch, geometry);
  T* by_pixel = scratch.take<T>(size + kLanes<T>);
  T* by_channel = scratch.take<T>(regions * stride);
  std::fill(by_pixel, by_pixel + size + kLanes<T>, T(0));
  std::fill(by_channel, by_channel + regions * stride, T(0));
  if (call.grad_squeezed) {
    const T* source = static_cast<const T*>(call.grad_squeezed) + chunk.image * geometry.levels * size;
    for (int l = 0; l < geometry.levels; ++l) {
      for (std::int64_t p = 0; p < size; ++p) by_pixel[p] += source[l * size + p];
    }
    for (std::int64_t p = 0; p < size; ++p) by_pixel[p] /= static_cast<T>(channels);
  }
  for (int region = 0; region < regions && call.grad_means; ++region) {
    for (int l = 0; l < geometry.levels; ++l) {
      const int map = geometry.map_of_region(l, region);
      const T pixels = static_cast<T>(geometry.map_area(map).size());
      const T* source =
          static_cast<const T*>(call.grad_means) + (chunk.image * maps + map) * channels + chunk.first;
      for (int c = 0; c < chunk.count; ++c) by_channel[region * stride + c] += source[c] / pixels;
    }
  }
  const std::int64_t image = chunk.image * channels * size;
  const S* grad_y = static_cast<const S*>(call.grad_y) + image;
  S* grad_x = static_cast<S*>(call.grad_x) + image;
  if (!call.features.channels_last) {
    for (int c = 0; c < chunk.count; ++c) {
      const std::int64_t plane = (chunk.first + c) * size;
      for (int region = 0; region < regions; ++region) {
        const Vector<T> own = Vector<T>{} + by_channel[region * stride + c];
        for_each_run(runs[region], [&](std::int64_t begin, std::int64_t length) REID_OPS_NODE_LAMBDA {
          for_each_vector<T>(begin, length, [&](std::int64_t p, auto count) REID_OPS_NODE_LAMBDA {
            const Vector<T> grad = load_first<S, T>(grad_y + plane + p, count);
            store_some<S, T>(grad_x + plane + p, grad * residual + (load_widened<T, T>(by_pixel + p) + own),
                             count);
          });
        });
      }
    }
    return;
  }
  for (int region = 0; region < regions; ++region) {
    for_each_run(runs[region], [&](std::int64_t begin, std::int64_t length) REID_OPS_NODE_LAMBDA {
      for (std::int64_t p = begin; p < begin + length; ++p) {
        const std::int64_t pixel = p * channels + chunk.first;
        for_each_vector<T>(0, chunk.count, [&](std::int64_t c, auto count) REID_OPS_NODE_LAMBDA {
          const Vector<T> grad = load_first<S, T>(grad_y + pixel + c, count);
          const Vector<T> own = load_widened<T, T>(by_channel + region * stride + c);
          store_some<S, T>(grad_x + pixel + c, grad * residual + (own + by_pixel[p]), count);
        });
      }
    });
  }
}

template <typename S, typename T>
void run_features(const Input& call, int, std::int64_t begin, std::int64_t end) {
  for (std::int64_t item = begin; item < end; ++item) input_chunk<S, T>(call, Chunk::at(call.features, item));
}
