// A stack of its own for each device thread, and the switch between two of them.
//
// On x86-64 the switch is a few instructions (callee-saved registers and the stack pointer); other
// machines use ucontext, which also saves the signal mask and is some 20 times slower.
#pragma once

#include <cstddef>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#define REID_OPS_EMULATION_ASAN 1
#endif
#if !defined(__x86_64__) && !defined(REID_OPS_EMULATION_UCONTEXT)
#define REID_OPS_EMULATION_UCONTEXT 1
#endif
#if defined(REID_OPS_EMULATION_UCONTEXT)
#include <ucontext.h>
#endif

namespace reid_ops_emulation {

class Fiber {
 public:
  // The OS thread's own stack: only a place to come back to.
  Fiber() = default;
  // A new stack. `slot` numbers the fibers of one OS thread.
  explicit Fiber(std::size_t slot);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next switch to this fiber call entry(argument), which must never return. Whatever
  // was on the stack is forgotten: a faulted block leaves its fibers in the middle of a kernel.
  void reset(void (*entry)(void*), void* argument);

  // Whether the address is on this fiber's stack.
  bool contains(const void* address) const {
    const char* const place = static_cast<const char*>(address);
    return place >= stack_ && place < stack_ + stack_bytes_;
  }

  // Leaves `from`, which is running, and carries on in `to`; returns when something switches back.
  static void switch_between(Fiber& from, Fiber& to);

 private:
  struct Start;
  static void enter();

  void* stack_pointer_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  char* mapping_ = nullptr;  // guard page first, then the stack
  char* stack_ = nullptr;    // lowest address of the stack
  std::size_t stack_bytes_ = 0;
  std::size_t skip_ = 0;  // bytes left unused at the top, see fiber.cpp
#if defined(REID_OPS_EMULATION_UCONTEXT)
  ucontext_t ucontext_ = {};
#endif
#if defined(REID_OPS_EMULATION_ASAN)
  void* fake_stack_ = nullptr;
  const void* bounds_bottom_ = nullptr;
  std::size_t bounds_bytes_ = 0;
#endif
};

}  // namespace reid_ops_emulation
