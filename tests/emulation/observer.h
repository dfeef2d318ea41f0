// What watches a launch, if anything does: the profiler and the race detector (observe/) are linked into
// libraries that are built to be observed, and into no other.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace reid_ops_emulation {

class BlockRunner;

struct MemoryRange {
  char* begin;
  std::size_t bytes;
  bool contains(std::uintptr_t address) const {
    return address - reinterpret_cast<std::uintptr_t>(begin) < bytes;
  }
};

// One OS thread's share of a launch: its blocks one by one. Of a cluster's blocks one runs at a time.
class BlockObserver {
 public:
  virtual ~BlockObserver() = default;
  virtual void block_begins(std::uint64_t number) = 0;
  virtual void block_ends() = 0;
  virtual void thread_runs(unsigned int thread) = 0;
  virtual void thread_ends(unsigned int thread) = 0;
  // All threads of the block, or of the cluster, have come to a barrier.
  virtual void barrier(bool of_cluster) = 0;
  // Lanes of a warp have met at __syncwarp, which orders their accesses, or at another primitive, which does
  // not.
  virtual void warp_meets(unsigned int warp, unsigned int mask, bool orders) = 0;
  // A thread comes to a barrier or a warp primitive.
  virtual void waits(const void* place) = 0;
};

class LaunchObserver {
 public:
  virtual ~LaunchObserver() = default;
  // `shared`: the block's dynamic and static shared memory. `own_variables`: thread-local ones of the
  // emulation itself, which are not the kernel's.
  virtual std::unique_ptr<BlockObserver> observe(const BlockRunner& runner, MemoryRange dynamic_shared,
                                                 MemoryRange static_shared, MemoryRange own_variables) = 0;
};

// Makes the observer of a launch, or null. Null where nothing to observe with is linked.
using ObserveLaunch = std::unique_ptr<LaunchObserver> (*)(const cudaLaunchConfig_t& config,
                                                          const KernelCall& call,
                                                          unsigned int cluster_blocks);
extern ObserveLaunch observe_launch;

}  // namespace reid_ops_emulation
