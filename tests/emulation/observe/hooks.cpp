// What GCC's -fsanitize=thread calls before each access to memory. Not its own runtime: these report to the
// observer of the launch that runs on this OS thread, if there is one.
#include <cuda_runtime.h>

#include <cstdint>

#include "watch.h"

namespace {

using reid_ops_emulation::BlockWatch;
using reid_ops_emulation::Kind;

inline void access(const volatile void* address, std::size_t size, Kind kind, const void* place) {
  auto* const observer = reid_ops_emulation::running.observer;
  if (observer == nullptr) return;
  BlockWatch& watch = *static_cast<BlockWatch*>(observer);
  std::uintptr_t at = reinterpret_cast<std::uintptr_t>(address);
  for (; size > 16; size -= 16, at += 16) watch.access(at, 16, kind, place);
  watch.access(at, static_cast<unsigned int>(size), kind, place);
}

}  // namespace

#define PLACE __builtin_return_address(0)
#define REID_OPS_ACCESSES(bytes)                                                                     \
  void __tsan_read##bytes(void* address) { access(address, bytes, Kind::kRead, PLACE); }             \
  void __tsan_write##bytes(void* address) { access(address, bytes, Kind::kWrite, PLACE); }           \
  void __tsan_unaligned_read##bytes(void* address) { access(address, bytes, Kind::kRead, PLACE); }   \
  void __tsan_unaligned_write##bytes(void* address) { access(address, bytes, Kind::kWrite, PLACE); } \
  void __tsan_volatile_read##bytes(void* address) { access(address, bytes, Kind::kRead, PLACE); }    \
  void __tsan_volatile_write##bytes(void* address) { access(address, bytes, Kind::kWrite, PLACE); }

// An atomic of the emulation reads, then compares and exchanges: only the second is taken for the access. The
// host's own counters in the same file come here outside of any block.
#define REID_OPS_ATOMICS(bits, type)                                                                     \
  type __tsan_atomic##bits##_load(const volatile type* address, int) {                                   \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                      \
  void __tsan_atomic##bits##_store(volatile type* address, type value, int) {                            \
    access(address, sizeof(type), Kind::kAtomic, PLACE);                                                 \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                                      \
  type __tsan_atomic##bits##_exchange(volatile type* address, type value, int) {                         \
    access(address, sizeof(type), Kind::kAtomic, PLACE);                                                 \
    return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                                        \
  }                                                                                                      \
  type __tsan_atomic##bits##_fetch_add(volatile type* address, type value, int) {                        \
    access(address, sizeof(type), Kind::kAtomic, PLACE);                                                 \
    return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);                                         \
  }                                                                                                      \
  type __tsan_atomic##bits##_fetch_sub(volatile type* address, type value, int) {                        \
    access(address, sizeof(type), Kind::kAtomic, PLACE);                                                 \
    return __atomic_fetch_sub(address, value, __ATOMIC_SEQ_CST);                                         \
  }                                                                                                      \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* address, type* expected, type wanted, \
                                                    int, int) {                                          \
    access(address, sizeof(type), Kind::kAtomic, PLACE);                                                 \
    return __atomic_compare_exchange_n(address, expected, wanted, false, __ATOMIC_SEQ_CST,               \
                                       __ATOMIC_SEQ_CST);                                                \
  }

extern "C" {
REID_OPS_ACCESSES(1)
REID_OPS_ACCESSES(2)
REID_OPS_ACCESSES(4)
REID_OPS_ACCESSES(8)
REID_OPS_ACCESSES(16)
REID_OPS_ATOMICS(8, std::uint8_t)
REID_OPS_ATOMICS(16, std::uint16_t)
REID_OPS_ATOMICS(32, std::uint32_t)
REID_OPS_ATOMICS(64, std::uint64_t)

void __tsan_read_range(void* address, std::size_t size) { access(address, size, Kind::kRead, PLACE); }
void __tsan_write_range(void* address, std::size_t size) { access(address, size, Kind::kWrite, PLACE); }
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
