// Atomics, for the types CUDA has them for. They are real atomics: launches from two OS threads may
// meet in one counter.
#pragma once

#include <cstdint>
#include <cstring>

namespace reid_ops_emulation {

// Replaces *address by update(old) and returns old. Works on the bits, as the device does.
template <typename Bits, typename Value, typename Update>
Value atomic_update(Value* address, Update update) {
  static_assert(sizeof(Bits) == sizeof(Value), "the bits of the value");
  Bits* const bits = reinterpret_cast<Bits*>(address);
  Bits seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
  for (;;) {
    Value old;
    std::memcpy(&old, &seen, sizeof(old));
    const Value updated = update(old);
    Bits wanted;
    std::memcpy(&wanted, &updated, sizeof(wanted));
    if (__atomic_compare_exchange_n(bits, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      return old;
    }
  }
}

}  // namespace reid_ops_emulation

#define REID_OPS_EMULATION_ATOMIC(name, type, bits, ...)                                                 \
  inline type name(type* address, type value) {                                                          \
    return reid_ops_emulation::atomic_update<bits>(address, [value](type old) -> type { __VA_ARGS__; }); \
  }
#define REID_OPS_EMULATION_INTEGER_ATOMICS(type, bits)                                         \
  REID_OPS_EMULATION_ATOMIC(atomicMin, type, bits, return value < old ? value : old)           \
  REID_OPS_EMULATION_ATOMIC(atomicMax, type, bits, return old < value ? value : old)           \
  REID_OPS_EMULATION_ATOMIC(atomicAnd, type, bits, return old & value)                         \
  REID_OPS_EMULATION_ATOMIC(atomicOr, type, bits, return old | value)                          \
  REID_OPS_EMULATION_ATOMIC(atomicXor, type, bits, return old ^ value)                         \
  REID_OPS_EMULATION_ATOMIC(atomicExch, type, bits, return (void)old, value)                   \
  inline type atomicCAS(type* address, type compare, type value) {                             \
    return reid_ops_emulation::atomic_update<bits>(                                            \
        address, [compare, value](type old) -> type { return old == compare ? value : old; }); \
  }

REID_OPS_EMULATION_INTEGER_ATOMICS(int, std::uint32_t)
REID_OPS_EMULATION_INTEGER_ATOMICS(unsigned int, std::uint32_t)
REID_OPS_EMULATION_INTEGER_ATOMICS(unsigned long long, std::uint64_t)
REID_OPS_EMULATION_ATOMIC(atomicMin, long long, std::uint64_t, return value < old ? value : old)
REID_OPS_EMULATION_ATOMIC(atomicMax, long long, std::uint64_t, return old < value ? value : old)

// Signed sums wrap on the device; done unsigned here, where overflow of an int is undefined.
REID_OPS_EMULATION_ATOMIC(atomicAdd, int, std::uint32_t,
                          return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
REID_OPS_EMULATION_ATOMIC(atomicSub, int, std::uint32_t,
                          return static_cast<int>(static_cast<unsigned>(old) - static_cast<unsigned>(value)))
REID_OPS_EMULATION_ATOMIC(atomicAdd, unsigned int, std::uint32_t, return old + value)
REID_OPS_EMULATION_ATOMIC(atomicSub, unsigned int, std::uint32_t, return old - value)
REID_OPS_EMULATION_ATOMIC(atomicAdd, unsigned long long, std::uint64_t, return old + value)
REID_OPS_EMULATION_ATOMIC(atomicAdd, float, std::uint32_t, return old + value)
REID_OPS_EMULATION_ATOMIC(atomicAdd, double, std::uint64_t, return old + value)
REID_OPS_EMULATION_ATOMIC(atomicExch, float, std::uint32_t, return (void)old, value)

// Count up and wrap at `value`; count down and restart at `value`.
REID_OPS_EMULATION_ATOMIC(atomicInc, unsigned int, std::uint32_t, return old >= value ? 0 : old + 1)
REID_OPS_EMULATION_ATOMIC(atomicDec, unsigned int, std::uint32_t,
                          return old == 0 || old > value ? value : old - 1)
#undef REID_OPS_EMULATION_INTEGER_ATOMICS
