// similarity_graph on the CPU: batch norm of the rank-one product in closed form, in double.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.
//
// The product z = b * a of an image has mean b * mean and variance b^2 * spread / pixels over the map.
// Over all images (law of total variance, sums of squares only, so nothing cancels):
//   mu = avg_n b mean,   var = avg_n [ b^2 spread / pixels + (b mean - mu)^2 ]

// f(image offset, map, first channel, count) for items that own a map's chunk of channels.
struct ChannelRange {
  int map;
  std::int64_t first;
  int count;

  static std::int64_t chunks(const Geometry& geometry) {
    return (geometry.channels + kChannelChunk - 1) / kChannelChunk;
  }
  static ChannelRange at(const Geometry& geometry, std::int64_t item) {
    const std::int64_t first = item % chunks(geometry) * kChannelChunk;
    return {static_cast<int>(item / chunks(geometry)), first,
            static_cast<int>(std::min<std::int64_t>(kChannelChunk, geometry.channels - first))};
  }
};

template <typename T>
void run_statistics(const Statistics& call, std::int64_t begin, std::int64_t end) {
  const Geometry& geometry = call.geometry;
  const std::int64_t maps = geometry.maps(), channels = geometry.channels;
  for (std::int64_t item = begin; item < end; ++item) {
    const ChannelRange range = ChannelRange::at(geometry, item);
    const T* channel = static_cast<const T*>(call.channel) + range.map * channels + range.first;
    const double pixels = geometry.map_area(range.map).size();
    const double images = geometry.batch > 0 ? static_cast<double>(geometry.batch) : 1;
    double mean[kChannelChunk] = {}, variance[kChannelChunk] = {};
    for (std::int64_t n = 0; n < geometry.batch; ++n) {
      const double image_mean = call.mean[n * maps + range.map] / images;
      for (int c = 0; c < range.count; ++c) mean[c] += channel[n * maps * channels + c] * image_mean;
    }
    for (std::int64_t n = 0; n < geometry.batch; ++n) {
      const double image_mean = call.mean[n * maps + range.map];
      const double image_variance = call.spread[n * maps + range.map] / pixels;
      for (int c = 0; c < range.count; ++c) {
        const double b = channel[n * maps * channels + c], away = b * image_mean - mean[c];
        variance[c] += b * b * image_variance + away * away;
      }
    }
    const std::int64_t place = range.map * channels + range.first;
    for (int c = 0; c < range.count; ++c) {
      call.batch_mean[place + c] = mean[c];
      call.batch_variance[place + c] = variance[c] / images;
    }
  }
}

// What an image's map needs of Affine's arrays.
template <typename T>
struct AffineMap {
  const T *channel, *weight, *bias;
  const double *batch_mean, *inverse;
  double mean, pixels;

  AffineMap(const Affine& call, std::int64_t image, int map, std::int64_t first) {
    const std::int64_t maps = call.geometry.maps(), place = map * call.geometry.channels + first;
    channel = static_cast<const T*>(call.channel) + (image * maps + map) * call.geometry.channels + first;
    weight = static_cast<const T*>(call.weight) + place;
    bias = static_cast<const T*>(call.bias) + place;
    batch_mean = call.batch_mean + place;
    inverse = call.inverse + place;
    mean = call.mean[image * maps + map];
    pixels = call.geometry.map_area(map).size();
  }
};

template <typename T>
void run_affine(const Affine& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t maps = call.geometry.maps(), channels = call.geometry.channels;
  for (std::int64_t item = begin; item < end; ++item) {
    const AffineMap<T> map(call, item / maps, static_cast<int>(item % maps), 0);
    T* scale = static_cast<T*>(call.scale) + item * channels;
    T* shift = static_cast<T*>(call.shift) + item * channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      const double factor = map.weight[c] * map.inverse[c];
      scale[c] = static_cast<T>(map.channel[c] * factor);
      shift[c] = static_cast<T>((map.channel[c] * map.mean - map.batch_mean[c]) * factor + map.bias[c]);
    }
  }
}

template <typename T>
void run_affine(const AffineSums& call, std::int64_t begin, std::int64_t end) {
  const Geometry& geometry = call.affine.geometry;
  const std::int64_t maps = geometry.maps(), channels = geometry.channels;
  for (std::int64_t item = begin; item < end; ++item) {
    const ChannelRange range = ChannelRange::at(geometry, item);
    double weight[kChannelChunk] = {}, bias[kChannelChunk] = {};
    for (std::int64_t n = 0; n < geometry.batch; ++n) {
      const AffineMap<T> map(call.affine, n, range.map, range.first);
      const std::int64_t place = (n * maps + range.map) * channels + range.first;
      const T* total = static_cast<const T*>(call.total) + place;
      const T* moment = static_cast<const T*>(call.moment) + place;
      for (int c = 0; c < range.count; ++c) {
        const double b = map.channel[c];
        weight[c] += b * moment[c] + (b * map.mean - map.batch_mean[c]) * total[c];
        bias[c] += total[c];
      }
    }
    const std::int64_t place = range.map * channels + range.first;
    for (int c = 0; c < range.count; ++c) {
      call.grad_weight[place + c] = weight[c] * call.affine.inverse[place + c];
      call.grad_bias[place + c] = bias[c];
    }
  }
}

template <typename T>
void run_affine(const AffineBackward& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t maps = call.affine.geometry.maps(), channels = call.affine.geometry.channels;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t index = item % maps;
    const AffineMap<T> map(call.affine, item / maps, static_cast<int>(index), 0);
    const T* total = static_cast<const T*>(call.total) + item * channels;
    const T* moment = static_cast<const T*>(call.moment) + item * channels;
    const double* mean_total = call.mean_total + index * channels;
    const double* mean_moment = call.mean_moment + index * channels;
    T* grad_channel = static_cast<T*>(call.grad_channel) + item * channels;
    const double spread = call.spread[item], mass = map.pixels * map.mean;
    double offset = 0, slope = 0;
    for (std::int64_t c = 0; c < channels; ++c) {
      const double inverse = map.inverse[c], b = map.channel[c];
      const double factor = map.weight[c] * inverse, steep = mean_moment[c] * b * inverse;
      const double level = mean_total[c] + mean_moment[c] * (b * map.mean - map.batch_mean[c]) * inverse;
      offset += b * factor * level;
      slope += b * factor * steep;
      grad_channel[c] =
          static_cast<T>(factor * (moment[c] + map.mean * total[c] - mass * level - steep * spread));
    }
    static_cast<T*>(call.offset)[item] = static_cast<T>(offset);
    static_cast<T*>(call.slope)[item] = static_cast<T>(slope);
  }
}
