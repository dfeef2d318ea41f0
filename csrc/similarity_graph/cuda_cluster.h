// similarity_graph on CUDA: the whole module with given statistics, one read and one write (sm_90).
//
// A cluster of blocks holds one image: each block its share of the channels, read once into shared memory.
// Blocks add up their own channels for every pixel and exchange these sums, then each computes all spatial
// graphs (a few thousand nodes: cheaper than another exchange), its own channels' graphs, whose neighbours
// at the share's ends are other blocks', and its part of the output. Sums have one owner and a fixed
// order. Plain loads fill the shared memory; kernels of other blocks hide them where two fit side by side.
#pragma once

#include "common/cluster.h"
#include "similarity_graph/cuda_common.h"
#include "similarity_graph/cuda_features.h"
#include "similarity_graph/cuda_graph.h"

namespace reid_ops::similarity_graph {
namespace {

constexpr int kClusterThreads = 512;
constexpr int kClusterWarps = kClusterThreads / kWarp;
// Blocks whose registers a multiprocessor must hold: 64 a thread let two run side by side. Any number of
// levels (0) needs a few more, double more still.
template <typename T, int kLevels>
constexpr int kResidentBlocks = sizeof(T) == 4 && kLevels > 0 ? 2 : 1;

// A block's shared memory; from any base, how much of it there must be.
template <typename S, typename T>
struct ClusterMemory {
  S* features;     // [own, H, W]; channels last: [H, W, share]
  double* mean;    // [G]         mean of a over a map
  T* partial;      // [H, W]      sum over the block's channels; other blocks read it
  T* means;        // [G, share]  means over maps; other blocks read them
  T* squeezed;     // [H, W]
  T* work;         // sums of groups of channels, then AP_k(S) of one level [K, H, W]
  T* centred;      // [L, H, W]
  T* region_sums;  // [regions, share]
  T* scale;        // [G, share]
  T* shift;        // [G, share]
  std::size_t bytes;

  __host__ __device__ ClusterMemory(unsigned char* base, const Geometry& geometry, int scales, int share)
      : bytes(0) {
    const std::size_t size = geometry.pixels(), maps = geometry.maps(), own = share;
    const std::size_t planes = size * scales;
    features = take<S>(base, size * own);
    mean = take<double>(base, maps);
    partial = take<T>(base, size);
    means = take<T>(base, maps * own);
    squeezed = take<T>(base, size);
    work = take<T>(base, planes > kClusterThreads ? planes : kClusterThreads);
    centred = take<T>(base, size * geometry.levels);
    region_sums = take<T>(base, own * geometry.regions());
    scale = take<T>(base, maps * own);
    shift = take<T>(base, maps * own);
  }

 private:
  template <typename Type>
  __host__ __device__ Type* take(unsigned char* base, std::size_t count) {
    Type* const result = reinterpret_cast<Type*>(base + bytes);
    bytes += (count * sizeof(Type) + 15) / 16 * 16;  // 16-byte accesses
    return result;
  }
};

// One block's view of its image.
template <typename S, typename T, bool kLast>
struct ClusterBlock {
  const EvaluateAtOnce& call;
  const Geometry& geometry;
  ClusterMemory<S, T> memory;
  int blocks, share, first, own;  // the cluster's blocks; channels a block, this one's first and number
  int thread, lane, warp;
  std::int64_t image;

  __device__ __forceinline__ ClusterBlock(const EvaluateAtOnce& all, unsigned char* shared, int channels)
      : call(all),
        geometry(all.excite.features.geometry),
        memory(shared, geometry, all.scales, channels),
        blocks(cluster_blocks()),
        share(channels),
        first(cluster_rank() * channels),
        own(0),
        thread(static_cast<int>(threadIdx.x)),
        lane(thread % kWarp),
        warp(thread / kWarp),
        image(blockIdx.x / static_cast<unsigned int>(blocks)) {
    const std::int64_t left = geometry.channels - first;
    own = left <= 0 ? 0 : left < share ? static_cast<int>(left) : share;
  }

  __device__ __forceinline__ T feature(int channel, int pixel) const {
    return widen<T>(memory.features[kLast ? pixel * share + channel : channel * geometry.pixels() + pixel]);
  }

  // Rows of `length` elements, 16 bytes at a time where all of them are aligned.
  __device__ __forceinline__ void load() const {
    const int size = geometry.pixels();
    const S* source = static_cast<const S*>(call.excite.x) + image * geometry.channels * size +
                      static_cast<std::int64_t>(first) * (kLast ? 1 : size);
    const int rows = kLast ? size : 1, length = kLast ? own : own * size;
    const std::int64_t stride = kLast ? geometry.channels : 0;
    constexpr int kTogether = 16 / sizeof(S);
    const bool aligned = reinterpret_cast<std::uintptr_t>(source) % 16 == 0 && length % kTogether == 0 &&
                         stride % kTogether == 0 && (!kLast || share % kTogether == 0);
    if (aligned) {
      const int vectors = length / kTogether;
#pragma unroll 4
      for (int item = thread; item < rows * vectors; item += kClusterThreads) {
        const int row = kLast ? item / vectors : 0, place = (item - row * vectors) * kTogether;
        *reinterpret_cast<uint4*>(memory.features + row * share + place) =
            *reinterpret_cast<const uint4*>(source + row * stride + place);
      }
    } else {
      for (int item = thread; item < rows * length; item += kClusterThreads) {
        const int row = kLast ? item / length : 0, place = item - row * length;
        memory.features[row * share + place] = source[row * stride + place];
      }
    }
  }

  // Eq. 1 for the block's channels.
  __device__ __forceinline__ void sum_channels() const {
    const int size = geometry.pixels();
    if constexpr (kLast) {
      for (int pixel = warp; pixel < size; pixel += kClusterWarps) {
        T sum[1] = {};
        for (int c = lane; c < own; c += kWarp) sum[0] += feature(c, pixel);
        const T total = warp_sums(sum);
        if (lane == 0) memory.partial[pixel] = total;
      }
    } else {
      const int groups = size < kClusterThreads ? kClusterThreads / size : 1;
      for (int item = thread; item < groups * size; item += kClusterThreads) {
        T sum = 0;
        for (int c = item / size; c < own; c += groups) sum += feature(c, item % size);
        memory.work[item] = sum;  // groups * size is at most kClusterThreads or size
      }
      __syncthreads();
      for (int pixel = thread; pixel < size; pixel += kClusterThreads) {
        T sum = 0;
        for (int group = 0; group < groups; ++group) sum += memory.work[group * size + pixel];
        memory.partial[pixel] = sum;
      }
    }
  }

  // Eq. 7: sums over regions, then means over maps.
  __device__ __forceinline__ void sum_pixels() const {
    const int width = geometry.width, items = geometry.regions() * own;
    for (int item = kLast ? thread : warp; item < items; item += kLast ? kClusterThreads : kClusterWarps) {
      const int index = item / own, c = item - index * own;
      const Area area = geometry.region(index);
      T sum[1] = {};
      if (!kLast && area.columns() == width) {  // one run of pixels: no divisions
        for (int k = lane; k < area.size(); k += kWarp) sum[0] += feature(c, area.top * width + k);
      } else {
        for (int k = kLast ? 0 : lane; k < area.size(); k += kLast ? 1 : kWarp) {
          const int row = k / area.columns();
          sum[0] += feature(c, (area.top + row) * width + area.left + k - row * area.columns());
        }
      }
      const T total = kLast ? sum[0] : warp_sums(sum);
      if (kLast || lane == 0) memory.region_sums[index * share + c] = total;
    }
    __syncthreads();
    for (int item = thread; item < geometry.maps() * own; item += kClusterThreads) {
      const int map = item / own, c = item - map * own;
      memory.means[map * share + c] =
          sum_of_map(geometry, memory.region_sums + c, static_cast<std::int64_t>(share), 0, map) /
          static_cast<T>(geometry.map_area(map).size());
    }
  }

  __device__ __forceinline__ void gather_squeezed() const {
    for (int pixel = thread; pixel < geometry.pixels(); pixel += kClusterThreads) {
      T sum = 0;
      for (int block = 0; block < blocks; ++block) sum += shared_of(memory.partial, block)[pixel];
      memory.squeezed[pixel] = sum / static_cast<T>(geometry.channels);
    }
  }

  // Eqs. 2-6: a of all levels, then its mean over each map taken off.
  __device__ __forceinline__ void spatial_graphs() const {
    const int size = geometry.pixels(), width = geometry.width;
    if (call.theta == nullptr) {  // all ones
      for (int item = thread; item < geometry.levels * size; item += kClusterThreads)
        memory.centred[item] = T(0);
      for (int map = thread; map < geometry.maps(); map += kClusterThreads) memory.mean[map] = 1;
      __syncthreads();
      return;
    }
    for (int level = 0; level < geometry.levels; ++level) {
      for (int item = thread; item < call.scales * size; item += kClusterThreads) {
        const int k = item / size, pixel = item - k * size, row = pixel / width, column = pixel - row * width;
        const Area area = geometry.map_area(geometry.map_of_pixel(level, row, column));
        memory.work[item] =
            pooled_at(memory.squeezed + area.top * width + area.left, width,
                      pooling_taps(row - area.top, area.rows(), call.scale[k], call.pooling),
                      pooling_taps(column - area.left, area.columns(), call.scale[k], call.pooling));
      }
      __syncthreads();
      for (int pixel = thread; pixel < size; pixel += kClusterThreads) {
        const int row = pixel / width, column = pixel - row * width;
        const Area area = geometry.map_area(geometry.map_of_pixel(level, row, column));
        const NodeGrid grid = {area.rows(), area.columns(), width, call.spatial};
        const T* theta =
            static_cast<const T*>(call.theta) + static_cast<std::int64_t>(level) * call.scales * size + pixel;
        T sum = 0;
        for (int k = 0; k < call.scales; ++k) {
          const T* pooled = memory.work + k * size;
          const T mean =
              grid.row_at(pooled + area.top * width + area.left, row - area.top, column - area.left).mean;
          sum += (pooled[pixel] + mean) * theta[static_cast<std::int64_t>(k) * size];
        }
        memory.centred[level * size + pixel] = sum;
      }
      __syncthreads();
    }
    for (int map = warp; map < geometry.maps(); map += kClusterWarps) {
      const Area area = geometry.map_area(map);
      T* plane = memory.centred + geometry.level_of(map) * size + area.top * width + area.left;
      double sum[1] = {};
      for (int k = lane; k < area.size(); k += kWarp)
        sum[0] += plane[k / area.columns() * width + k % area.columns()];
      const double mean = __shfl_sync(kFullWarp, warp_sums(sum), 0) / area.size();
      for (int k = lane; k < area.size(); k += kWarp) {
        T& value = plane[k / area.columns() * width + k % area.columns()];
        value = static_cast<T>(value - mean);
      }
      if (lane == 0) memory.mean[map] = mean;
    }
    __syncthreads();
  }

  // Eq. 8 and the batch norm: scale and shift of the block's channels.
  __device__ __forceinline__ void coefficients() const {
    const int channels = static_cast<int>(geometry.channels);
    const NodeGrid chain = {1, channels, channels, call.channel};
    for (int item = thread; item < geometry.maps() * own; item += kClusterThreads) {
      const int map = item / own, c = item - map * own;
      const std::int64_t place = static_cast<std::int64_t>(map) * channels + first + c;
      const auto mean_of = [&](int channel) {
        const int block = channel / share;
        return shared_of(memory.means, block)[map * share + channel - block * share];
      };
      T channel = 1;
      if (call.delta != nullptr) {
        const T own_mean = memory.means[map * share + c];
        const Row<T> row = row_of(own_mean, call.channel.edges, [&](const auto& visitor) {
          chain.visit(0, first + c,
                      [&](std::int64_t other) { visitor(mean_of(static_cast<int>(other)), true); });
        });
        channel = (own_mean + row.mean) * static_cast<const T*>(call.delta)[place];
      }
      const double b = channel, factor = static_cast<const T*>(call.weight)[place] * call.inverse[place];
      memory.scale[map * share + c] = static_cast<T>(b * factor);
      memory.shift[map * share + c] = static_cast<T>(
          (b * memory.mean[map] - call.batch_mean[place]) * factor + static_cast<const T*>(call.bias)[place]);
    }
  }

  // Eqs. 9-11. A warp takes a channel, its lanes the pixels; channels last, a thread takes a channel.
  template <int kLevels>
  __device__ __forceinline__ void excite() const {
    constexpr int capacity = LevelCount<kLevels>::capacity;
    const int size = geometry.pixels(), width = geometry.width;
    const T residual = static_cast<T>(call.excite.residual), factor = static_cast<T>(call.excite.factor);
    const T slope = static_cast<T>(call.excite.negative_slope);
    S* y = static_cast<S*>(call.excite.y) + image * geometry.channels * size;
    for (int index = 0; index < geometry.regions(); ++index) {
      const Area area = geometry.region(index);
      const bool whole = area.columns() == width;
      int row_of_map[capacity] = {};
#pragma unroll
      for (int l = 0; l < capacity; ++l) {
        if (LevelCount<kLevels>::has(l, geometry)) row_of_map[l] = geometry.map_of_region(l, index) * share;
      }
      const auto pixel_at = [&](int k) {
        const int row = whole ? 0 : k / area.columns();
        return (area.top + row) * width + area.left + k - row * area.columns();
      };
      if constexpr (kLast) {
        const int side = own < kClusterThreads ? own : kClusterThreads;
        const int groups = side > 0 ? kClusterThreads / side : 0, group = side > 0 ? thread / side : 0;
        if (group >= groups) continue;
        for (int c = thread % side; c < own; c += side) {
          T scale[capacity] = {}, shift[capacity] = {};
#pragma unroll
          for (int l = 0; l < capacity; ++l) {
            if (!LevelCount<kLevels>::has(l, geometry)) continue;
            scale[l] = memory.scale[row_of_map[l] + c];
            shift[l] = memory.shift[row_of_map[l] + c];
          }
          for (int k = group; k < area.size(); k += groups) {
            const int pixel = pixel_at(k);
            T sum = 0;
#pragma unroll
            for (int l = 0; l < capacity; ++l) {
              if (!LevelCount<kLevels>::has(l, geometry)) continue;
              sum += leaky(memory.centred[l * size + pixel] * scale[l] + shift[l], slope);
            }
            narrow(feature(c, pixel) * residual + sum * factor, y + pixel * geometry.channels + first + c);
          }
        }
      } else {
        for (int segment = 0; segment < area.size(); segment += kSegment) {
          int pixels[kPixelsPerLane];
          T a[capacity][kPixelsPerLane] = {};
#pragma unroll
          for (int j = 0; j < kPixelsPerLane; ++j) {
            const int k = segment + j * kWarp + lane;
            pixels[j] = k < area.size() ? pixel_at(k) : -1;
#pragma unroll
            for (int l = 0; l < capacity; ++l) {
              if (pixels[j] >= 0 && LevelCount<kLevels>::has(l, geometry))
                a[l][j] = memory.centred[l * size + pixels[j]];
            }
          }
          for (int c = warp; c < own; c += kClusterWarps) {
            T sum[kPixelsPerLane] = {};
#pragma unroll
            for (int l = 0; l < capacity; ++l) {
              if (!LevelCount<kLevels>::has(l, geometry)) continue;
              const T scale = memory.scale[row_of_map[l] + c], shift = memory.shift[row_of_map[l] + c];
#pragma unroll
              for (int j = 0; j < kPixelsPerLane; ++j) sum[j] += leaky(a[l][j] * scale + shift, slope);
            }
            S* target = y + static_cast<std::int64_t>(first + c) * size;
#pragma unroll
            for (int j = 0; j < kPixelsPerLane; ++j) {
              if (pixels[j] < 0) continue;
              narrow(feature(c, pixels[j]) * residual + sum[j] * factor, target + pixels[j]);
            }
          }
        }
      }
    }
  }
};

template <typename S, typename T, bool kLast, int kLevels>
__global__ void __launch_bounds__(kClusterThreads, kResidentBlocks<T, kLevels>)
    evaluate_cluster_kernel(EvaluateAtOnce call, int share) {
  REID_OPS_DYNAMIC_SHARED(unsigned char, shared);
  const ClusterBlock<S, T, kLast> block(call, shared, share);
  block.load();
  __syncthreads();
  block.sum_channels();
  block.sum_pixels();
  cluster_sync();  // partial sums and means are there
  block.gather_squeezed();
  __syncthreads();
  block.spatial_graphs();
  block.coefficients();
  cluster_sync();  // nobody reads another block's memory from here on: blocks may end
  block.template excite<kLevels>();
}

}  // namespace
}  // namespace reid_ops::similarity_graph
