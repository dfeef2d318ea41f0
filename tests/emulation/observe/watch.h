// A launch under observation, and one OS thread's share of it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../block.h"
#include "../observer.h"
#include "profile.h"
#include "races.h"
#include "sites.h"

namespace reid_ops_emulation {

struct LaunchFacts {
  std::uintptr_t kernel;
  dim3 grid, block;
  std::size_t dynamic_shared;
  unsigned int cluster_blocks;
};

class LaunchWatch final : public LaunchObserver {
 public:
  LaunchWatch(const LaunchFacts& launch, const KernelCall& call, bool profile, bool races)
      : facts(launch), profiles(profile), detects(races), call_(call) {}
  ~LaunchWatch() override;

  std::unique_ptr<BlockObserver> observe(const BlockRunner& runner, MemoryRange dynamic_shared,
                                         MemoryRange static_shared, MemoryRange own_variables) override;
  // Whether the address is some block's shared memory.
  bool is_shared(std::uintptr_t address) const;
  // Whether the address lies in the kernel's arguments, which are no memory of the device.
  bool is_argument(std::uintptr_t address) const {
    return address - reinterpret_cast<std::uintptr_t>(call_.arguments) < call_.argument_bytes;
  }

  const LaunchFacts facts;
  const bool profiles, detects;
  SiteTable table;
  TouchedBytes touched;
  Shadow shadow;

 private:
  const KernelCall call_;
  std::mutex mutex_;  // a cluster's OS threads announce themselves side by side
  std::vector<MemoryRange> shared_;
};

class BlockWatch final : public BlockObserver {
 public:
  BlockWatch(LaunchWatch& launch, const BlockRunner& runner, MemoryRange own_variables)
      : launch_(launch), runner_(runner), own_variables_(own_variables), requests_(launch.table) {}

  void block_begins(std::uint64_t number) override;
  void block_ends() override;
  void thread_runs(unsigned int thread) override { thread_ = thread; }
  void thread_ends(unsigned int thread) override;
  void barrier(bool of_cluster) override;
  void warp_meets(unsigned int warp, unsigned int mask, bool orders) override;
  void waits(const void* place) override;

  void access(std::uintptr_t address, unsigned int size, Kind kind, const void* place);

 private:
  void race(const Access& before, bool before_writes, Kind kind, const Access& now, Space space);

  LaunchWatch& launch_;
  const BlockRunner& runner_;
  const MemoryRange own_variables_;
  RequestCollector requests_;
  BlockClocks clocks_;
  std::uint64_t number_ = 0;
  unsigned int thread_ = 0;
  std::vector<unsigned int> running_;  // threads of each warp that have not ended
};

// One end of a race, and races found so far, counted by where they are; a launch's profile (report.cpp).
struct RaceEnd {
  std::uintptr_t place;
  bool write;
  std::uint32_t block;
  unsigned int thread;
};
void keep_race(const LaunchFacts& launch, const RaceEnd& before, const RaceEnd& now, Space space);
struct Tensor {
  int argument;  // the 8-byte word of the kernel's arguments that points to it; -1: none does
  TouchedBytes::Totals totals;
};
void keep_profile(const LaunchFacts& launch, const std::vector<Site>& sites,
                  const std::vector<Tensor>& tensors);

}  // namespace reid_ops_emulation
