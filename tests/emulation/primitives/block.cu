// Indices, barriers, shared memory, atomics, and the launch itself.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/launch.h"

namespace {

dim3 dim3_of(const unsigned int* sizes) { return {sizes[0], sizes[1], sizes[2]}; }

// Where each thread thinks it is: [blocks * threads, 12].
__global__ void indices(unsigned int* out) {
  const unsigned int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  unsigned int* const row = out + 12 * (block * blockDim.x * blockDim.y * blockDim.z + thread);
  const uint3 values[4] = {threadIdx, blockIdx, blockDim, gridDim};
  for (int index = 0; index < 4; ++index) {
    row[3 * index] = values[index].x;
    row[3 * index + 1] = values[index].y;
    row[3 * index + 2] = values[index].z;
  }
}

// The three counting barriers over changing predicates: [rounds, 3, threads].
__global__ void barriers(const int* predicates, int rounds, int* out) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int round = 0; round < rounds; ++round) {
    const int predicate = predicates[round * threads + thread];
    int* const row = out + 3 * round * threads + thread;
    row[0] = __syncthreads_count(predicate);
    row[threads] = __syncthreads_and(predicate);
    row[2 * threads] = __syncthreads_or(predicate);
  }
}

// Tree sum in static and dynamic shared memory, with warps finishing it by shuffles.
template <typename T>
__global__ void sums(const T* values, T* out) {
  REID_OPS_DYNAMIC_SHARED(T, tile);
  __shared__ T warp_sums[32];
  const unsigned int thread = threadIdx.x;
  tile[thread] = values[blockIdx.x * blockDim.x + thread];
  __syncthreads();
  T sum = tile[blockDim.x - 1 - thread];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffffu, sum, offset);
  if (thread % 32 == 0) warp_sums[thread / 32] = sum;
  __syncthreads();
  if (thread < 32) {
    sum = thread < blockDim.x / 32 ? warp_sums[thread] : T(0);
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (thread == 0) out[blockIdx.x] = sum;
  }
}

// What a thread finds in shared memory before anybody writes: [blocks, 4], 1 where it is the poison.
__global__ void poison(int* out) {
  REID_OPS_DYNAMIC_SHARED(double, dynamic);
  __shared__ float real[16];
  __shared__ __half half[8];
  __shared__ int integer;
  int* const row = out + 4 * blockIdx.x;
  if (threadIdx.x == 0) {
    row[0] = isnan(dynamic[0]) && isnan(dynamic[15]);
    row[1] = isnan(real[0]) && isnan(real[15]);
    row[2] = __hisnan(half[0]) && __hisnan(half[7]);
    row[3] = integer == -1;
  }
  __syncthreads();
  dynamic[threadIdx.x] = 0.0;
  real[threadIdx.x] = 0.0f;
  half[threadIdx.x / 2] = __float2half(0.0f);
  integer = 0;
}

// The order in which (block, thread) pairs come by, before and after a barrier.
__global__ void order(unsigned int* next, unsigned int* before, unsigned int* after) {
  const unsigned int self = blockIdx.x * blockDim.x + threadIdx.x;
  before[self] = atomicAdd(next, 1u);
  __syncthreads();
  after[self] = atomicAdd(next, 1u);
}

template <typename T>
__global__ void common_atomics(const T* values, T* targets) {
  const T value = values[threadIdx.x];
  atomicAdd(&targets[0], value);
  atomicMin(&targets[1], value);
  atomicMax(&targets[2], value);
  atomicAnd(&targets[3], value);
  atomicOr(&targets[4], value);
  atomicXor(&targets[5], value);
  // A chain: what each thread puts in, another takes out; the sum of all is kept.
  atomicAdd(&targets[6], atomicExch(&targets[7], value));
  T seen = targets[8];
  for (T assumed = seen + T(1); assumed != seen;) {
    assumed = seen;
    seen = atomicCAS(&targets[8], assumed, static_cast<T>(assumed + value));
  }
}

template <typename T>
__global__ void add(const T* values, T* target) {
  atomicAdd(target, values[threadIdx.x]);
}

__global__ void subtract_and_count(int* difference, unsigned int* up, unsigned int* down) {
  atomicSub(difference, static_cast<int>(threadIdx.x));
  atomicInc(up, 6u);
  atomicDec(down, 6u);
}

__global__ void two_barriers(float* out) {
  REID_OPS_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  const float value = tile[blockDim.x - 1 - threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = value;
}

__global__ void no_barrier(float* out) { out[threadIdx.x] = static_cast<float>(threadIdx.x); }

__global__ void nothing() {}
__global__ void nothing_else() {}

static_assert(alignof(float4) == 16 && sizeof(float4) == 16, "float4");
static_assert(alignof(float3) == 4 && sizeof(float3) == 12, "float3");
static_assert(alignof(float2) == 8 && alignof(int2) == 8 && alignof(uint4) == 16, "8 and 16 bytes");
static_assert(alignof(uchar4) == 4 && alignof(char2) == 2 && alignof(short4) == 8, "small elements");
static_assert(alignof(double2) == 16 && sizeof(double2) == 16 && alignof(longlong2) == 16, "wide elements");
static_assert(sizeof(__half) == 2 && sizeof(__half2) == 4 && alignof(__half2) == 4, "half");
static_assert(make_float4(1, 2, 3, 4).w == 4, "make_ functions are usable in constants");

}  // namespace

extern "C" {

int run_indices(const unsigned int* grid, const unsigned int* block, unsigned int* out) {
  return reid_ops::launch(indices, dim3_of(grid), dim3_of(block), 0, nullptr, out);
}

int run_barriers(int threads, const int* predicates, int rounds, int* out) {
  return reid_ops::launch(barriers, dim3(1), dim3(static_cast<unsigned int>(threads)), 0, nullptr, predicates,
                          rounds, out);
}

int run_sums(int blocks, int threads, const float* values, float* out) {
  return reid_ops::launch(sums<float>, dim3(static_cast<unsigned int>(blocks)),
                          dim3(static_cast<unsigned int>(threads)),
                          static_cast<std::size_t>(threads) * sizeof(float), nullptr, values, out);
}

int run_poison(int blocks, int* out) {
  return reid_ops::launch(poison, dim3(static_cast<unsigned int>(blocks)), dim3(16), 16 * sizeof(double),
                          nullptr, out);
}

int run_order(int blocks, int threads, unsigned int* next, unsigned int* before, unsigned int* after) {
  return reid_ops::launch(order, dim3(static_cast<unsigned int>(blocks)),
                          dim3(static_cast<unsigned int>(threads)), 0, nullptr, next, before, after);
}

int run_common_atomics(char type, int threads, const void* values, void* targets) {
  const dim3 block(static_cast<unsigned int>(threads));
  if (type == 'i') {
    return reid_ops::launch(common_atomics<int>, dim3(1), block, 0, nullptr, static_cast<const int*>(values),
                            static_cast<int*>(targets));
  }
  if (type == 'I') {
    return reid_ops::launch(common_atomics<unsigned int>, dim3(1), block, 0, nullptr,
                            static_cast<const unsigned int*>(values), static_cast<unsigned int*>(targets));
  }
  return reid_ops::launch(common_atomics<unsigned long long>, dim3(1), block, 0, nullptr,
                          static_cast<const unsigned long long*>(values),
                          static_cast<unsigned long long*>(targets));
}

int run_add(char type, int threads, const void* values, void* target) {
  const dim3 block(static_cast<unsigned int>(threads));
  if (type == 'f') {
    return reid_ops::launch(add<float>, dim3(1), block, 0, nullptr, static_cast<const float*>(values),
                            static_cast<float*>(target));
  }
  if (type == 'd') {
    return reid_ops::launch(add<double>, dim3(1), block, 0, nullptr, static_cast<const double*>(values),
                            static_cast<double*>(target));
  }
  return reid_ops::launch(add<__half>, dim3(1), block, 0, nullptr, static_cast<const __half*>(values),
                          static_cast<__half*>(target));
}

int run_subtract_and_count(int threads, int* difference, unsigned int* up, unsigned int* down) {
  return reid_ops::launch(subtract_and_count, dim3(1), dim3(static_cast<unsigned int>(threads)), 0, nullptr,
                          difference, up, down);
}

int run_many(int launches, int threads, int with_barriers, float* out) {
  for (int index = 0; index < launches; ++index) {
    const cudaError_t error = reid_ops::launch(
        with_barriers ? two_barriers : no_barrier, dim3(1), dim3(static_cast<unsigned int>(threads)),
        static_cast<std::size_t>(threads) * sizeof(float), nullptr, out);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// cudaLaunchKernelEx as it is: reid_ops::launch takes an empty grid and raises the shared memory limit.
int run_launch(const unsigned int* grid, const unsigned int* block, unsigned long long shared_bytes) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3_of(grid);
  config.blockDim = dim3_of(block);
  config.dynamicSmemBytes = shared_bytes;
  return cudaLaunchKernelEx(&config, nothing);
}

int run_launch_raised(unsigned long long shared_bytes) {
  return reid_ops::launch(nothing_else, dim3(1), dim3(1), shared_bytes, nullptr);
}

int run_get_last_error() { return cudaGetLastError(); }
int run_peek_at_last_error() { return cudaPeekAtLastError(); }
int run_device_attribute(int attribute, int* value) {
  return cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), 0);
}
int run_occupancy(int threads, unsigned long long shared_bytes, int* blocks) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, nothing, threads, shared_bytes);
}
const char* run_error_name(int error) { return cudaGetErrorName(static_cast<cudaError_t>(error)); }

}  // extern "C"
