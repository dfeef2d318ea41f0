// Shared memory is read where nobody wrote: the sums count on zeros left there. The first block
// leaves its values behind, so that memory filled once per launch would not do.
#include "planted.h"

namespace {

__global__ void dynamic_sum(float* total, bool corrected) {
  REID_OPS_DYNAMIC_SHARED(float, tile);
  if (corrected || blockIdx.x == 0 || threadIdx.x < 60) tile[threadIdx.x] = 1.0f;
  __syncthreads();
  float sum = 0.0f;
  for (int index = 0; index < 64; ++index) sum += tile[index];
  total[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

template <typename T>
__global__ void static_sum(T* total, bool corrected) {
  __shared__ T tile[64];
  if (corrected || blockIdx.x == 0 || threadIdx.x < 60) tile[threadIdx.x] = T(1);
  __syncthreads();
  T sum = T(0);
  for (int index = 0; index < 64; ++index) sum += tile[index];
  total[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

}  // namespace

PLANTED(unwritten_dynamic_shared) {
  std::vector<float> total(128);
  const cudaError_t error =
      reid_ops::launch(dynamic_sum, dim3(2), dim3(64), 64 * sizeof(float), nullptr, total.data(), corrected);
  return planted::all_equal(error, total, 64.0f);
}

PLANTED(unwritten_static_shared) {
  std::vector<float> total(128);
  const cudaError_t error =
      reid_ops::launch(static_sum<float>, dim3(2), dim3(64), 0, nullptr, total.data(), corrected);
  return planted::all_equal(error, total, 64.0f);
}
