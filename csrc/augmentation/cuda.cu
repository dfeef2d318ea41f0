// augmentation on CUDA: one launch. A block copies a strip of one image's rows by table lookups, then
// erases what falls into the strip.
#include <algorithm>

#include "augmentation/kernels.h"
#include "common/launch.h"
#include "polygon_erasing/cuda_region.h"

namespace reid_ops::augmentation {
namespace {

using polygon_erasing::CudaPolygon;
using polygon_erasing::CudaRegion;
using polygon_erasing::element_of;
using polygon_erasing::Fill;
using polygon_erasing::kWarp;
using polygon_erasing::Span;

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocksAtLeast = 5;  // at most 102 registers: no spills from sm_80 to sm_100
constexpr int kStripRows = 48;
constexpr int kTogether = 4;  // consecutive elements that a thread writes at once
constexpr int kChannelsTogether = 3;

template <typename T>
struct alignas(sizeof(T) * kTogether) Four {
  T element[kTogether];
};

// Row y of the output, all channels, by one warp. The loads of three channels are under way together.
template <typename T>
__device__ __forceinline__ void copy_row(const Augment& call, const Geometry& geometry, std::int64_t n, int y,
                                         const T* table, T* output) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int width = static_cast<int>(call.width), channels = static_cast<int>(call.channels);
  const int row = y + geometry.top;
  const bool row_inside = row >= 0 && row < geometry.height;
  const bool in_fours = width % kTogether == 0;  // then every row starts aligned
  const std::uint8_t* const source =
      call.images + n * call.stride[0] + (row_inside ? row : 0) * call.stride[2];
  for (int first = 0; first < channels; first += kChannelsTogether) {
    for (int x = lane * kTogether; x < width; x += kWarp * kTogether) {
      std::uint8_t level[kChannelsTogether][kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        int column = x + k + geometry.left;
        const bool inside = row_inside && column >= 0 && column < geometry.width;
        if (geometry.flip) column = geometry.width - 1 - column;
#pragma unroll
        for (int c = 0; c < kChannelsTogether; ++c) {
          const bool wanted = inside && first + c < channels;
          level[c][k] = wanted ? source[(first + c) * call.stride[1] + column * call.stride[3]] : 0;
        }
      }
#pragma unroll
      for (int c = 0; c < kChannelsTogether; ++c) {
        if (first + c >= channels) break;
        const T* const levels = table + (first + c) * 256;
        T* const target = output + ((first + c) * call.height + y) * call.width + x;
        Four<T> four;
#pragma unroll
        for (int k = 0; k < kTogether; ++k) four.element[k] = levels[level[c][k]];
        if (in_fours) {
          *reinterpret_cast<Four<T>*>(target) = four;
        } else {
#pragma unroll
          for (int k = 0; k < kTogether; ++k) {
            if (x + k < width) target[k] = four.element[k];
          }
        }
      }
    }
  }
}

// What of the region falls into rows first..first+kStripRows-1. A row belongs to the same warp as in the
// copy and for every erasing, and __syncwarp orders a warp's writes.
template <typename T>
__device__ __forceinline__ void erase_strip(const Augment& call, const Erasing& erasing, std::uint64_t seed,
                                            std::int64_t n, std::int64_t first, const T* table,
                                            CudaPolygon& polygon, T* output) {
  if (!erasing.active) return;
  const Draws draws =
      draws_of(erasing.rule, seed, call.seed.read_first_image() + static_cast<std::uint64_t>(n));
  CudaRegion region;
  if (!region.draw(erasing.rule, draws, call.height, call.width, polygon)) return;
  const std::int64_t stride[3] = {call.height * call.width, call.width, 1};
  const FillValues& fill = erasing.values;
  const auto value = [&](std::int64_t channel, int level) {
    if (erasing.rule.fill != Fill::kConstant) return table[channel * 256 + level];
    return element_of<T>(normalized_share(fill.constants[fill.constant_count == 1 ? 0 : channel],
                                          call.mean[channel], call.std[channel]));
  };
  for (std::int64_t row = first + threadIdx.x / kWarp; row < first + kStripRows; row += kWarps) {
    if (row < region.rows.first || row > region.rows.last) continue;
    __syncwarp();
    for (int piece = 0; piece < region.pieces(); ++piece) {
      const Span span = region.span(polygon, row, piece);
      if (span.first > span.last) continue;
      paint(output, call.channels, call.height, call.width, stride, erasing.rule.fill, draws, row, span,
            value);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast)
    augment_kernel(Augment call, std::int64_t strips) {
  __shared__ CudaPolygon polygon;
  REID_OPS_DYNAMIC_SHARED(T, table);  // [channels][256]
  for (int k = static_cast<int>(threadIdx.x); k < 256 * static_cast<int>(call.channels); k += kThreads) {
    table[k] = element_of<T>(normalized_level(k % 256, call.mean[k / 256], call.std[k / 256]));
  }
  __syncthreads();

  const std::uint64_t seed = call.seed.read();
  for (std::int64_t block = blockIdx.x; block < call.count * strips; block += gridDim.x) {
    const std::int64_t n = block / strips, first = block % strips * kStripRows;
    T* const output = static_cast<T*>(call.output) + n * call.channels * call.height * call.width;
    const Geometry geometry = draw_geometry(call, seed, n);
    const std::int64_t end = first + kStripRows < call.height ? first + kStripRows : call.height;
    for (std::int64_t y = first + threadIdx.x / kWarp; y < end; y += kWarps) {
      copy_row(call, geometry, n, static_cast<int>(y), table, output);
    }
#pragma unroll 1  // one copy of the code: fewer registers
    for (int k = 0; k < 2; ++k) {
      erase_strip(call, call.erasings[k], seed, n, first, table, polygon, output);
    }
    __syncthreads();  // the next strip of this loop is drawn into the same shared memory
  }
}

template <typename T>
cudaError_t launch_augment(const Augment& call, cudaStream_t stream) {
  const std::int64_t strips = (call.height + kStripRows - 1) / kStripRows;
  const std::int64_t blocks = std::min<std::int64_t>(call.count * strips, 0x7fffffff);
  const std::size_t shared = 256 * static_cast<std::size_t>(call.channels) * sizeof(T);
  return launch(augment_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), shared, stream, call,
                strips);
}

}  // namespace

cudaError_t cuda_launch(const Augment& call, cudaStream_t stream) {
  switch (call.type) {
    case ElementType::kFloat16:
      return launch_augment<__half>(call, stream);
    case ElementType::kBFloat16:
      return launch_augment<__nv_bfloat16>(call, stream);
    default:
      return launch_augment<float>(call, stream);
  }
}

}  // namespace reid_ops::augmentation
