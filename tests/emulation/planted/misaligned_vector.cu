// A float4 is loaded from an address that is a multiple of 4 only.
#include "planted.h"

namespace {

__global__ void load(const float* values, float* out) {
  const float4 four = *reinterpret_cast<const float4*>(values);
  *out = four.x + four.y + four.z + four.w;
}

}  // namespace

PLANTED(misaligned_vector) {
  alignas(16) static const float values[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  std::vector<float> out(1);
  const cudaError_t error =
      reid_ops::launch(load, dim3(1), dim3(1), 0, nullptr, values + (corrected ? 4 : 1), out.data());
  return planted::all_equal(error, out, 4.0f);
}
