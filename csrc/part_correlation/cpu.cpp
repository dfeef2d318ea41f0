// part_correlation on the CPU: picks the kernels compiled for this processor and for the type.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "common/cpu_scratch.h"
#include "common/float16.h"
#include "common/instruction_set.h"
#include "part_correlation/kernels.h"

#define REID_OPS_KERNEL_FILE "part_correlation/cpu_kernels.h"
#include "common/for_each_instruction_set.h"

namespace reid_ops::part_correlation {

std::int64_t cpu_items(const Forward& call, std::int64_t threads) {
  REID_OPS_CHOOSE(items_of, call, threads);
}
std::int64_t cpu_items(const GradSignal& call, std::int64_t threads) {
  REID_OPS_CHOOSE(items_of, call, threads);
}
std::int64_t cpu_items(const GradParts& call, std::int64_t threads) {
  REID_OPS_CHOOSE(items_of, call, threads);
}
std::int64_t cpu_items(const Backward& call, std::int64_t threads) {
  REID_OPS_CHOOSE(items_of, call, threads);
}
bool cpu_fits(const Backward& call) { REID_OPS_CHOOSE(fits_backward, call.problem); }
void cpu_run(const Forward& call, std::int64_t items, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, items, begin, end);
}
void cpu_run(const GradSignal& call, std::int64_t items, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, items, begin, end);
}
void cpu_run(const GradParts& call, std::int64_t items, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, items, begin, end);
}

void cpu_run(const Backward& call, std::int64_t items, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, items, begin, end);
}

}  // namespace reid_ops::part_correlation
