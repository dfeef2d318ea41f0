// Who am I, barriers over the block, and the launch.
#pragma once

#include <tuple>
#include <utility>

#include "emulation/runtime_api.h"
#include "emulation/vector_types.h"

// Who the running device thread is. The scheduler sets these whenever it changes fibers. They start
// with values other than zero to lie in .tdata: .tbss is static shared memory, see qualifiers.h.
extern __thread uint3 threadIdx;
extern __thread uint3 blockIdx;
extern __thread dim3 blockDim;
extern __thread dim3 gridDim;
constexpr int warpSize = 32;

namespace reid_ops_emulation {

struct Running {
  void* dynamic_shared;
  struct BlockRunner* runner;  // null outside of a launch
  class Cluster* cluster;      // null for a launch without clusters
  unsigned int cluster_rank;
  class BlockObserver* observer;  // null where nothing watches (observer.h)
  unsigned int marker;            // not zero, as above
};
extern __thread Running running;

inline void* dynamic_shared_memory() { return running.dynamic_shared; }

// The launch's fault as one line, or "" when this OS thread has seen none since the last clear.
const char* last_fault();
void clear_last_fault();

enum class Barrier { kSyncThreads, kSyncThreadsAnd, kSyncThreadsOr, kSyncThreadsCount, kSyncCluster };
int block_barrier(Barrier kind, int predicate);

// The cluster's blocks: what common/cluster.h makes of it. Without clusters, a block is one of its own.
unsigned int cluster_rank();
unsigned int cluster_blocks();
void* shared_of(void* address, unsigned int rank);
long long cluster_launches();  // so far, of the whole process

// Ends the launch with a fault in the name of the calling device thread.
[[noreturn]] void device_trap(const char* what);

// A kernel with its arguments, type-erased: `invoke(call)` runs one device thread.
struct KernelCall {
  void (*invoke)(const KernelCall& call);
  const void* kernel;
  const void* arguments;
  std::size_t argument_bytes;
};
cudaError_t launch(const cudaLaunchConfig_t& config, const KernelCall& call);

}  // namespace reid_ops_emulation

inline void __syncthreads() {
  reid_ops_emulation::block_barrier(reid_ops_emulation::Barrier::kSyncThreads, 0);
}
inline int __syncthreads_and(int predicate) {
  return reid_ops_emulation::block_barrier(reid_ops_emulation::Barrier::kSyncThreadsAnd, predicate);
}
inline int __syncthreads_or(int predicate) {
  return reid_ops_emulation::block_barrier(reid_ops_emulation::Barrier::kSyncThreadsOr, predicate);
}
inline int __syncthreads_count(int predicate) {
  return reid_ops_emulation::block_barrier(reid_ops_emulation::Barrier::kSyncThreadsCount, predicate);
}
[[noreturn]] inline void __trap() { reid_ops_emulation::device_trap("__trap() was called"); }

// Device threads of one launch share an OS thread, so ordering is only for launches side by side.
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  using Packed = std::tuple<Parameters...>;
  const Packed packed(std::forward<Arguments>(arguments)...);
  reid_ops_emulation::KernelCall call;
  call.kernel = reinterpret_cast<const void*>(kernel);
  call.arguments = &packed;
  call.argument_bytes = sizeof(packed);
  call.invoke = [](const reid_ops_emulation::KernelCall& self) {
    // Every device thread gets its own copy of the parameters, as on the device.
    std::apply(reinterpret_cast<void (*)(Parameters...)>(const_cast<void*>(self.kernel)),
               *static_cast<const Packed*>(self.arguments));
  };
  return reid_ops_emulation::launch(*config, call);
}
