// Access patterns whose sectors, bank passes and bytes checks/test_observed.py counts by hand.
#include <cuda_runtime.h>

#include <cstdint>

#include "common/launch.h"

namespace {

// One warp; `in` and `out` begin at a multiple of 256 bytes.
__global__ void global_patterns(const float* in, float* out, int* counter) {
  const int lane = static_cast<int>(threadIdx.x);
  float sum = in[lane];                                     // together
  sum += in[lane * 8];                                      // a sector each
  sum += in[lane + 1];                                      // together, a sector too many
  sum += in[0];                                             // one for all
  sum += reinterpret_cast<const float4*>(in)[lane].y;       // four floats a lane
  sum += reinterpret_cast<const unsigned char*>(in)[lane];  // bytes
  if (lane < 8) sum += in[lane + 64];                       // eight lanes
  out[lane] = sum;                                          // together
  atomicAdd(counter, 1);                                    // one for all
}

// One warp; every access of four or 16 bytes.
__global__ void shared_patterns(float* out) {
  __shared__ __align__(16) float tile[32 * 33];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 32 * 33; i += 32) tile[i] = 1.0f;  // 33 rows
  __syncthreads();
  float sum = tile[lane * 2];                                       // two lanes a bank
  sum += tile[lane * 32];                                           // all in one bank
  sum += tile[lane * 33];                                           // none in another's
  sum += tile[5];                                                   // one for all
  const float4 each = reinterpret_cast<const float4*>(tile)[lane];  // quarter by quarter
  const float4 same = reinterpret_cast<const float4*>(tile)[3];     // 16 bytes for all
  out[lane] = sum + each.x + same.w;
}

// Two blocks of two warps read `in` of 128 floats once each, and a quarter of it twice more; half is written.
__global__ void bytes(const float* in, float* out) {
  const unsigned int i = blockIdx.x * 64 + threadIdx.x;
  float sum = in[i];
  for (unsigned int again = 0; again < 2; ++again) sum += in[(threadIdx.x + again) % 32];
  if (i < 64 || sum < 0) out[i] = sum;
}

}  // namespace

extern "C" int run_global_patterns(const float* in, float* out, int* counter) {
  return reid_ops::launch(global_patterns, dim3(1), dim3(32), 0, nullptr, in, out, counter);
}
extern "C" int run_shared_patterns(float* out) {
  return reid_ops::launch(shared_patterns, dim3(1), dim3(32), 0, nullptr, out);
}
extern "C" int run_bytes(const float* in, float* out) {
  return reid_ops::launch(bytes, dim3(2), dim3(64), 0, nullptr, in, out);
}
