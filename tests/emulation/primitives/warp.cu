// Every warp primitive, one warp at a time, on lane values chosen by the test.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/launch.h"

namespace {

enum Shuffle { kIndex, kUp, kDown, kXor };

template <typename T>
__global__ void shuffle(int kind, const unsigned int* masks, const T* values, const int* arguments, int width,
                        T* results) {
  const unsigned int lane = threadIdx.x;
  const unsigned int mask = masks[lane];
  const T value = values[lane];
  const int argument = arguments[lane];
  T result = value;
  if (kind == kIndex) result = __shfl_sync(mask, value, argument, width);
  if (kind == kUp) result = __shfl_up_sync(mask, value, static_cast<unsigned int>(argument), width);
  if (kind == kDown) result = __shfl_down_sync(mask, value, static_cast<unsigned int>(argument), width);
  if (kind == kXor) result = __shfl_xor_sync(mask, value, argument, width);
  results[lane] = result;
}

template <typename T>
int run_shuffle(int kind, const unsigned int* masks, const void* values, const int* arguments, int width,
                void* results) {
  return reid_ops::launch(shuffle<T>, dim3(1), dim3(32), 0, nullptr, kind, masks,
                          static_cast<const T*>(values), arguments, width, static_cast<T*>(results));
}

// results: [13, 32]
__global__ void vote(const unsigned int* masks, const unsigned int* values, unsigned int* results) {
  const unsigned int lane = threadIdx.x;
  const unsigned int mask = masks[lane], value = values[lane];
  const int signed_value = static_cast<int>(value);
  int all_equal = 0;
  unsigned int* const out = results + lane;
  out[32 * 0] = __ballot_sync(mask, signed_value);
  out[32 * 1] = static_cast<unsigned int>(__any_sync(mask, signed_value));
  out[32 * 2] = static_cast<unsigned int>(__all_sync(mask, signed_value));
  out[32 * 3] = __match_any_sync(mask, value);
  out[32 * 4] = __match_all_sync(mask, value, &all_equal);
  out[32 * 5] = __reduce_add_sync(mask, value);
  out[32 * 6] = __reduce_min_sync(mask, value);
  out[32 * 7] = __reduce_max_sync(mask, value);
  out[32 * 8] = static_cast<unsigned int>(__reduce_min_sync(mask, signed_value));
  out[32 * 9] = static_cast<unsigned int>(__reduce_max_sync(mask, signed_value));
  out[32 * 10] = __reduce_and_sync(mask, value);
  out[32 * 11] = __reduce_or_sync(mask, value);
  out[32 * 12] = __reduce_xor_sync(mask, value);
  __syncwarp(mask);
}

// Wider values, and -0.0f beside 0.0f.
__global__ void match_wide(const unsigned long long* values, unsigned int* same, unsigned int* same_zero) {
  same[threadIdx.x] = __match_any_sync(0xffffffffu, values[threadIdx.x]);
  same_zero[threadIdx.x] = __match_any_sync(0xffffffffu, threadIdx.x % 2 == 0 ? 0.0f : -0.0f);
}

// Lanes run ahead of one another: each half warp goes its own way, then they meet again.
__global__ void halves(int* results) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int value = lane;
  if (lane < 16) {
    for (int turn = 0; turn < 5; ++turn) value += __shfl_xor_sync(0x0000ffffu, value, 1);
  } else {
    for (int turn = 0; turn < 3; ++turn) value += __shfl_xor_sync(0xffff0000u, value, 2);
  }
  results[threadIdx.x] = __shfl_xor_sync(0xffffffffu, value, 16);
}

// Aggregation over whatever lanes the device says are active: correct for any answer.
__global__ void active_lanes(unsigned int* count) {
  if (threadIdx.x % 3 != 0) return;
  const unsigned int active = __activemask();
  if (static_cast<int>(threadIdx.x % 32) == __ffs(static_cast<int>(active)) - 1) {
    atomicAdd(count, static_cast<unsigned int>(__popc(active)));
  }
}

}  // namespace

extern "C" {

int run_shuffle_by_name(char type, int kind, const unsigned int* masks, const void* values,
                        const int* arguments, int width, void* results) {
  const auto run = type == 'i'   ? run_shuffle<int>
                   : type == 'I' ? run_shuffle<unsigned int>
                   : type == 'q' ? run_shuffle<long long>
                   : type == 'Q' ? run_shuffle<unsigned long long>
                   : type == 'f' ? run_shuffle<float>
                   : type == 'd' ? run_shuffle<double>
                   : type == 'e' ? run_shuffle<__half>
                   : type == 'E' ? run_shuffle<__half2>
                   : type == 'b' ? run_shuffle<__nv_bfloat16>
                                 : run_shuffle<__nv_bfloat162>;
  return run(kind, masks, values, arguments, width, results);
}

int run_vote(const unsigned int* masks, const unsigned int* values, unsigned int* results) {
  return reid_ops::launch(vote, dim3(1), dim3(32), 0, nullptr, masks, values, results);
}

int run_match_wide(const unsigned long long* values, unsigned int* same, unsigned int* same_zero) {
  return reid_ops::launch(match_wide, dim3(1), dim3(32), 0, nullptr, values, same, same_zero);
}

int run_halves(int threads, int* results) {
  return reid_ops::launch(halves, dim3(1), dim3(static_cast<unsigned int>(threads)), 0, nullptr, results);
}

int run_active_lanes(int threads, unsigned int* count) {
  return reid_ops::launch(active_lanes, dim3(1), dim3(static_cast<unsigned int>(threads)), 0, nullptr, count);
}

}  // extern "C"
