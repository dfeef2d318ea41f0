// A neighbour's value is read without waiting for it. Which neighbours have written by then depends
// on the order of the threads, so both directions are summed: some schedule shows it.
#include "planted.h"

namespace {

// The tile is written beforehand, so that poison does not give the mistake away.
__global__ void shift(float* out, int distance, bool corrected) {
  REID_OPS_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x] = 0.0f;
  __syncthreads();
  tile[threadIdx.x] = 1.0f;
  if (corrected) __syncthreads();
  const int neighbour = static_cast<int>(threadIdx.x) + distance;
  out[threadIdx.x] = neighbour < 0 || neighbour > 63 ? 1.0f : tile[neighbour];
}

cudaError_t run(int distance, bool corrected) {
  std::vector<float> out(64);
  const cudaError_t error = reid_ops::launch(shift, dim3(1), dim3(64), 64 * sizeof(float), nullptr,
                                             out.data(), distance, corrected);
  return planted::all_equal(error, out, 1.0f);
}

}  // namespace

PLANTED(missing_barrier_to_the_left) { return run(-1, corrected); }
PLANTED(missing_barrier_to_the_right) { return run(1, corrected); }
