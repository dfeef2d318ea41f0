// The blocks of a cluster, an OS thread each. One runs at a time, until it comes to a barrier of the
// cluster or to its end; then the next one in the schedule's order. So what a block reads from another's
// shared memory without a barrier is not there yet, whatever the machine does.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

#include "block.h"

namespace reid_ops_emulation {

class Cluster {
 public:
  struct Range {
    char* begin;
    std::size_t bytes;
  };
  struct SharedMemory {
    Range fixed, dynamic;
  };

  // `order`: the blocks' numbers in the order they run.
  explicit Cluster(std::vector<unsigned int> order);

  unsigned int blocks() const { return static_cast<unsigned int>(order_.size()); }
  // A block begins; returns when it is its turn. All blocks of the cluster before have ended by then.
  void enter(unsigned int block, const SharedMemory& shared);
  // All threads of a block have come to the cluster's barrier; false if it can never open.
  bool sync(unsigned int block);
  void leave(unsigned int block, const Fault& fault);
  // An address of `block`'s shared memory in that of `other`; null if it is none or `other` has ended.
  void* shared_of(unsigned int block, const void* address, unsigned int other);
  // What ended the cluster first, if anything did.
  Fault fault();

 private:
  enum class State { kOutside, kReady, kWaits };

  void next();  // chooses whose turn it is

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::vector<unsigned int> order_;
  std::vector<State> states_;
  std::vector<SharedMemory> shared_;
  unsigned int inside_ = 0, entered_ = 0, turn_ = ~0u;
  bool broken_ = false;
  Fault fault_;
};

}  // namespace reid_ops_emulation
