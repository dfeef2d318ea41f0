#include "profile.h"

#include <algorithm>
#include <array>

namespace reid_ops_emulation {

TouchedBytes::Page& TouchedBytes::page(std::uintptr_t number) {
  auto& recent = recent_[number % 64];
  if (recent.second == nullptr || recent.first != number) {
    std::unique_ptr<Page>& found = pages_[number];
    if (found == nullptr) found = std::make_unique<Page>();
    recent = {number, found.get()};
  }
  return *recent.second;
}

void TouchedBytes::add(std::uintptr_t address, unsigned int size, bool write) {
  while (size > 0) {
    const unsigned int first = static_cast<unsigned int>(address % 64);
    const unsigned int count = std::min(size, 64 - first);
    const std::uint64_t bits = count == 64 ? ~0ull : ((1ull << count) - 1) << first;
    page(address / kPage).bits[write][address % kPage / 64] |= bits;
    address += count;
    size -= count;
  }
}

std::vector<TouchedBytes::Totals> TouchedBytes::totals(const std::vector<std::uintptr_t>& begins) const {
  std::vector<Totals> found(begins.size() + 1);  // the last one: before the first region
  for (const auto& [number, page] : pages_) {
    for (std::size_t sector = 0; sector < kPage / 32; ++sector) {
      std::uint64_t bits[2];
      for (int write = 0; write < 2; ++write) {
        bits[write] = page->bits[write][sector / 2] >> (32 * (sector % 2)) & 0xffffffffu;
      }
      if ((bits[0] | bits[1]) == 0) continue;
      const std::uintptr_t address = number * kPage + 32 * sector;
      // A region may begin inside the sector: it is the later one's.
      const auto after = std::upper_bound(begins.begin(), begins.end(), address + 31);
      const std::size_t region =
          after == begins.begin() ? begins.size() : static_cast<std::size_t>(after - begins.begin() - 1);
      Totals& totals = found[region];
      totals.read += static_cast<std::uint64_t>(__builtin_popcountll(bits[0]));
      totals.written += static_cast<std::uint64_t>(__builtin_popcountll(bits[1]));
      totals.sectors_read += bits[0] != 0;
      totals.sectors_written += bits[1] != 0;
    }
  }
  return found;
}

void RequestCollector::add(unsigned int thread, int site, std::uintptr_t address) {
  Warp& warp = warps_[thread / 32];
  const std::size_t place = static_cast<std::size_t>(site);
  if (warp.sites.size() <= place) warp.sites.resize(place + 1);
  SiteRequests& here = warp.sites[place];
  if (here.requests.empty()) warp.active.push_back(site);
  const std::uint32_t turn = here.count[thread % 32]++;
  if (here.requests.size() <= turn) here.requests.resize(turn + 1);
  Request& request = here.requests[turn];
  request.mask |= 1u << (thread % 32);
  request.address[thread % 32] = address;
}

void RequestCollector::flush(unsigned int number) {
  Warp& warp = warps_[number];
  for (const int place : warp.active) {
    SiteRequests& here = warp.sites[static_cast<std::size_t>(place)];
    Site& site = table_.sites[static_cast<std::size_t>(place)];
    for (const Request& request : here.requests) {
      ++site.requests;
      site.lanes += static_cast<std::uint64_t>(__builtin_popcount(request.mask));
      if (site.space == Space::kGlobal) {
        site.units += sectors(request.address, request.mask, site.size);
        site.ideal_units += fewest_units(request.address, request.mask, site.size, 32);
      } else if (site.space == Space::kShared) {
        site.units += bank_passes(request.address, request.mask, site.size);
        site.ideal_units += fewest_units(request.address, request.mask, site.size, 128);
      }
    }
    here.requests.clear();
    std::fill(std::begin(here.count), std::end(here.count), 0u);
  }
  warp.active.clear();
}

void RequestCollector::flush_all() {
  for (unsigned int warp = 0; warp < 32; ++warp) flush(warp);
}

namespace {

// The distinct units of so many bytes under lanes `first` to `end` - 1.
template <std::size_t kMost>
unsigned int distinct(std::array<std::uintptr_t, kMost>& found, const std::uintptr_t* addresses,
                      std::uint32_t mask, unsigned int size, unsigned int unit) {
  unsigned int count = 0;
  for (std::uint32_t left = mask; left != 0; left &= left - 1) {
    const std::uintptr_t address = addresses[__builtin_ctz(left)];
    for (std::uintptr_t each = address / unit; each <= (address + size - 1) / unit; ++each) {
      if (count == 0 || found[count - 1] != each) found[count++] = each;
    }
  }
  std::sort(found.begin(), found.begin() + count);
  return static_cast<unsigned int>(std::unique(found.begin(), found.begin() + count) - found.begin());
}

}  // namespace

unsigned int sectors(const std::uintptr_t* addresses, std::uint32_t mask, unsigned int size) {
  std::array<std::uintptr_t, 64> found;
  return distinct(found, addresses, mask, size, 32);
}

unsigned int fewest_units(const std::uintptr_t* addresses, std::uint32_t mask, unsigned int size,
                          unsigned int unit) {
  std::array<std::uintptr_t, 32 * 16> found;
  const unsigned int bytes = distinct(found, addresses, mask, size, 1);
  return (bytes + unit - 1) / unit;
}

unsigned int bank_passes(const std::uintptr_t* addresses, std::uint32_t mask, unsigned int size) {
  const unsigned int parts = size <= 4 ? 1 : size / 4, width = 32 / parts;
  std::array<std::uintptr_t, 64> words[4];
  unsigned int counts[4] = {};
  unsigned int passes = 0;
  for (unsigned int part = 0; part < parts; ++part) {
    const std::uint32_t lanes = width == 32 ? ~0u : ((1u << width) - 1) << (part * width);
    counts[part] = distinct(words[part], addresses, mask & lanes, size, 4);
    bool met = counts[part] == 0;
    for (unsigned int other = 0; other < part && !met; ++other) {
      met = counts[other] == counts[part] &&
            std::equal(words[part].begin(), words[part].begin() + counts[part], words[other].begin());
    }
    if (met) continue;
    unsigned int in_bank[32] = {}, most = 0;
    for (unsigned int word = 0; word < counts[part]; ++word) {
      most = std::max(most, ++in_bank[words[part][word] % 32]);
    }
    passes += most;
  }
  return passes;
}

}  // namespace reid_ops_emulation
