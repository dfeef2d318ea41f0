// similarity_graph on CUDA: batch norm of the rank-one product in closed form, in double (cpu_affine.h
// has the formulas).
#pragma once

#include "similarity_graph/cuda_common.h"

namespace reid_ops::similarity_graph {
namespace {

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) statistics_kernel(Statistics call) {
  const Geometry& geometry = call.geometry;
  const std::int64_t maps = geometry.maps(), channels = geometry.channels;
  const double images = geometry.batch > 0 ? static_cast<double>(geometry.batch) : 1;
  for (std::int64_t item = first_item(); item < maps * channels; item += item_step()) {
    const int map = static_cast<int>(item / channels);
    const double pixels = geometry.map_area(map).size();
    const T* channel = static_cast<const T*>(call.channel) + item;
    double mean = 0, variance = 0;
    for (std::int64_t n = 0; n < geometry.batch; ++n) {
      mean += channel[n * maps * channels] * (call.mean[n * maps + map] / images);
    }
    for (std::int64_t n = 0; n < geometry.batch; ++n) {
      const double b = channel[n * maps * channels], away = b * call.mean[n * maps + map] - mean;
      variance += b * b * (call.spread[n * maps + map] / pixels) + away * away;
    }
    call.batch_mean[item] = mean;
    call.batch_variance[item] = variance / images;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) affine_kernel(Affine call) {
  const std::int64_t channels = call.geometry.channels, table = call.geometry.maps() * channels;
  for (std::int64_t item = first_item(); item < call.geometry.batch * table; item += item_step()) {
    const std::int64_t place = item % table;
    const double b = static_cast<const T*>(call.channel)[item], mean = call.mean[item / channels];
    const double factor = static_cast<const T*>(call.weight)[place] * call.inverse[place];
    static_cast<T*>(call.scale)[item] = static_cast<T>(b * factor);
    static_cast<T*>(call.shift)[item] = static_cast<T>((b * mean - call.batch_mean[place]) * factor +
                                                       static_cast<const T*>(call.bias)[place]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) affine_sums_kernel(AffineSums call) {
  const Affine& affine = call.affine;
  const std::int64_t channels = affine.geometry.channels, table = affine.geometry.maps() * channels;
  for (std::int64_t place = first_item(); place < table; place += item_step()) {
    double weight = 0, bias = 0;
    for (std::int64_t n = 0; n < affine.geometry.batch; ++n) {
      const std::int64_t item = n * table + place;
      const double b = static_cast<const T*>(affine.channel)[item],
                   total = static_cast<const T*>(call.total)[item];
      weight += b * static_cast<const T*>(call.moment)[item] +
                (b * affine.mean[item / channels] - affine.batch_mean[place]) * total;
      bias += total;
    }
    call.grad_weight[place] = weight * affine.inverse[place];
    call.grad_bias[place] = bias;
  }
}

// A block for one image's map: its sums over channels are the map's two coefficients.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) affine_backward_kernel(AffineBackward call) {
  const Affine& affine = call.affine;
  const std::int64_t maps = affine.geometry.maps(), channels = affine.geometry.channels;
  for (std::int64_t block = blockIdx.x; block < affine.geometry.batch * maps; block += gridDim.x) {
    const int map = static_cast<int>(block % maps);
    const double mean = affine.mean[block], spread = call.spread[block];
    const double mass = mean * affine.geometry.map_area(map).size();
    double offset = 0, slope = 0;
    for (std::int64_t c = threadIdx.x; c < channels; c += kThreads) {
      const std::int64_t item = block * channels + c, place = map * channels + c;
      const double b = static_cast<const T*>(affine.channel)[item], inverse = affine.inverse[place];
      const double factor = static_cast<const T*>(affine.weight)[place] * inverse;
      const double steep = call.mean_moment[place] * b * inverse;
      const double level =
          call.mean_total[place] + call.mean_moment[place] * (b * mean - affine.batch_mean[place]) * inverse;
      offset += b * factor * level;
      slope += b * factor * steep;
      static_cast<T*>(call.grad_channel)[item] = static_cast<T>(
          factor * (static_cast<const T*>(call.moment)[item] +
                    mean * static_cast<const T*>(call.total)[item] - mass * level - steep * spread));
    }
    offset = block_sum(offset);
    slope = block_sum(slope);
    if (threadIdx.x == 0) {
      static_cast<T*>(call.offset)[block] = static_cast<T>(offset);
      static_cast<T*>(call.slope)[block] = static_cast<T>(slope);
    }
  }
}

}  // namespace
}  // namespace reid_ops::similarity_graph
