// stripe_pool on CUDA: one read of x, one write of its gradient.
//
// A block takes 32 channels of an image. Threads side by side are channels, for then maxima, their
// positions and sums need no exchange between threads, and the results are written in whole sectors; the
// warps share out the stripes. [N,C,H,W] maps come in through a tile in shared memory, read along their
// rows and walked across; [N,H,W,C] maps are walked as they lie.
#include <algorithm>
#include <cmath>

#include "common/cuda_load.h"
#include "common/launch.h"
#include "stripe_pool/kernels.h"

namespace reid_ops::stripe_pool {
namespace {

constexpr int kChannels = 32;  // of a block: a warp's
constexpr int kWarps = 8;
constexpr int kThreads = kChannels * kWarps;
// At least on a multiprocessor: 64 registers a thread, where a compiler left alone takes 40 and spills.
constexpr int kBlocks = 4;
constexpr int kTileBytes = 32 * 1024;

template <typename T>
struct Tile {
  static constexpr int kPositions = kTileBytes / kChannels / static_cast<int>(sizeof(T));
  // One more than a power of two: a warp's channels then lie in different banks.
  static constexpr int kStride = kPositions + 1;
  static constexpr std::size_t kBytes = std::size_t{kChannels} * kStride * sizeof(T);
};

template <typename T>
constexpr std::size_t state_bytes(std::int64_t stripes) {
  return static_cast<std::size_t>(stripes) * kChannels * (2 * sizeof(T) + sizeof(std::int32_t));
}

// What is known of a run of positions of one channel.
template <typename T>
struct Run {
  T maximum, sum;
  std::int32_t where;

  __device__ __forceinline__ void append(T next_maximum, T next_sum, std::int32_t next_where) {
    // Greater, or the first NaN.
    if (!(next_maximum <= maximum) && maximum == maximum) {
      maximum = next_maximum;
      where = next_where;
    }
    sum += next_sum;
  }
};

// A block's runs by stripe and channel, in shared memory.
template <typename T>
struct Runs {
  T *maximum, *sum;
  std::int32_t* where;

  __device__ __forceinline__ Runs(void* memory, std::int64_t stripes)
      : maximum(static_cast<T*>(memory)),
        sum(maximum + stripes * kChannels),
        where(reinterpret_cast<std::int32_t*>(sum + stripes * kChannels)) {}
  __device__ __forceinline__ Run<T> get(int place) const {
    return {maximum[place], sum[place], where[place]};
  }
  __device__ __forceinline__ void set(int place, const Run<T>& run) const {
    maximum[place] = run.maximum, sum[place] = run.sum, where[place] = run.where;
  }
};

struct BlockPlace {
  std::int64_t image, channel;  // the block's first
  int channels, lane, warp;

  __device__ __forceinline__ BlockPlace(const Problem& problem, std::int64_t block)
      : lane(static_cast<int>(threadIdx.x) % kChannels), warp(static_cast<int>(threadIdx.x) / kChannels) {
    const std::int64_t groups = (problem.channels + kChannels - 1) / kChannels;
    image = block / groups;
    channel = block % groups * kChannels;
    const std::int64_t left = problem.channels - channel;
    channels = left < kChannels ? static_cast<int>(left) : kChannels;
  }
};

// Takes in a stripe's positions begin .. end - 1; load(position) gives a channel's value.
template <typename T, typename Load>
__device__ __forceinline__ void take_positions(const Runs<T>& runs, int place, std::int64_t begin,
                                               std::int64_t end, const Load& load) {
  // The sum of a share is added to the stripe's: rounding grows with a share's length, not the stripe's.
  Run<T> run = runs.get(place), share = {run.maximum, T(0), run.where};
#pragma unroll 8
  for (std::int64_t position = begin; position < end; ++position) {
    const T value = load(position);
    share.append(value, value, static_cast<std::int32_t>(position));
  }
  runs.set(place, {share.maximum, run.sum + share.sum, share.where});
}

// From stripes to windows: every warp takes first stripes in turn.
template <typename T>
__device__ __forceinline__ void write_windows(const Forward& call, const BlockPlace& at,
                                              const Runs<T>& runs) {
  if (at.lane >= at.channels) return;
  const Problem& problem = call.problem;
  const std::int64_t row = at.image * problem.windows(), channel = at.channel + at.lane;
  for (std::int64_t first = at.warp; first < problem.stripes; first += kWarps) {
    Run<T> run = runs.get(static_cast<int>(first) * kChannels + at.lane);
    for (std::int64_t length = 1; first + length <= problem.stripes; ++length) {
      if (length > 1) {
        const Run<T> next = runs.get(static_cast<int>(first + length - 1) * kChannels + at.lane);
        run.append(next.maximum, next.sum, next.where);
      }
      const std::int64_t window = row + problem.window(first, length);
      store_as<T>(call.output, 2 * window * problem.channels + channel, problem.type, run.maximum);
      store_as<T>(call.output, (2 * window + 1) * problem.channels + channel, problem.type,
                  run.sum / static_cast<T>(length * problem.stripe_size()));
      if (call.argmax != nullptr) call.argmax[window * problem.channels + channel] = run.where;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) forward_kernel(Forward call, std::int64_t blocks) {
  REID_OPS_DYNAMIC_SHARED(T, shared);
  const Problem& problem = call.problem;
  const Runs<T> runs(shared, problem.stripes);
  // Behind the runs: a multiple of 32 * (2 * sizeof(T) + 4) bytes, so aligned for T.
  T* const tile = reinterpret_cast<T*>(runs.where + problem.stripes * kChannels);
  const std::int64_t size = problem.stripe_size(), positions = problem.positions();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace at(problem, block);
    for (std::int64_t stripe = at.warp; stripe < problem.stripes; stripe += kWarps) {
      runs.set(static_cast<int>(stripe) * kChannels + at.lane,
               {T(-INFINITY), T(0), static_cast<std::int32_t>(stripe * size)});
    }
    if (problem.channels_last) {
      const std::int64_t base = at.image * positions * problem.channels + at.channel + at.lane;
      for (std::int64_t stripe = at.warp; at.lane < at.channels && stripe < problem.stripes;
           stripe += kWarps) {
        for (std::int64_t begin = stripe * size; begin < (stripe + 1) * size; begin += Tile<T>::kPositions) {
          const std::int64_t end = min(begin + Tile<T>::kPositions, (stripe + 1) * size);
          take_positions(runs, static_cast<int>(stripe) * kChannels + at.lane, begin, end,
                         [&](std::int64_t position) {
                           return load_as<T>(call.x, base + position * problem.channels, problem.type);
                         });
        }
      }
    } else {
      const std::int64_t base = (at.image * problem.channels + at.channel) * positions;
      for (std::int64_t begin = 0; begin < positions; begin += Tile<T>::kPositions) {
        const std::int64_t end = min(begin + Tile<T>::kPositions, positions);
        for (int channel = at.warp; channel < at.channels; channel += kWarps) {
#pragma unroll 4
          for (std::int64_t position = begin + at.lane; position < end; position += kChannels) {
            tile[channel * Tile<T>::kStride + static_cast<int>(position - begin)] =
                load_as<T>(call.x, base + channel * positions + position, problem.type);
          }
        }
        __syncthreads();
        for (std::int64_t stripe = begin / size + at.warp; at.lane < at.channels && stripe * size < end;
             stripe += kWarps) {
          take_positions(runs, static_cast<int>(stripe) * kChannels + at.lane, max(begin, stripe * size),
                         min(end, (stripe + 1) * size), [&](std::int64_t position) {
                           return tile[at.lane * Tile<T>::kStride + static_cast<int>(position - begin)];
                         });
        }
        __syncthreads();
      }
    }
    __syncthreads();
    write_windows(call, at, runs);
    __syncthreads();
  }
}

// What a stripe's positions get: `sum` everywhere, at the maximum's position `maximum`.
template <typename T>
__device__ __forceinline__ void share_gradient(const Backward& call, const BlockPlace& at,
                                               const Runs<T>& shares) {
  if (at.lane >= at.channels) return;
  const Problem& problem = call.problem;
  const std::int64_t row = at.image * problem.windows(), channel = at.channel + at.lane;
  for (std::int64_t stripe = at.warp; stripe < problem.stripes; stripe += kWarps) {
    const auto where = [&](std::int64_t window) { return call.argmax[window * problem.channels + channel]; };
    Run<T> share = {T(0), T(0), where(row + problem.window(stripe, 1))};
    for (std::int64_t length = 1; length <= problem.stripes; ++length) {
      const std::int64_t from = max(std::int64_t{0}, stripe - length + 1);
      for (std::int64_t first = from; first <= stripe && first + length <= problem.stripes; ++first) {
        const std::int64_t window = row + problem.window(first, length);
        share.sum +=
            load_as<T>(call.grad_output, (2 * window + 1) * problem.channels + channel, problem.type) /
            static_cast<T>(length * problem.stripe_size());
        if (where(window) == share.where) {
          share.maximum +=
              load_as<T>(call.grad_output, 2 * window * problem.channels + channel, problem.type);
        }
      }
    }
    share.maximum += share.sum;
    shares.set(static_cast<int>(stripe) * kChannels + at.lane, share);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_kernel(Backward call, std::int64_t blocks) {
  REID_OPS_DYNAMIC_SHARED(T, shared);
  const Problem& problem = call.problem;
  const Runs<T> shares(shared, problem.stripes);
  const std::int64_t size = problem.stripe_size(), positions = problem.positions();
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const BlockPlace at(problem, block);
    share_gradient(call, at, shares);
    __syncthreads();
    const auto value = [&](std::int64_t stripe, int channel, std::int64_t position) {
      const Run<T> share = shares.get(static_cast<int>(stripe) * kChannels + channel);
      return position == share.where ? share.maximum : share.sum;
    };
    if (problem.channels_last) {
      const std::int64_t base = at.image * positions * problem.channels + at.channel + at.lane;
      for (std::int64_t stripe = 0; at.lane < at.channels && stripe < problem.stripes; ++stripe) {
        for (std::int64_t position = stripe * size + at.warp; position < (stripe + 1) * size;
             position += kWarps) {
          store_as<T>(call.grad_x, base + position * problem.channels, problem.type,
                      value(stripe, at.lane, position));
        }
      }
    } else {
      const std::int64_t base = (at.image * problem.channels + at.channel) * positions;
      for (int channel = at.warp; channel < at.channels; channel += kWarps) {
        std::int64_t stripe = 0;
        for (std::int64_t position = at.lane; position < positions; position += kChannels) {
          while (position >= (stripe + 1) * size) ++stripe;
          store_as<T>(call.grad_x, base + channel * positions + position, problem.type,
                      value(stripe, channel, position));
        }
      }
    }
    __syncthreads();
  }
}

std::int64_t blocks_of(const Problem& problem) {
  return problem.batch * ((problem.channels + kChannels - 1) / kChannels);
}

dim3 grid_of(std::int64_t blocks) {
  return dim3(static_cast<unsigned>(std::min<std::int64_t>(blocks, 0x7fffffff)));
}

template <typename T>
cudaError_t launch_typed(const Forward& call, cudaStream_t stream) {
  const std::int64_t blocks = blocks_of(call.problem);
  const std::size_t tile = call.problem.channels_last ? 0 : Tile<T>::kBytes;
  return launch(forward_kernel<T>, grid_of(blocks), dim3(kThreads),
                state_bytes<T>(call.problem.stripes) + tile, stream, call, blocks);
}

template <typename T>
cudaError_t launch_typed(const Backward& call, cudaStream_t stream) {
  const std::int64_t blocks = blocks_of(call.problem);
  return launch(backward_kernel<T>, grid_of(blocks), dim3(kThreads), state_bytes<T>(call.problem.stripes),
                stream, call, blocks);
}

}  // namespace

cudaError_t cuda_launch(const Forward& call, cudaStream_t stream) {
  return call.problem.type == DataType::kFloat64 ? launch_typed<double>(call, stream)
                                                 : launch_typed<float>(call, stream);
}

cudaError_t cuda_launch(const Backward& call, cudaStream_t stream) {
  return call.problem.type == DataType::kFloat64 ? launch_typed<double>(call, stream)
                                                 : launch_typed<float>(call, stream);
}

}  // namespace reid_ops::stripe_pool
