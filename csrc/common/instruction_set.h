// Which vector instructions this processor has, asked once at run time.
//
// One wheel serves every x86-64 machine: the CPU kernels are compiled once per instruction set
// (for_each_instruction_set.h) and chosen here. REID_OPS_CPU=baseline|avx2|avx512 in the
// environment lowers the choice, for tests and for comparing.
#pragma once

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define REID_OPS_X86 1
#endif

namespace reid_ops {

enum class InstructionSet { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

inline InstructionSet detect_instruction_set() {
  InstructionSet best = InstructionSet::kBaseline;
#if defined(REID_OPS_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    best = InstructionSet::kAvx2;
  if (best == InstructionSet::kAvx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    best = InstructionSet::kAvx512;
  }
#endif
  const char* wish = std::getenv("REID_OPS_CPU");
  if (wish == nullptr) return best;
  const auto lower = [best](InstructionSet wanted) { return wanted < best ? wanted : best; };
  if (std::strcmp(wish, "baseline") == 0) return InstructionSet::kBaseline;
  if (std::strcmp(wish, "avx2") == 0) return lower(InstructionSet::kAvx2);
  if (std::strcmp(wish, "avx512") == 0 || *wish == '\0') return best;
  throw std::invalid_argument(std::string("REID_OPS_CPU must be baseline, avx2 or avx512, got ") + wish);
}

inline InstructionSet instruction_set() {
  static const InstructionSet chosen = detect_instruction_set();
  return chosen;
}

}  // namespace reid_ops

// Returns function(arguments) as for_each_instruction_set.h has compiled it for this processor.
#if defined(REID_OPS_X86)
#define REID_OPS_CHOOSE(function, ...)        \
  switch (reid_ops::instruction_set()) {      \
    case reid_ops::InstructionSet::kAvx512:   \
      return avx512::function(__VA_ARGS__);   \
    case reid_ops::InstructionSet::kAvx2:     \
      return avx2::function(__VA_ARGS__);     \
    default:                                  \
      return baseline::function(__VA_ARGS__); \
  }
#else
#define REID_OPS_CHOOSE(function, ...) return baseline::function(__VA_ARGS__)
#endif
