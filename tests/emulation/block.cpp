#include "block.h"

#include "cluster.h"
#include "observer.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace reid_ops_emulation {

BlockRunner::BlockRunner() { idle_fibers_.reserve(1024); }

void BlockRunner::configure(const KernelCall& call, uint3 block_dimensions, const Schedule& schedule) {
  call_ = call;
  schedule_ = schedule;
  const bool same_shape = block_dimensions.x == block_dimensions_.x &&
                          block_dimensions.y == block_dimensions_.y &&
                          block_dimensions.z == block_dimensions_.z;
  if (!same_shape) {
    block_dimensions_ = block_dimensions;
    thread_count_ = block_dimensions.x * block_dimensions.y * block_dimensions.z;
    order_.resize(thread_count_);
    thread_index_.clear();
    for (unsigned int z = 0; z < block_dimensions.z; ++z) {
      for (unsigned int y = 0; y < block_dimensions.y; ++y) {
        for (unsigned int x = 0; x < block_dimensions.x; ++x) thread_index_.push_back({x, y, z});
      }
    }
    fiber_of_.resize(thread_count_);
    ready_.resize(thread_count_);
    at_barrier_.resize(thread_count_);
    warps_.resize((thread_count_ + 31) / 32);
    for (std::size_t warp = 0; warp < warps_.size(); ++warp) {
      const unsigned int lanes = std::min(32u, thread_count_ - 32u * static_cast<unsigned int>(warp));
      warps_[warp].present = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1u;
    }
  }
  for (unsigned int position = 0; position < thread_count_; ++position) {
    order_[position] = schedule.order == Schedule::Order::kReverse ? thread_count_ - 1 - position : position;
  }
}

Fault BlockRunner::run(uint3 block_index, std::uint64_t block_number) {
  block_index_ = block_index;
  if (schedule_.order == Schedule::Order::kShuffled) {
    random_.seed(schedule_.seed * 0x9e3779b97f4a7c15u + block_number);
    std::shuffle(order_.begin(), order_.end(), random_);
  }
  next_start_ = exited_ = 0;
  ready_begin_ = ready_end_ = 0;
  barrier_waiting_ = 0;
  barrier_count_ = 0;
  std::fill(at_barrier_.begin(), at_barrier_.end(), static_cast<unsigned char>(0));
  for (Warp& warp : warps_) warp.exited = warp.waiting = 0;
  fault_ = {};

  Fiber& first = idle_fiber();
  running_ = &first;
  Fiber::switch_between(main_fiber_, first);

  // Back here: every thread has exited, or none can go on, or one has faulted.
  if (fault_.error == cudaSuccess && exited_ < thread_count_) fault_ = deadlock();
  if (fault_.error != cudaSuccess) {
    // Fibers that are not idle stand in the middle of the kernel and will never be resumed.
    idle_fibers_.clear();
    for (auto& fiber : fibers_) {
      fiber->reset(&BlockRunner::fiber_main, this);
      idle_fibers_.push_back(fiber.get());
    }
  }
  return fault_;
}

// A fiber runs one thread after another for as long as they do not wait: a kernel without barriers
// needs one fiber and no switch. When a thread waits, another fiber goes on with the threads that
// have not started yet.
void BlockRunner::fiber_main(void* self) {
  BlockRunner& runner = *static_cast<BlockRunner*>(self);
  for (;;) {
    while (runner.next_start_ < runner.thread_count_) {
      runner.set_current(runner.order_[runner.next_start_++]);
      runner.call_.invoke(runner.call_);
      runner.thread_exits();
    }
    Fiber* const here = runner.running_;
    runner.idle_fibers_.push_back(here);
    unsigned int thread;
    Fiber* next = &runner.main_fiber_;
    if (runner.take_ready(&thread)) {
      next = runner.fiber_of_[thread];
      runner.set_current(thread);
    }
    runner.running_ = next;
    Fiber::switch_between(*here, *next);
  }
}

Fiber& BlockRunner::idle_fiber() {
  if (idle_fibers_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(fibers_.size()));
    fibers_.back()->reset(&BlockRunner::fiber_main, this);
    return *fibers_.back();
  }
  Fiber& fiber = *idle_fibers_.back();
  idle_fibers_.pop_back();
  return fiber;
}

void BlockRunner::suspend() {
  const unsigned int self = current_;
  Fiber* const here = running_;
  fiber_of_[self] = here;
  Fiber* next = &main_fiber_;
  unsigned int thread;
  if (next_start_ < thread_count_) {
    next = &idle_fiber();
  } else if (take_ready(&thread)) {
    set_current(thread);
    next = fiber_of_[thread];
    if (next == here) return;  // this thread itself is next
  }
  running_ = next;
  Fiber::switch_between(*here, *next);
}

bool BlockRunner::take_ready(unsigned int* thread) {
  if (ready_begin_ == ready_end_) return false;
  *thread = ready_[ready_begin_++ % ready_.size()];
  return true;
}

void BlockRunner::set_current(unsigned int thread) {
  current_ = thread;
  threadIdx = thread_index_[thread];
  if (running.observer != nullptr) running.observer->thread_runs(thread);
}

void BlockRunner::thread_exits() {
  ++exited_;
  Warp& warp = warps_[current_ / 32];
  const unsigned int bit = 1u << lane();
  warp.exited |= bit;
  if (running.observer != nullptr) running.observer->thread_ends(current_);
  if (barrier_waiting_ > 0) {
    const auto waiting = std::find(at_barrier_.begin(), at_barrier_.end(), 1);
    const unsigned int other = static_cast<unsigned int>(waiting - at_barrier_.begin());
    std::string what = "barrier not reached by all threads: this thread exited while " + whereabouts(other);
    fault(std::move(what));
  }
  for (unsigned int left = warp.waiting; left != 0; left &= left - 1) {
    const unsigned int other = static_cast<unsigned int>(__builtin_ctz(left));
    if ((warp.lanes[other].mask & bit) == 0) continue;
    std::string what = "warp primitive names a lane that is not there: this thread (lane " +
                       std::to_string(lane()) + ") exited while " + whereabouts(current_ - lane() + other);
    fault(std::move(what));
  }
}

void BlockRunner::release_block() {
  if (running.observer != nullptr) running.observer->barrier(barrier_kind_ == Barrier::kSyncCluster);
  switch (barrier_kind_) {
    case Barrier::kSyncThreads:
    case Barrier::kSyncCluster:
      barrier_result_ = 0;
      break;
    case Barrier::kSyncThreadsAnd:
      barrier_result_ = barrier_count_ == static_cast<int>(thread_count_);
      break;
    case Barrier::kSyncThreadsOr:
      barrier_result_ = barrier_count_ > 0;
      break;
    case Barrier::kSyncThreadsCount:
      barrier_result_ = barrier_count_;
      break;
  }
  barrier_waiting_ = 0;
  barrier_count_ = 0;
  std::fill(at_barrier_.begin(), at_barrier_.end(), static_cast<unsigned char>(0));
  if (schedule_.order == Schedule::Order::kShuffled) std::shuffle(order_.begin(), order_.end(), random_);
  for (const unsigned int thread : order_) make_ready(thread);
}

int BlockRunner::barrier(Barrier kind, int predicate) {
  if (exited_ > 0) {
    std::string what = std::string("barrier not reached by all threads: this thread waits at ") +
                       name_of(kind) + " but " + std::to_string(exited_) + " of the block's " +
                       std::to_string(thread_count_) + " threads exited before";
    fault(std::move(what));
  }
  if (barrier_waiting_ > 0 && kind != barrier_kind_) {
    std::string what = std::string("barrier not reached by all threads: this thread waits at ") +
                       name_of(kind) + " but another at " + name_of(barrier_kind_);
    fault(std::move(what));
  }
  barrier_kind_ = kind;
  at_barrier_[current_] = 1;
  barrier_count_ += predicate != 0;
  if (++barrier_waiting_ == thread_count_) {
    if (kind == Barrier::kSyncCluster && running.cluster != nullptr &&
        !running.cluster->sync(running.cluster_rank)) {
      std::string what = "barrier not reached by all blocks of the cluster: another one has ended";
      fault(std::move(what));
    }
    release_block();
  }
  suspend();
  return barrier_result_;
}

// The caller's frame is never left in order, so it must hand over its string: nothing then leaks.
void BlockRunner::fault(std::string&& what) {
  fault_.error = cudaErrorLaunchFailure;
  fault_.message = std::move(what);
  fault_.message += " [" + thread_name(current_) + "]";
  Fiber* const here = running_;
  running_ = &main_fiber_;
  Fiber::switch_between(*here, main_fiber_);
  std::abort();  // a faulted thread is never resumed
}

std::string BlockRunner::thread_name(unsigned int thread) const {
  const uint3 t = thread_index_[thread];
  char text[128];
  std::snprintf(text, sizeof(text), "block (%u, %u, %u), thread (%u, %u, %u)", block_index_.x, block_index_.y,
                block_index_.z, t.x, t.y, t.z);
  return text;
}

std::string BlockRunner::whereabouts(unsigned int thread) const {
  const uint3 t = thread_index_[thread];
  const Warp& warp = warps_[thread / 32];
  char text[160];
  const char* place = "has exited";
  if (at_barrier_[thread]) {
    std::snprintf(text, sizeof(text), "thread (%u, %u, %u) waits at %s", t.x, t.y, t.z,
                  name_of(barrier_kind_));
    return text;
  }
  if ((warp.waiting >> (thread % 32)) & 1u) {
    const Lane& lane = warp.lanes[thread % 32];
    std::snprintf(text, sizeof(text), "thread (%u, %u, %u) waits at %s with mask 0x%08x", t.x, t.y, t.z,
                  name_of(lane.kind), lane.mask);
    return text;
  }
  if (((warp.exited >> (thread % 32)) & 1u) == 0) place = "has not got there yet";
  std::snprintf(text, sizeof(text), "thread (%u, %u, %u) %s", t.x, t.y, t.z, place);
  return text;
}

// Nobody can go on. One example says it: a thread, what it waits for, and who does not come.
Fault BlockRunner::deadlock() const {
  for (unsigned int thread = 0; thread < thread_count_; ++thread) {
    const Warp& warp = warps_[thread / 32];
    if (((warp.waiting >> (thread % 32)) & 1u) == 0) continue;
    const Lane& lane = warp.lanes[thread % 32];
    for (unsigned int other = 0; other < 32; ++other) {
      if (((lane.mask >> other) & 1u) == 0) continue;
      const bool meets = ((warp.waiting >> other) & 1u) != 0 && warp.lanes[other].kind == lane.kind &&
                         warp.lanes[other].mask == lane.mask;
      if (meets) continue;
      return {cudaErrorLaunchFailure, "deadlock: " + whereabouts(thread) + ", but " +
                                          whereabouts(thread - thread % 32 + other) + " [" +
                                          thread_name(thread) + "]"};
    }
  }
  for (unsigned int thread = 0; thread < thread_count_; ++thread) {
    if (at_barrier_[thread]) {
      return {cudaErrorLaunchFailure, "deadlock: barrier not reached by all threads: " + whereabouts(thread) +
                                          " [" + thread_name(thread) + "]"};
    }
  }
  return {cudaErrorUnknown, "deadlock"};
}

const char* name_of(Barrier kind) {
  switch (kind) {
    case Barrier::kSyncThreads:
      return "__syncthreads";
    case Barrier::kSyncThreadsAnd:
      return "__syncthreads_and";
    case Barrier::kSyncThreadsOr:
      return "__syncthreads_or";
    case Barrier::kSyncThreadsCount:
      return "__syncthreads_count";
    case Barrier::kSyncCluster:
      return "the cluster's barrier";
  }
  return "a barrier";
}

}  // namespace reid_ops_emulation
