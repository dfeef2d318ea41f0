// reid_ops._host: what needs no torch. Facts of the build, and the CPU kernels' choice of instructions.
#include <pybind11/pybind11.h>

#include <string>

#include "build_facts.h"  // written by setup.py: REID_OPS_BUILD_FACTS, a JSON object
#include "common/instruction_set.h"
#include "host/ranking_bindings.h"

namespace {

std::string compiler_name() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

// The instruction set that the CPU kernels use on this machine.
std::string cpu_capability() {
  switch (reid_ops::instruction_set()) {
    case reid_ops::InstructionSet::kAvx512:
      return "avx512";
    case reid_ops::InstructionSet::kAvx2:
      return "avx2";
    case reid_ops::InstructionSet::kBaseline:
      break;
  }
  return "baseline";
}

}  // namespace

PYBIND11_MODULE(_host, module) {
  module.doc() = "The part of reid_ops that needs no torch.";
  module.def(
      "build_facts", [] { return std::string(REID_OPS_BUILD_FACTS); },
      "Facts about the build of reid_ops, as a JSON object.");
  module.def("compiler", &compiler_name, "The C++ compiler that built this module.");
  module.def("cpu_capability", &cpu_capability,
             "The instruction set that the CPU kernels use here: \"avx512\", \"avx2\" or \"baseline\".");
  reid_ops::ranking::add_bindings(module);
}
