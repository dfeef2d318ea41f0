// The block's last warp has 16 lanes, the mask names 32.
#include "planted.h"

namespace {

__global__ void reduce(float* total, bool corrected) {
  const unsigned int mask = corrected && threadIdx.x >= 32 ? 0xffffu : 0xffffffffu;
  float value = 1.0f;
  for (int offset = 8; offset > 0; offset /= 2) value += __shfl_down_sync(mask, value, offset, 16);
  if (threadIdx.x % 16 == 0) total[threadIdx.x / 16] = value;
}

}  // namespace

PLANTED(shuffle_beyond_block) {
  std::vector<float> total(3);
  const cudaError_t error = reid_ops::launch(reduce, dim3(1), dim3(48), 0, nullptr, total.data(), corrected);
  return planted::all_equal(error, total, 16.0f);
}
