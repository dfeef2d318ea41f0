#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(REID_OPS_EMULATION_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(REID_OPS_EMULATION_UCONTEXT)
extern "C" void reid_ops_emulation_switch(void** save_stack_pointer, void* load_stack_pointer);
__asm__(R"(
.text
.p2align 4
.globl reid_ops_emulation_switch
.hidden reid_ops_emulation_switch
.type reid_ops_emulation_switch, @function
reid_ops_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size reid_ops_emulation_switch, .-reid_ops_emulation_switch
)");
#endif

namespace reid_ops_emulation {
namespace {

#if defined(REID_OPS_EMULATION_ASAN)
constexpr std::size_t kStackPages = 96;  // redzones make frames several times larger
#else
constexpr std::size_t kStackPages = 48;
#endif

// The fiber being entered for the first time. Per OS thread; not zero, so that it is not taken for
// shared memory (qualifiers.h).
struct Entering {
  Fiber* fiber;
  Fiber* from;
  unsigned int marker;
};
__thread Entering entering = {nullptr, nullptr, 1};

}  // namespace

Fiber::Fiber(std::size_t slot) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  // One guard page, so that a kernel with too large locals crashes instead of writing into a
  // neighbour's stack. The odd number of pages and the staggered start keep the tops of the stacks
  // out of one another's cache sets: 1024 of them are live at once.
  stack_bytes_ = kStackPages * page;
  skip_ = (slot % 56) * 64;
  void* const mapping = mmap(nullptr, page + stack_bytes_, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED || mprotect(mapping, page, PROT_NONE) != 0) {
    std::fprintf(stderr, "reid_ops emulation: no memory for the stacks of a block's threads\n");
    std::abort();
  }
  mapping_ = static_cast<char*>(mapping);
  stack_ = mapping_ + page;
}

Fiber::~Fiber() {
  if (mapping_ == nullptr) return;
#if defined(REID_OPS_EMULATION_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(stack_, stack_bytes_);
#endif
  munmap(mapping_, static_cast<std::size_t>(stack_ - mapping_) + stack_bytes_);
}

void Fiber::enter() {
  Fiber* const self = entering.fiber;
#if defined(REID_OPS_EMULATION_ASAN)
  // The first switch away from the OS thread's stack is where its bounds become known.
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (entering.from->mapping_ == nullptr) {
    entering.from->bounds_bottom_ = bottom;
    entering.from->bounds_bytes_ = bytes;
  }
#endif
  self->entry_(self->argument_);
  std::abort();  // entry never returns
}

void Fiber::reset(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
#if defined(REID_OPS_EMULATION_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(stack_, stack_bytes_);
  bounds_bottom_ = stack_;
  bounds_bytes_ = stack_bytes_;
  fake_stack_ = nullptr;
#endif
#if defined(REID_OPS_EMULATION_UCONTEXT)
  getcontext(&ucontext_);
  ucontext_.uc_stack.ss_sp = stack_;
  ucontext_.uc_stack.ss_size = stack_bytes_ - skip_;
  ucontext_.uc_link = nullptr;
  makecontext(&ucontext_, &Fiber::enter, 0);
#else
  // What reid_ops_emulation_switch pops: six registers, then the address it returns to. Above that
  // a zero return address, where debuggers and sanitizers stop unwinding.
  std::uintptr_t top = reinterpret_cast<std::uintptr_t>(stack_ + stack_bytes_ - skip_);
  top &= ~static_cast<std::uintptr_t>(15);
  void** slot = reinterpret_cast<void**>(top);
  *--slot = nullptr;  // enter()'s return address; below it the stack is aligned as after a call
  *--slot = reinterpret_cast<void*>(&Fiber::enter);
  for (int saved = 0; saved < 6; ++saved) *--slot = nullptr;
  stack_pointer_ = slot;
#endif
}

void Fiber::switch_between(Fiber& from, Fiber& to) {
  entering.fiber = &to;
  entering.from = &from;
#if defined(REID_OPS_EMULATION_ASAN)
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bounds_bottom_, to.bounds_bytes_);
#endif
#if defined(REID_OPS_EMULATION_UCONTEXT)
  swapcontext(&from.ucontext_, &to.ucontext_);
#else
  reid_ops_emulation_switch(&from.stack_pointer_, to.stack_pointer_);
#endif
#if defined(REID_OPS_EMULATION_ASAN)
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

}  // namespace reid_ops_emulation
