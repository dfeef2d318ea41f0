// Places in a kernel's code that touch memory, and what a launch was seen to do there.
#pragma once

#include <cstdint>
#include <vector>

namespace reid_ops_emulation {

enum class Space : std::uint8_t { kGlobal, kShared, kWait };  // kWait: barriers and warp primitives
enum class Kind : std::uint8_t { kRead, kWrite, kAtomic };

struct Site {
  std::uintptr_t place;  // the return address of the access
  Space space;
  Kind kind;
  unsigned int size;  // bytes a lane
  std::uint64_t requests = 0, lanes = 0;
  // Global memory: sectors of 32 bytes. Shared: passes over the 32 banks.
  std::uint64_t units = 0, ideal_units = 0;
};

// The launch's sites, found by place, space and kind.
class SiteTable {
 public:
  SiteTable() : slots_(kSlots, -1) {}

  int find(std::uintptr_t place, Space space, Kind kind, unsigned int size) {
    std::uintptr_t slot =
        (place * 0x9e3779b97f4a7c15u >> 40) + 3 * static_cast<unsigned>(space) + static_cast<unsigned>(kind);
    for (;; ++slot) {
      int& entry = slots_[slot % kSlots];
      if (entry < 0) {
        entry = static_cast<int>(sites.size());
        sites.push_back({place, space, kind, size});
        return entry;
      }
      const Site& site = sites[static_cast<std::size_t>(entry)];
      if (site.place == place && site.space == space && site.kind == kind && site.size == size) return entry;
    }
  }

  std::vector<Site> sites;

 private:
  static constexpr std::size_t kSlots = 1 << 13;  // far more than a kernel has
  std::vector<int> slots_;
};

}  // namespace reid_ops_emulation
