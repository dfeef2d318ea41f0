// Large results in huge pages, where the system leaves the choice to programs (Linux, "madvise").
//
// A fresh tensor of tens of MB comes straight from the kernel, which hands it over page by page as it
// is first written: 9,000 interruptions for 37 MB, several times the time of the writing itself.
// With pages of 2 MB there are 18.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace reid_ops {

// Only the whole huge pages inside the range are named, so that nothing beyond it changes. Advice that
// is not taken is no error: the memory works as it is.
inline void advise_huge_pages(void* data, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(data) + kHugePage - 1) & ~(kHugePage - 1);
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(data) + bytes) & ~(kHugePage - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace reid_ops
