// One element too many: in dynamic shared memory, in static shared memory, in global memory.
#include "planted.h"

namespace {

__global__ void write_dynamic(int last) {
  REID_OPS_DYNAMIC_SHARED(float, tile);
  if (threadIdx.x == 0) tile[last] = 1.0f;
}

__global__ void read_dynamic(float* out, int last) {
  REID_OPS_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) *out = tile[last];
}

__global__ void write_static(float* out, int last) {
  __shared__ float tile[32];
  tile[last] = 1.0f;
  __syncthreads();
  *out = tile[31];
}

__global__ void write_global(float* out, int last) {
  if (threadIdx.x == 0) out[last] = 1.0f;
}

}  // namespace

PLANTED(dynamic_shared_write_overrun) {
  return reid_ops::launch(write_dynamic, dim3(1), dim3(32), 100, nullptr, corrected ? 24 : 25);
}

PLANTED(dynamic_shared_read_overrun) {
  std::vector<float> out(1);
  const cudaError_t error =
      reid_ops::launch(read_dynamic, dim3(1), dim3(25), 100, nullptr, out.data(), corrected ? 24 : 25);
  return planted::all_equal(error, out, 1.0f);
}

PLANTED(static_shared_overrun) {
  std::vector<float> out(1);
  return reid_ops::launch(write_static, dim3(1), dim3(32), 0, nullptr, out.data(), corrected ? 31 : 32);
}

PLANTED(global_overrun) {
  std::vector<float> out(10);
  return reid_ops::launch(write_global, dim3(1), dim3(32), 0, nullptr, out.data(), corrected ? 9 : 10);
}
