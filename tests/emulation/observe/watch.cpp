#include "watch.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace reid_ops_emulation {

std::unique_ptr<BlockObserver> LaunchWatch::observe(const BlockRunner& runner, MemoryRange dynamic_shared,
                                                    MemoryRange static_shared, MemoryRange own_variables) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (dynamic_shared.bytes != 0) shared_.push_back(dynamic_shared);
  if (static_shared.bytes != 0) shared_.push_back(static_shared);
  return std::make_unique<BlockWatch>(*this, runner, own_variables);
}

bool LaunchWatch::is_shared(std::uintptr_t address) const {
  return std::any_of(shared_.begin(), shared_.end(),
                     [address](const MemoryRange& range) { return range.contains(address); });
}

// The launch has ended. Bytes of global memory belong to the argument that points to the last address before
// them.
LaunchWatch::~LaunchWatch() {
  if (!profiles) return;
  std::map<std::uintptr_t, int> arguments;
  for (std::size_t word = 0; word + 8 <= call_.argument_bytes; word += 8) {
    std::uintptr_t value;
    std::memcpy(&value, static_cast<const char*>(call_.arguments) + word, sizeof(value));
    if (value >> 16 != 0) arguments.emplace(value, static_cast<int>(word / 8));
  }
  std::vector<std::uintptr_t> begins;
  for (const auto& [address, word] : arguments) begins.push_back(address);
  const std::vector<TouchedBytes::Totals> totals = touched.totals(begins);
  std::vector<Tensor> tensors;
  for (std::size_t region = 0; region < totals.size(); ++region) {
    if (totals[region].sectors_read + totals[region].sectors_written == 0) continue;
    const int word = region < begins.size() ? arguments[begins[region]] : -1;
    tensors.push_back({word, totals[region]});
  }
  keep_profile(facts, table.sites, tensors);
}

void BlockWatch::block_begins(std::uint64_t number) {
  number_ = number;
  const unsigned int threads = runner_.threads();
  running_.assign((threads + 31) / 32, 32);
  running_.back() = threads - 32 * (static_cast<unsigned int>(running_.size()) - 1);
  if (launch_.detects) clocks_.begin(number, threads, launch_.facts.cluster_blocks);
}

void BlockWatch::block_ends() {
  if (launch_.profiles) requests_.flush_all();
}

void BlockWatch::thread_ends(unsigned int thread) {
  if (--running_[thread / 32] == 0 && launch_.profiles) requests_.flush(thread / 32);
}

void BlockWatch::barrier(bool of_cluster) {
  if (launch_.profiles) requests_.flush_all();
  if (launch_.detects) clocks_.barrier(of_cluster);
}

void BlockWatch::warp_meets(unsigned int warp, unsigned int mask, bool orders) {
  if (launch_.profiles && mask == 0xffffffffu) requests_.flush(warp);
  if (launch_.detects && orders) clocks_.meet(warp, mask);
}

void BlockWatch::waits(const void* place) {
  if (!launch_.profiles) return;
  const int site = launch_.table.find(reinterpret_cast<std::uintptr_t>(place), Space::kWait, Kind::kRead, 0);
  requests_.add(thread_, site, 0);
}

void BlockWatch::access(std::uintptr_t address, unsigned int size, Kind kind, const void* place) {
  const bool shared = launch_.is_shared(address);
  // Registers, the emulation's own variables, and the arguments on their way into the kernel are no memory.
  const bool in_runner = address - reinterpret_cast<std::uintptr_t>(&runner_) < sizeof(runner_);
  if (!shared && (runner_.on_stack(reinterpret_cast<const void*>(address)) || in_runner ||
                  own_variables_.contains(address) || launch_.is_argument(address))) {
    return;
  }
  const Space space = shared ? Space::kShared : Space::kGlobal;
  const int site = launch_.table.find(reinterpret_cast<std::uintptr_t>(place), space, kind, size);
  if (launch_.profiles) {
    if (!shared && kind != Kind::kWrite) launch_.touched.add(address, size, false);
    if (!shared && kind != Kind::kRead) launch_.touched.add(address, size, true);
    requests_.add(thread_, site, address);
  }
  if (launch_.detects) {
    const Access now = clocks_.access(thread_, site, kind == Kind::kAtomic);
    bool found = false;  // once an access is enough
    launch_.shadow.access(clocks_, address, size, kind != Kind::kRead, shared, now,
                          [&](const Access& before, bool write) {
                            if (!found) race(before, write, kind, now, space);
                            found = true;
                          });
  }
}

void BlockWatch::race(const Access& before, bool before_writes, Kind kind, const Access& now, Space space) {
  const auto end = [&](const Access& access, bool write) {
    const Site& site = launch_.table.sites[static_cast<std::size_t>(access.site)];
    return RaceEnd{site.place, write, access.block - 1, access.thread};
  };
  keep_race(launch_.facts, end(before, before_writes), end(now, kind != Kind::kRead), space);
}

}  // namespace reid_ops_emulation
