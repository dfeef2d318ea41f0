// The race detector: two accesses to a byte, one of them a write and not both atomic, that nothing orders.
//
// What orders: one thread's program; a block's barrier; __syncwarp, for the lanes it names (other warp
// primitives order nothing, as CUDA says); a cluster's barrier; the end of a launch. Atomics and fences order
// nothing here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "sites.h"

namespace reid_ops_emulation {

struct Access {
  std::uint32_t block = 0;  // its number + 1; 0: there was none
  std::uint32_t epoch = 0, cluster_epoch = 0, clock = 0;
  int site = -1;
  std::uint16_t thread = 0;
  bool atomic = false;
};

// What a block's threads know of one another.
class BlockClocks {
 public:
  void begin(std::uint64_t block, unsigned int threads, unsigned int cluster_blocks);
  void barrier(bool of_cluster);
  void meet(unsigned int warp, std::uint32_t mask);

  Access access(unsigned int thread, int site, bool atomic) const;
  // Whether `before` is known to have happened before what `thread` does now.
  bool ordered(const Access& before, unsigned int thread) const;
  // Whether `before` belongs to this block's cluster: shared memory of others is other memory.
  bool same_cluster(const Access& before) const { return (before.block - 1) / cluster_blocks_ == cluster_; }

 private:
  std::uint32_t block_ = 0, cluster_ = 0, cluster_blocks_ = 1;
  std::uint32_t epoch_ = 0, cluster_epoch_ = 0;
  std::vector<std::uint32_t> clocks_;  // by thread, then lane of its warp: the last it knows of that lane
};

// The last write of every place, and two reads of it that nothing orders: a third one is forgotten.
class Shadow {
 public:
  // Calls found(before, write) for each access before that this one races with.
  template <typename Found>
  void access(const BlockClocks& clocks, std::uintptr_t address, unsigned int size, bool write, bool shared,
              const Access& now, Found found);

 private:
  struct Cell {
    Access write, reads[2];
  };
  static constexpr std::size_t kPage = 4096;
  struct Page {
    unsigned int grain = 4;  // bytes a cell: as little as any access so far
    std::vector<Cell> cells = std::vector<Cell>(kPage / 4);
  };

  Page& page(std::uintptr_t number, unsigned int grain);

  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  std::uintptr_t recent_number_[64] = {};
  Page* recent_[64] = {};
};

template <typename Found>
void Shadow::access(const BlockClocks& clocks, std::uintptr_t address, unsigned int size, bool write,
                    bool shared, const Access& now, Found found) {
  const unsigned int thread = now.thread;
  unsigned int grain = 4;
  while (address % grain != 0 || size % grain != 0) grain /= 2;
  for (std::uintptr_t at = address; at < address + size;) {
    Page& here = page(at / kPage, grain);
    Cell& cell = here.cells[at % kPage / here.grain];
    at += here.grain;
    const auto unordered = [&](const Access& before) {
      if (before.block == 0 || (shared && !clocks.same_cluster(before))) return false;
      return !clocks.ordered(before, thread);
    };
    if (unordered(cell.write) && !(cell.write.atomic && now.atomic)) found(cell.write, true);
    if (write) {
      for (Access& read : cell.reads) {
        if (unordered(read) && !(read.atomic && now.atomic)) found(read, false);
        read = {};
      }
      cell.write = now;
    } else if (!unordered(cell.reads[0])) {
      cell.reads[0] = now;
    } else if (!unordered(cell.reads[1])) {
      cell.reads[1] = now;
    }
  }
}

}  // namespace reid_ops_emulation
