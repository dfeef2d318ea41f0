// A full-warp reduction after some lanes have left.
#include "planted.h"

namespace {

__global__ void reduce(float* total, unsigned int count, bool corrected) {
  if (!corrected && threadIdx.x >= count) return;
  float value = threadIdx.x < count ? 1.0f : 0.0f;
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  if (threadIdx.x == 0) *total = value;
}

}  // namespace

PLANTED(shuffle_exited_lane) {
  std::vector<float> total(1);
  const cudaError_t error =
      reid_ops::launch(reduce, dim3(1), dim3(32), 0, nullptr, total.data(), 20u, corrected);
  return planted::all_equal(error, total, 20.0f);
}
