// The profiler: a warp's accesses put together into the requests that a GPU would make of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sites.h"

namespace reid_ops_emulation {

// Which bytes of global memory were read and written, by page.
class TouchedBytes {
 public:
  void add(std::uintptr_t address, unsigned int size, bool write);

  struct Totals {
    std::uint64_t read = 0, written = 0, sectors_read = 0, sectors_written = 0;
  };
  // Totals for every region; regions begin at the sorted addresses of `begins`, and last to the next.
  std::vector<Totals> totals(const std::vector<std::uintptr_t>& begins) const;

 private:
  static constexpr std::size_t kPage = 4096;
  struct Page {
    std::uint64_t bits[2][kPage / 64] = {};
  };
  Page& page(std::uintptr_t number);

  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;
  std::pair<std::uintptr_t, Page*> recent_[64] = {};
};

// Requests of one block. Lane by lane, the k-th access of a place since the warp last met belongs to the k-th
// request: what diverges lanes into different numbers of accesses is put together as if they had run abreast.
class RequestCollector {
 public:
  explicit RequestCollector(SiteTable& table) : table_(table), warps_(32) {}

  void add(unsigned int thread, int site, std::uintptr_t address);
  void flush(unsigned int warp);
  void flush_all();

 private:
  struct Request {
    std::uint32_t mask = 0;
    std::uintptr_t address[32];
  };
  struct SiteRequests {
    std::vector<Request> requests;
    std::uint32_t count[32] = {};
  };
  struct Warp {
    std::vector<SiteRequests> sites;
    std::vector<int> active;
  };

  SiteTable& table_;
  std::vector<Warp> warps_;
};

// Distinct sectors of 32 bytes that a request's lanes touch.
unsigned int sectors(const std::uintptr_t* addresses, std::uint32_t mask, unsigned int size);
// Passes that shared memory needs: 32 banks of 4 bytes give a word each. Lanes with 8 bytes go in halves of
// the warp, those with 16 in quarters; parts that touch the same words go together.
unsigned int bank_passes(const std::uintptr_t* addresses, std::uint32_t mask, unsigned int size);
// The fewest units (of so many bytes) that hold the bytes a request's lanes touch.
unsigned int fewest_units(const std::uintptr_t* addresses, std::uint32_t mask, unsigned int size,
                          unsigned int unit);

}  // namespace reid_ops_emulation
