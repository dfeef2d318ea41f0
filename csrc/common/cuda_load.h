// Loads and stores that CUDA kernels share: any storage type to the computing type, and 16-byte rows.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "common/data_type.h"

namespace reid_ops {

// Element `index` of a tensor of run-time type, as T. The type is the same for a whole launch, so the
// branch never diverges; it spares a copy of every kernel per storage type.
template <typename T>
__device__ __forceinline__ T load_as(const void* data, std::int64_t index, DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return static_cast<T>(static_cast<const float*>(data)[index]);
    case DataType::kFloat64:
      return static_cast<T>(static_cast<const double*>(data)[index]);
    case DataType::kFloat16:
      return static_cast<T>(__half2float(static_cast<const __half*>(data)[index]));
    default:
      return static_cast<T>(__bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]));
  }
}

template <typename T>
__device__ __forceinline__ void store_as(void* data, std::int64_t index, DataType type, T value) {
  switch (type) {
    case DataType::kFloat32:
      static_cast<float*>(data)[index] = static_cast<float>(value);
      break;
    case DataType::kFloat64:
      static_cast<double*>(data)[index] = static_cast<double>(value);
      break;
    case DataType::kFloat16:
      static_cast<__half*>(data)[index] = __float2half_rn(static_cast<float>(value));
      break;
    default:
      static_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16_rn(static_cast<float>(value));
      break;
  }
}

// Four consecutive elements from a 16-byte aligned address, in 16-byte loads.
__device__ __forceinline__ void load_four(const float* source, float* destination) {
  const float4 value = *reinterpret_cast<const float4*>(source);
  destination[0] = value.x, destination[1] = value.y, destination[2] = value.z, destination[3] = value.w;
}

__device__ __forceinline__ void load_four(const double* source, double* destination) {
  const double2 low = reinterpret_cast<const double2*>(source)[0];
  const double2 high = reinterpret_cast<const double2*>(source)[1];
  destination[0] = low.x, destination[1] = low.y, destination[2] = high.x, destination[3] = high.y;
}

// How a block's threads walk a rectangle without divisions: 2^shift threads side by side along the
// columns, the others down the rows.
struct ThreadRows {
  int column, row, column_step, row_step;

  __device__ __forceinline__ explicit ThreadRows(int columns) {
    int shift = 0;
    while (shift < 5 && (1 << shift) < columns) ++shift;
    column_step = 1 << shift;
    column = static_cast<int>(threadIdx.x) & (column_step - 1);
    row = static_cast<int>(threadIdx.x) >> shift;
    row_step = static_cast<int>(blockDim.x) >> shift;
  }
};

}  // namespace reid_ops
