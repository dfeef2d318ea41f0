#include "cluster.h"

#include <algorithm>
#include <utility>

namespace reid_ops_emulation {

Cluster::Cluster(std::vector<unsigned int> order)
    : order_(std::move(order)), states_(order_.size(), State::kOutside), shared_(order_.size()) {}

void Cluster::next() {
  turn_ = ~0u;
  for (const unsigned int block : order_) {
    if (states_[block] == State::kReady) {
      turn_ = block;
      break;
    }
  }
  changed_.notify_all();
}

void Cluster::enter(unsigned int block, const SharedMemory& shared) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return inside_ == 0; });  // blocks of the cluster before
  shared_[block] = shared;
  states_[block] = State::kReady;
  if (++entered_ == blocks()) {
    inside_ = entered_;
    entered_ = 0;
    next();
  }
  changed_.wait(lock, [&] { return inside_ != 0 && turn_ == block; });
}

bool Cluster::sync(unsigned int block) {
  std::unique_lock<std::mutex> lock(mutex_);
  states_[block] = State::kWaits;
  const auto waiting = std::count(states_.begin(), states_.end(), State::kWaits);
  if (waiting == static_cast<std::ptrdiff_t>(blocks())) {
    std::fill(states_.begin(), states_.end(), State::kReady);
  } else if (inside_ < blocks()) {  // somebody has left, and will not come
    broken_ = true;
    std::replace(states_.begin(), states_.end(), State::kWaits, State::kReady);
  }
  next();
  changed_.wait(lock, [&] { return turn_ == block; });
  return !broken_;
}

void Cluster::leave(unsigned int block, const Fault& fault) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (fault.error != cudaSuccess && fault_.error == cudaSuccess) fault_ = fault;
  states_[block] = State::kOutside;
  --inside_;
  if (std::count(states_.begin(), states_.end(), State::kWaits) > 0) {  // for this one
    broken_ = true;
    std::replace(states_.begin(), states_.end(), State::kWaits, State::kReady);
  }
  next();
}

void* Cluster::shared_of(unsigned int block, const void* address, unsigned int other) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (other >= blocks() || states_[other] == State::kOutside) return nullptr;
  for (Range SharedMemory::* kind : {&SharedMemory::fixed, &SharedMemory::dynamic}) {
    const Range own = shared_[block].*kind;
    const char* const place = static_cast<const char*>(address);
    if (own.begin != nullptr && place >= own.begin && place < own.begin + own.bytes) {
      return (shared_[other].*kind).begin + (place - own.begin);
    }
  }
  return nullptr;
}

Fault Cluster::fault() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return fault_;
}

}  // namespace reid_ops_emulation
