// What the lanes of a warp do together. Every primitive waits for all lanes its mask names; a lane
// that has exited, does not exist, or waits somewhere else is a fault (scheduler.cpp).
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace reid_ops_emulation {

enum class Collective {
  kSyncWarp,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
  kAny,
  kAll,
  kMatchAny,
  kMatchAll,
  kAdd,
  kMinSigned,
  kMaxSigned,
  kMinUnsigned,
  kMaxUnsigned,
  kAnd,
  kOr,
  kXor
};
std::uint64_t warp_collective(Collective kind, unsigned int mask, std::uint64_t value, unsigned int argument,
                              int width);
unsigned int this_lane();

template <typename Value>
std::uint64_t to_bits(Value value) {
  static_assert(sizeof(Value) <= 8 && std::is_trivially_copyable<Value>::value,
                "a shuffle carries at most 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(Value));
  return bits;
}

template <typename Value>
Value from_bits(std::uint64_t bits) {
  Value value;
  std::memcpy(&value, &bits, sizeof(Value));
  return value;
}

}  // namespace reid_ops_emulation

// Overloads, not one template: CUDA's promotions and ambiguities (short becomes int, a struct does
// not compile) then come out alike. cuda_fp16.h and cuda_bf16.h add their types.
#define REID_OPS_EMULATION_SHUFFLES(type)                                                                  \
  inline type __shfl_sync(unsigned int mask, type value, int source, int width = 32) {                     \
    using namespace reid_ops_emulation;                                                                    \
    return from_bits<type>(warp_collective(Collective::kShuffle, mask, to_bits(value),                     \
                                           static_cast<unsigned int>(source), width));                     \
  }                                                                                                        \
  inline type __shfl_up_sync(unsigned int mask, type value, unsigned int delta, int width = 32) {          \
    using namespace reid_ops_emulation;                                                                    \
    return from_bits<type>(warp_collective(Collective::kShuffleUp, mask, to_bits(value), delta, width));   \
  }                                                                                                        \
  inline type __shfl_down_sync(unsigned int mask, type value, unsigned int delta, int width = 32) {        \
    using namespace reid_ops_emulation;                                                                    \
    return from_bits<type>(warp_collective(Collective::kShuffleDown, mask, to_bits(value), delta, width)); \
  }                                                                                                        \
  inline type __shfl_xor_sync(unsigned int mask, type value, int lane_mask, int width = 32) {              \
    using namespace reid_ops_emulation;                                                                    \
    return from_bits<type>(warp_collective(Collective::kShuffleXor, mask, to_bits(value),                  \
                                           static_cast<unsigned int>(lane_mask), width));                  \
  }

REID_OPS_EMULATION_SHUFFLES(int)
REID_OPS_EMULATION_SHUFFLES(unsigned int)
REID_OPS_EMULATION_SHUFFLES(long)
REID_OPS_EMULATION_SHUFFLES(unsigned long)
REID_OPS_EMULATION_SHUFFLES(long long)
REID_OPS_EMULATION_SHUFFLES(unsigned long long)
REID_OPS_EMULATION_SHUFFLES(float)
REID_OPS_EMULATION_SHUFFLES(double)

inline void __syncwarp(unsigned int mask = 0xffffffffu) {
  reid_ops_emulation::warp_collective(reid_ops_emulation::Collective::kSyncWarp, mask, 0, 0, 32);
}
inline unsigned int __ballot_sync(unsigned int mask, int predicate) {
  return static_cast<unsigned int>(reid_ops_emulation::warp_collective(
      reid_ops_emulation::Collective::kBallot, mask, predicate != 0, 0, 32));
}
inline int __any_sync(unsigned int mask, int predicate) {
  return static_cast<int>(
      reid_ops_emulation::warp_collective(reid_ops_emulation::Collective::kAny, mask, predicate != 0, 0, 32));
}
inline int __all_sync(unsigned int mask, int predicate) {
  return static_cast<int>(
      reid_ops_emulation::warp_collective(reid_ops_emulation::Collective::kAll, mask, predicate != 0, 0, 32));
}

// Lanes with the same bits: CUDA compares the representation, so 0.0f and -0.0f differ.
template <typename Value>
unsigned int __match_any_sync(unsigned int mask, Value value) {
  static_assert(sizeof(Value) == 4 || sizeof(Value) == 8, "__match_any_sync takes 4- or 8-byte values");
  return static_cast<unsigned int>(reid_ops_emulation::warp_collective(
      reid_ops_emulation::Collective::kMatchAny, mask, reid_ops_emulation::to_bits(value), 0, 32));
}
template <typename Value>
unsigned int __match_all_sync(unsigned int mask, Value value, int* all_equal) {
  static_assert(sizeof(Value) == 4 || sizeof(Value) == 8, "__match_all_sync takes 4- or 8-byte values");
  const unsigned int lanes = static_cast<unsigned int>(reid_ops_emulation::warp_collective(
      reid_ops_emulation::Collective::kMatchAll, mask, reid_ops_emulation::to_bits(value), 0, 32));
  *all_equal = lanes != 0;
  return lanes;
}

// Which lanes happen to run together is up to the device. Here: the calling one alone, the least
// that a correct program may count on.
inline unsigned int __activemask() { return 1u << reid_ops_emulation::this_lane(); }

#define REID_OPS_EMULATION_REDUCE(name, type, kind)                                                          \
  inline type name(unsigned int mask, type value) {                                                          \
    return static_cast<type>(reid_ops_emulation::warp_collective(reid_ops_emulation::Collective::kind, mask, \
                                                                 static_cast<unsigned int>(value), 0, 32));  \
  }
REID_OPS_EMULATION_REDUCE(__reduce_add_sync, unsigned int, kAdd)
REID_OPS_EMULATION_REDUCE(__reduce_add_sync, int, kAdd)
REID_OPS_EMULATION_REDUCE(__reduce_min_sync, unsigned int, kMinUnsigned)
REID_OPS_EMULATION_REDUCE(__reduce_min_sync, int, kMinSigned)
REID_OPS_EMULATION_REDUCE(__reduce_max_sync, unsigned int, kMaxUnsigned)
REID_OPS_EMULATION_REDUCE(__reduce_max_sync, int, kMaxSigned)
REID_OPS_EMULATION_REDUCE(__reduce_and_sync, unsigned int, kAnd)
REID_OPS_EMULATION_REDUCE(__reduce_or_sync, unsigned int, kOr)
REID_OPS_EMULATION_REDUCE(__reduce_xor_sync, unsigned int, kXor)
#undef REID_OPS_EMULATION_REDUCE
