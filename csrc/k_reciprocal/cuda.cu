// k_reciprocal on CUDA: the launches. A warp works on an item, its 32 lanes on what the item's row holds;
// kernels are in cuda_lists.h, cuda_rows.h and cuda_blend.h.
//
// Deterministic: sums run in a fixed order; the only atomics are integer counters, and nothing depends
// on the order of what they place (a list of `invert` has every row at most once, and the sum of minima
// takes the lists one after another).
#include <algorithm>

#include "k_reciprocal/cuda_blend.h"
#include "k_reciprocal/cuda_common.h"
#include "k_reciprocal/cuda_lists.h"
#include "k_reciprocal/cuda_rows.h"

namespace reid_ops::k_reciprocal {
namespace {

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksAtLeast) zero_kernel(T* data, std::int64_t count) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < count;
       k += step) {
    data[k] = T(0);
  }
}

dim3 blocks_for(std::int64_t threads) {
  return dim3(static_cast<unsigned>(std::min((threads + kThreads - 1) / kThreads, kMostBlocks)));
}
dim3 blocks_for_warps(std::int64_t warps) { return blocks_for(warps * 32); }

template <typename Single, typename Double, typename Call>
cudaError_t launch_as(DataType type, Single* single, Double* twice, dim3 blocks, const Call& call,
                      cudaStream_t stream) {
  if (type == DataType::kFloat64) return launch(twice, blocks, dim3(kThreads), 0, stream, call);
  return launch(single, blocks, dim3(kThreads), 0, stream, call);
}

template <typename T>
cudaError_t zero(T* data, std::int64_t count, cudaStream_t stream) {
  return launch(zero_kernel<T>, blocks_for(count), dim3(kThreads), 0, stream, data, count);
}

template <typename T>
cudaError_t launch_blend(const Blend& call, cudaStream_t stream) {
  cudaError_t error = zero(static_cast<T*>(call.scratch), call.block.rows * call.block.columns, stream);
  if (error != cudaSuccess) return error;
  error = launch(overlap_kernel<T>, blocks_for_warps(call.block.rows), dim3(kThreads), 0, stream, call);
  if (error != cudaSuccess) return error;
  dim3 blocks = blocks_for(call.block.columns);
  blocks.y = static_cast<unsigned>(std::min<std::int64_t>(call.block.rows, 65535));
  return launch(blend_kernel<T>, blocks, dim3(kThreads), 0, stream, call);
}

}  // namespace

cudaError_t cuda_launch(const Nearest& call, cudaStream_t stream) {
  return launch_as(call.type, nearest_kernel<float>, nearest_kernel<double>, blocks_for_warps(call.items()),
                   call, stream);
}
cudaError_t cuda_launch(const ReverseRanks& call, cudaStream_t stream) {
  return launch(reverse_ranks_kernel, blocks_for(call.lists.items * call.lists.length), dim3(kThreads), 0,
                stream, call);
}
cudaError_t cuda_launch(const Sets& call, cudaStream_t stream) {
  return launch(sets_kernel, blocks_for_warps(call.scratch_rows), dim3(kThreads), 0, stream, call);
}
cudaError_t cuda_launch(const PairDistances& call, cudaStream_t stream) {
  return launch_as(call.type, pair_distances_kernel<float>, pair_distances_kernel<double>,
                   blocks_for_warps(call.items), call, stream);
}
cudaError_t cuda_launch(const Encode& call, cudaStream_t stream) {
  return launch_as(call.type, encode_kernel<float>, encode_kernel<double>, blocks_for_warps(call.items), call,
                   stream);
}
cudaError_t cuda_launch(const Expand& call, cudaStream_t stream) {
  return launch_as(call.type, expand_kernel<float>, expand_kernel<double>, blocks_for_warps(call.lists.items),
                   call, stream);
}
cudaError_t cuda_launch(const Invert& call, cudaStream_t stream) {
  const cudaError_t error = zero(call.sizes, call.items, stream);
  if (error != cudaSuccess || call.first_row >= call.items) return error;
  return launch_as(call.type, invert_kernel<float>, invert_kernel<double>,
                   blocks_for_warps(call.items - call.first_row), call, stream);
}
cudaError_t cuda_launch(const Blend& call, cudaStream_t stream) {
  return call.type == DataType::kFloat64 ? launch_blend<double>(call, stream)
                                         : launch_blend<float>(call, stream);
}

}  // namespace reid_ops::k_reciprocal
