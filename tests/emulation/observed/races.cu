// Kernels with one race each, and their corrected twins. Some give the right result every time.
#include <cuda_runtime.h>

#include <cstring>

#include "common/cluster.h"
#include "common/launch.h"

namespace {

// Threads of a block: a neighbour of another warp reads before a barrier.
__global__ void threads_read_too_early(int* out, bool corrected) {
  __shared__ int tile[64];
  tile[threadIdx.x] = 1;
  if (corrected) __syncthreads();
  out[threadIdx.x] = tile[(threadIdx.x + 32) % 64];
}

// The next round overwrites what another thread may not have read yet; every value is the same.
__global__ void threads_overwrite_too_early(int* out, bool corrected) {
  __shared__ int tile[64];
  int sum = 0;
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = 1;
    __syncthreads();
    sum += tile[63 - threadIdx.x];
    if (corrected) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

// Lanes of a warp: a shuffle makes them meet, but orders no memory.
__global__ void lanes_without_syncwarp(int* out, bool corrected) {
  __shared__ int tile[32];
  tile[threadIdx.x] = static_cast<int>(threadIdx.x);
  const int met = __shfl_xor_sync(0xffffffffu, 1, 1);
  if (corrected) __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1] + met;
}

// Half of the lanes meet, and a lane of the other half reads.
__global__ void lanes_outside_the_mask(int* out, bool corrected) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 1;
  if (corrected) {
    __syncwarp();
  } else if (threadIdx.x < 16) {
    __syncwarp(0x0000ffffu);
  }
  out[threadIdx.x] = tile[31 - threadIdx.x];
}

// Two lanes write the same value to one place.
__global__ void same_value_twice(int* out, bool corrected) {
  if (threadIdx.x < (corrected ? 1 : 2)) out[0] = 7;
}

// Blocks of a launch: each writes one place of the next one's.
__global__ void blocks_write_over(int* out, bool corrected) {
  out[blockIdx.x * 32 + threadIdx.x] = 1;
  if (!corrected && threadIdx.x == 0) out[(blockIdx.x + 1) % gridDim.x * 32] = 1;
}

// Blocks of a launch: one reads what another writes.
__global__ void blocks_read(int* out, bool corrected) {
  out[blockIdx.x] = 1;
  if (!corrected && blockIdx.x == 1) out[64] = out[0];
}

// An atomic on one side only.
__global__ void atomic_against_write(int* out, bool corrected) {
  if (corrected || threadIdx.x > 0) {
    atomicAdd(out, 1);
  } else {
    out[0] = 1;
  }
}

// A cluster: a block reads the next one's shared memory, or ends with the barrier before it is read.
__global__ void cluster_reads_too_early(int* out, bool corrected) {
  __shared__ int value[32];
  const int next = (reid_ops::cluster_rank() + 1) % reid_ops::cluster_blocks();
  value[threadIdx.x] = reid_ops::cluster_rank();
  if (corrected) {
    reid_ops::cluster_sync();
  } else {
    __syncthreads();
  }
  out[blockIdx.x * 32 + threadIdx.x] = *reid_ops::shared_of(value + threadIdx.x, next);
  reid_ops::cluster_sync();
}

// A cluster: a block writes again before the others have read.
__global__ void cluster_overwrites_too_early(int* out, bool corrected) {
  __shared__ int value[32];
  const int next = (reid_ops::cluster_rank() + 1) % reid_ops::cluster_blocks();
  value[threadIdx.x] = 1;
  reid_ops::cluster_sync();
  out[blockIdx.x * 32 + threadIdx.x] = *reid_ops::shared_of(value + threadIdx.x, next);
  if (corrected) reid_ops::cluster_sync();
  value[threadIdx.x] = 1;
  reid_ops::cluster_sync();
}

// No race: bytes of one word, and after each kind of barrier.
__global__ void bytes_of_a_word(unsigned char* out) { out[threadIdx.x] = 1; }

struct Entry {
  const char* name;
  void (*kernel)(int*, bool);
  unsigned int blocks, threads, cluster;
};
constexpr Entry kEntries[] = {
    {"threads_read_too_early", threads_read_too_early, 1, 64, 1},
    {"threads_overwrite_too_early", threads_overwrite_too_early, 1, 64, 1},
    {"lanes_without_syncwarp", lanes_without_syncwarp, 1, 32, 1},
    {"lanes_outside_the_mask", lanes_outside_the_mask, 1, 32, 1},
    {"same_value_twice", same_value_twice, 1, 32, 1},
    {"blocks_write_over", blocks_write_over, 3, 32, 1},
    {"blocks_read", blocks_read, 3, 1, 1},
    {"atomic_against_write", atomic_against_write, 1, 32, 1},
    {"cluster_reads_too_early", cluster_reads_too_early, 4, 32, 2},
    {"cluster_overwrites_too_early", cluster_overwrites_too_early, 4, 32, 2},
};

}  // namespace

extern "C" int run_race(const char* name, int corrected) {
  int out[128] = {};
  for (const Entry& entry : kEntries) {
    if (std::strcmp(entry.name, name) != 0) continue;
    if (entry.cluster > 1) {
      return reid_ops::launch_clusters(entry.kernel, entry.blocks / entry.cluster,
                                       static_cast<int>(entry.cluster), static_cast<int>(entry.threads), 0,
                                       nullptr, out, corrected != 0);
    }
    return reid_ops::launch(entry.kernel, dim3(entry.blocks), dim3(entry.threads), 0, nullptr, out,
                            corrected != 0);
  }
  return cudaErrorInvalidValue;
}

// Two launches of kernels that write the same places: a launch's end orders them.
extern "C" int run_without_race() {
  alignas(4) unsigned char out[64] = {};
  const cudaError_t error = reid_ops::launch(bytes_of_a_word, dim3(1), dim3(64), 0, nullptr, out);
  if (error != cudaSuccess) return error;
  return reid_ops::launch(bytes_of_a_word, dim3(1), dim3(64), 0, nullptr, out);
}
