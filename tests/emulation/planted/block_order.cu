// Blocks add floating-point numbers up in the order they happen to run; integers do not mind.
#include "planted.h"

namespace {

__global__ void add(float* total, unsigned int* units, bool corrected) {
  const float value = blockIdx.x == 0 ? 16777216.0f : 1.0f;
  if (corrected) {
    atomicAdd(units, static_cast<unsigned int>(value));
  } else {
    atomicAdd(total, value);
  }
}

}  // namespace

PLANTED(block_order) {
  std::vector<float> total(1);
  unsigned int units = 0;
  const cudaError_t error =
      reid_ops::launch(add, dim3(3), dim3(1), 0, nullptr, total.data(), &units, corrected);
  if (corrected) total[0] = static_cast<float>(units);
  return planted::all_equal(error, total, 16777218.0f);
}
