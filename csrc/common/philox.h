// Philox4x32-10, the counter-based random number generator of Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3" (2011): four 32-bit words for every (key, counter), no state.
//
// Integers only, so the CPU, the device and the PyTorch reference get the same bits.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace reid_ops {

struct PhiloxWords {
  std::uint32_t word[4];
};

REID_OPS_HOST_DEVICE inline PhiloxWords philox4x32(std::uint64_t key, std::uint64_t counter_low,
                                                   std::uint64_t counter_high) {
  std::uint32_t key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
  PhiloxWords x = {{static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
                    static_cast<std::uint32_t>(counter_high),
                    static_cast<std::uint32_t>(counter_high >> 32)}};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * x.word[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * x.word[2];
    x = {{static_cast<std::uint32_t>(product1 >> 32) ^ x.word[1] ^ key0, static_cast<std::uint32_t>(product1),
          static_cast<std::uint32_t>(product0 >> 32) ^ x.word[3] ^ key1,
          static_cast<std::uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return x;
}

// A word as an integer in [0, range), range <= 2^32: the fraction word / 2^32 of the range.
REID_OPS_HOST_DEVICE inline std::int64_t scale_word(std::uint32_t word, std::int64_t range) {
  return static_cast<std::int64_t>((static_cast<std::uint64_t>(word) * static_cast<std::uint64_t>(range)) >>
                                   32);
}

}  // namespace reid_ops
