// Threads beyond the input leave before the barrier that the others wait at.
#include "planted.h"

namespace {

__global__ void sum(const float* values, float* total, int count, bool corrected) {
  REID_OPS_DYNAMIC_SHARED(float, tile);
  const int thread = static_cast<int>(threadIdx.x);
  if (!corrected && thread >= count) return;
  tile[thread] = thread < count ? values[thread] : 0.0f;
  __syncthreads();
  if (thread != 0) return;
  float result = 0.0f;
  for (int index = 0; index < count; ++index) result += tile[index];
  *total = result;
}

}  // namespace

PLANTED(barrier_after_exit) {
  const std::vector<float> values(100, 1.0f);
  std::vector<float> total(1);
  const cudaError_t error = reid_ops::launch(sum, dim3(1), dim3(128), 128 * sizeof(float), nullptr,
                                             values.data(), total.data(), 100, corrected);
  return planted::all_equal(error, total, 100.0f);
}
