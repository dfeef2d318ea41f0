// One block at a time: its threads as fibers, its barriers and its warps.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"

namespace reid_ops_emulation {

// In which order a block's threads are started and resumed, and the blocks run. Results must not
// depend on it. REID_OPS_EMULATION_SCHEDULE=forward|reverse|shuffled[:seed].
struct Schedule {
  enum class Order { kForward, kReverse, kShuffled };
  Order order = Order::kForward;
  std::uint64_t seed = 0;

  static Schedule from_environment();
};

struct Fault {
  cudaError_t error = cudaSuccess;
  std::string message;
};

// Runs blocks on the calling OS thread; keeps fibers and tables from launch to launch.
struct BlockRunner {
  BlockRunner();

  // Prepares for blocks of this shape.
  void configure(const KernelCall& call, uint3 block_dimensions, const Schedule& schedule);
  // Runs one block to its end. `block_number` only varies the shuffled schedule.
  Fault run(uint3 block_index, std::uint64_t block_number);

  int barrier(Barrier kind, int predicate);
  std::uint64_t collective(Collective kind, unsigned int mask, std::uint64_t value, unsigned int argument,
                           int width);
  unsigned int lane() const { return current_ % 32; }
  unsigned int threads() const { return thread_count_; }
  uint3 block_index() const { return block_index_; }
  // Whether the address is on the stack of the device thread that runs.
  bool on_stack(const void* address) const { return running_->contains(address); }
  [[noreturn]] void fault(std::string&& what);

 private:
  struct Lane {
    Collective kind;
    unsigned int mask;
    unsigned int argument;
    int width;
    std::uint64_t value;
    std::uint64_t result;
  };
  struct Warp {
    unsigned int present;  // lanes the block has
    unsigned int exited;
    unsigned int waiting;  // lanes inside a collective
    Lane lanes[32];
  };

  static void fiber_main(void* self);
  Fiber& idle_fiber();
  void suspend();  // the current thread waits until it is made ready
  bool take_ready(unsigned int* thread);
  void make_ready(unsigned int thread) { ready_[ready_end_++ % ready_.size()] = thread; }
  void set_current(unsigned int thread);
  void thread_exits();
  void release_block();
  void release_warp(unsigned int warp, unsigned int mask);
  std::uint64_t collective_result(const Warp& warp, unsigned int lane) const;
  unsigned int shuffle_source(const Warp& warp, unsigned int lane) const;
  void check_mask(unsigned int mask);
  Fault deadlock() const;
  std::string thread_name(unsigned int thread) const;
  std::string whereabouts(unsigned int thread) const;

  KernelCall call_ = {};
  uint3 block_index_ = {};
  uint3 block_dimensions_ = {};
  Schedule schedule_;
  std::mt19937_64 random_;

  unsigned int thread_count_ = 0;
  unsigned int current_ = 0;
  unsigned int next_start_ = 0;  // position in order_ of the next thread to start
  unsigned int exited_ = 0;
  std::vector<unsigned int> order_;  // thread numbers in the order they are started
  std::vector<uint3> thread_index_;  // by thread number
  std::vector<Fiber*> fiber_of_;     // by thread number: where it waits
  std::vector<unsigned int> ready_;  // ring buffer, each thread at most once
  std::uint64_t ready_begin_ = 0, ready_end_ = 0;
  std::vector<Warp> warps_;
  std::vector<unsigned char> at_barrier_;  // by thread number

  Barrier barrier_kind_ = Barrier::kSyncThreads;
  unsigned int barrier_waiting_ = 0;
  int barrier_count_ = 0;  // predicates that were true
  int barrier_result_ = 0;

  Fiber main_fiber_;
  Fiber* running_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_fibers_;
  Fault fault_;
};

const char* name_of(Barrier kind);
const char* name_of(Collective kind);

}  // namespace reid_ops_emulation
