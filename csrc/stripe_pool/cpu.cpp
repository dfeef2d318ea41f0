// stripe_pool on the CPU: picks the kernels compiled for this processor and for the type.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "common/float16.h"
#include "common/instruction_set.h"
#include "stripe_pool/kernels.h"

#define REID_OPS_KERNEL_FILE "stripe_pool/cpu_kernels.h"
#include "common/for_each_instruction_set.h"

namespace reid_ops::stripe_pool {

std::int64_t cpu_items(const Forward& call, std::int64_t) { REID_OPS_CHOOSE(items_of, call.problem); }
std::int64_t cpu_items(const Backward& call, std::int64_t) { REID_OPS_CHOOSE(items_of, call.problem); }
void cpu_run(const Forward& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, begin, end);
}
void cpu_run(const Backward& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, begin, end);
}

}  // namespace reid_ops::stripe_pool
