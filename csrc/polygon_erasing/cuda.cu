// polygon_erasing on CUDA: one launch a batch, only erased elements are written.
#include <algorithm>

#include "common/launch.h"
#include "polygon_erasing/cuda_region.h"
#include "polygon_erasing/kernels.h"

namespace reid_ops::polygon_erasing {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRowsPerWarp = 16;  // an image is cut into strips of 64 rows: enough blocks for small batches

// Every block finds its image's polygon for itself: that takes less time than a second launch.
template <typename T>
__global__ void __launch_bounds__(kThreads) erase_kernel(Erase call, std::int64_t strips) {
  __shared__ CudaPolygon polygon;
  const Images& images = call.images;
  const std::int64_t stride[3] = {images.stride[1], images.stride[2], images.stride[3]};
  const std::uint64_t seed = call.seed.read();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto value = [&](std::int64_t channel, int level) {
    if (call.rule.fill != Fill::kConstant) {
      return element_of<T>(value_of_level(level, call.values.low, call.values.span));
    }
    return element_of<T>(call.values.constants[call.values.constant_count == 1 ? 0 : channel]);
  };

  for (std::int64_t block = blockIdx.x; block < images.count * strips; block += gridDim.x) {
    const std::int64_t n = block / strips, strip = block % strips;
    const Draws draws =
        draws_of(call.rule, seed, call.seed.read_first_image() + static_cast<std::uint64_t>(n));
    CudaRegion region;
    const bool erase = region.draw(call.rule, draws, images.height, images.width, polygon);
    if (strip == 0 && threadIdx.x == 0 && call.attempts != nullptr) call.attempts[n] = region.box.attempts;
    if (erase) {
      // Warps take the region's rows in turn, and strips as well, however small the region is.
      for (std::int64_t row = region.rows.first + strip * kWarps + warp; row <= region.rows.last;
           row += strips * kWarps) {
        for (int piece = 0; piece < region.pieces(); ++piece) {
          const Span span = region.span(polygon, row, piece);
          if (span.first > span.last) continue;
          paint(static_cast<T*>(images.data) + n * images.stride[0], images.channels, images.height,
                images.width, stride, call.rule.fill, draws, row, span, value);
          if (call.mask != nullptr) {
            bool* const mask = call.mask + (n * images.height + row) * images.width;
            // race: a star's triangles overlap, and all of its lanes write the same
            for (int column = span.first + lane; column <= span.last; column += kWarp) mask[column] = true;
          }
        }
      }
    }
    __syncthreads();  // the next image of this loop is drawn into the same shared memory
  }
}

template <typename T>
cudaError_t launch_erase(const Erase& call, cudaStream_t stream) {
  const std::int64_t rows = kWarps * kRowsPerWarp;
  const std::int64_t strips = (call.images.height + rows - 1) / rows;
  const std::int64_t blocks = std::min<std::int64_t>(call.images.count * strips, 0x7fffffff);
  return launch(erase_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, call,
                strips);
}

}  // namespace

cudaError_t cuda_launch(const Erase& call, cudaStream_t stream) {
  switch (call.images.type) {
    case ElementType::kUInt8:
      return launch_erase<std::uint8_t>(call, stream);
    case ElementType::kFloat32:
      return launch_erase<float>(call, stream);
    case ElementType::kFloat64:
      return launch_erase<double>(call, stream);
    case ElementType::kFloat16:
      return launch_erase<__half>(call, stream);
    default:
      return launch_erase<__nv_bfloat16>(call, stream);
  }
}

}  // namespace reid_ops::polygon_erasing
