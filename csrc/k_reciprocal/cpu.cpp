// k_reciprocal on the CPU: the sparse stages, and the choice of the streaming ones' instruction set.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/cpu_scratch.h"
#include "common/float16.h"
#include "common/instruction_set.h"
#include "k_reciprocal/kernels.h"
#include "k_reciprocal/search.h"

#define REID_OPS_KERNEL_FILE "k_reciprocal/cpu_kernels.h"
#include "common/for_each_instruction_set.h"

namespace reid_ops::k_reciprocal {
namespace {

// For every number below `count`: when it was last seen, and where. Clearing is stepping the time on.
class Marks {
 public:
  explicit Marks(std::int64_t count) {
    CpuScratch& scratch = CpuScratch::of_this_thread();
    scratch.reserve(2 * CpuScratch::bytes_of<std::int32_t>(count));
    seen_ = scratch.take<std::int32_t>(count);
    place_ = scratch.take<std::int32_t>(count);
    std::fill(seen_, seen_ + count, -1);
  }
  bool has(std::int64_t number, std::int64_t now) const { return seen_[number] == now; }
  std::int32_t place(std::int64_t number) const { return place_[number]; }
  void put(std::int64_t number, std::int64_t now, std::int64_t place) {
    seen_[number] = static_cast<std::int32_t>(now);
    place_[number] = static_cast<std::int32_t>(place);
  }

 private:
  std::int32_t* seen_;
  std::int32_t* place_;
};

// Whether a row of this size is what the offsets have room for.
bool fits(const std::int64_t* offsets, std::int64_t row, std::int64_t size, Misfit* misfit) {
  if (size == offsets[row + 1] - offsets[row]) return true;
  misfit->store(true, std::memory_order_relaxed);
  return false;
}

bool is_item(std::int64_t number, const Lists& lists) { return number >= 0 && number < lists.items; }

void reverse_ranks(const ReverseRanks& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t length = call.lists.length;
  for (std::int64_t item = begin; item < end; ++item) {
    for (std::int64_t r = 0; r < length; ++r) {
      const std::int64_t other = call.lists.neighbours[item * length + r];
      std::int64_t place = length;
      if (is_item(other, call.lists)) {
        const std::int32_t* list = call.lists.neighbours + other * length;
        place = std::find(list, list + length, static_cast<std::int32_t>(item)) - list;
      }
      call.reverse[item * length + r] = static_cast<std::int32_t>(place);
    }
  }
}

void sets(const Sets& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t length = call.lists.length;
  Marks marks(call.lists.items);
  std::vector<std::int32_t> members, added;
  for (std::int64_t item = begin; item < end; ++item) {
    members.clear();
    const auto append = [&](std::int32_t other) {
      if (marks.has(other, item)) return;
      marks.put(other, item, static_cast<std::int64_t>(members.size()));
      members.push_back(other);
    };
    // The members of a reciprocal set: neighbours among the first `places` that return the favour.
    const auto each_reciprocal = [&](std::int64_t of, std::int64_t places, const auto& use) {
      for (std::int64_t r = 0; r < std::min(places, length); ++r) {
        const std::int32_t other = call.lists.neighbours[of * length + r];
        if (is_item(other, call.lists) && call.reverse[of * length + r] < places) use(other);
      }
    };
    each_reciprocal(item, call.list, append);
    const std::int64_t reciprocal = static_cast<std::int64_t>(members.size());
    for (std::int64_t k = 0; k < reciprocal; ++k) {
      added.clear();
      std::int64_t overlap = 0;
      each_reciprocal(members[k], call.half, [&](std::int32_t other) {
        added.push_back(other);
        overlap += marks.has(other, item) && marks.place(other) < reciprocal;
      });
      if (3 * overlap > 2 * static_cast<std::int64_t>(added.size())) {
        for (const std::int32_t other : added) append(other);
      }
    }
    if (call.columns == nullptr) {
      call.sizes[item] = static_cast<std::int64_t>(members.size());
    } else if (fits(call.offsets, item, static_cast<std::int64_t>(members.size()), call.misfit)) {
      std::copy(members.begin(), members.end(), call.columns + call.offsets[item]);
    }
  }
}

template <typename T>
void encode(const Encode& call, std::int64_t begin, std::int64_t end) {
  const T* distances = static_cast<const T*>(call.distances);
  T* weights = static_cast<T*>(call.weights);
  for (std::int64_t item = begin; item < end; ++item) {
    const T scale = static_cast<const T*>(call.scale)[item];
    T total = 0;
    for (std::int64_t e = call.offsets[item]; e < call.offsets[item + 1]; ++e) {
      weights[e] = std::exp(-(distances[e] * scale));
      total += weights[e];
    }
    // A row far from all of its own members (raw distances of 100 and more) has no weights left.
    if (!(total > 0)) continue;
    for (std::int64_t e = call.offsets[item]; e < call.offsets[item + 1]; ++e) weights[e] /= total;
  }
}

template <typename T>
void expand(const Expand& call, std::int64_t begin, std::int64_t end) {
  const std::int64_t length = call.lists.length, members = std::min(call.members, length);
  const T* source = static_cast<const T*>(call.source.weights);
  T* weights = static_cast<T*>(call.weights);
  Marks marks(call.lists.items);
  for (std::int64_t item = begin; item < end; ++item) {
    const bool fills = call.columns != nullptr;
    const std::int64_t start = fills ? call.offsets[item] : 0;
    const std::int64_t room = fills ? call.offsets[item + 1] - start : 0;
    std::int64_t size = 0, rows = 0;
    for (std::int64_t r = 0; r < members; ++r) {
      const std::int64_t other = call.lists.neighbours[item * length + r];
      if (!is_item(other, call.lists)) continue;
      ++rows;
      for (std::int64_t e = call.source.offsets[other]; e < call.source.offsets[other + 1]; ++e) {
        const std::int32_t column = call.source.columns[e];
        const bool known = marks.has(column, item);
        if (!known) marks.put(column, item, size);
        const std::int64_t place = known ? marks.place(column) : size++;
        if (place >= room) continue;  // counting, or offsets that don't belong to these rows
        if (known) {
          weights[start + place] += source[e];
        } else {
          call.columns[start + place] = column;
          weights[start + place] = source[e];
        }
      }
    }
    if (!fills) {
      call.sizes[item] = size;
    } else if (fits(call.offsets, item, size, call.misfit)) {
      for (std::int64_t e = start; e < start + size; ++e) weights[e] /= static_cast<T>(rows);
    }
  }
}

// Each work item owns a range of columns and reads all entries for them: no two write the same list.
template <typename T>
void invert(const Invert& call, std::int64_t items, std::int64_t begin, std::int64_t end) {
  const std::int64_t low = call.items * begin / items, high = call.items * end / items;
  std::vector<std::int64_t> cursor(static_cast<std::size_t>(high - low), 0);
  if (call.rows != nullptr) std::copy(call.offsets + low, call.offsets + high, cursor.begin());
  const T* source = static_cast<const T*>(call.source.weights);
  for (std::int64_t row = call.first_row; row < call.items; ++row) {
    for (std::int64_t e = call.source.offsets[row]; e < call.source.offsets[row + 1]; ++e) {
      const std::int64_t column = call.source.columns[e];
      if (column < low || column >= high) continue;
      const std::int64_t place = cursor[static_cast<std::size_t>(column - low)]++;
      if (call.rows == nullptr || place >= call.offsets[column + 1]) continue;
      call.rows[place] = static_cast<std::int32_t>(row - call.first_row);
      static_cast<T*>(call.weights)[place] = source[e];
    }
  }
  if (call.rows == nullptr) {
    std::copy(cursor.begin(), cursor.end(), call.sizes + low);
    return;
  }
  for (std::int64_t column = low; column < high; ++column) {
    const std::int64_t size = cursor[static_cast<std::size_t>(column - low)] - call.offsets[column];
    if (!fits(call.offsets, column, size, call.misfit)) return;
  }
}

void run(const Nearest& call, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, begin, end);
}
void run(const Pack& call, std::int64_t begin, std::int64_t end) { REID_OPS_CHOOSE(run, call, begin, end); }
void run(const Products& call, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, begin, end);
}
void run(const Search& call, std::int64_t begin, std::int64_t end) { REID_OPS_CHOOSE(run, call, begin, end); }
void run(const PairDistances& call, std::int64_t begin, std::int64_t end) {
  REID_OPS_CHOOSE(run, call, begin, end);
}
void run(const Blend& call, std::int64_t begin, std::int64_t end) { REID_OPS_CHOOSE(run, call, begin, end); }

}  // namespace

std::int64_t cpu_items(const Nearest& call, std::int64_t) { REID_OPS_CHOOSE(items_of, call); }
std::int64_t cpu_items(const Pack& call, std::int64_t) { REID_OPS_CHOOSE(items_of, call); }
std::int64_t cpu_items(const Products& call, std::int64_t) {
  return ((call.rows + call.block - 1) / call.block) * ((call.columns + call.block - 1) / call.block);
}
std::int64_t cpu_items(const Search& call, std::int64_t) { return call.blocks() * (call.blocks() + 1) / 2; }
std::int64_t packed_rows(std::int64_t items, DataType type) { REID_OPS_CHOOSE(packed_rows, items, type); }
std::int64_t cpu_items(const ReverseRanks& call, std::int64_t) { return call.lists.items; }
std::int64_t cpu_items(const Sets& call, std::int64_t) { return call.lists.items; }
std::int64_t cpu_items(const PairDistances& call, std::int64_t) { return call.items; }
std::int64_t cpu_items(const Encode& call, std::int64_t) { return call.items; }
std::int64_t cpu_items(const Expand& call, std::int64_t) { return call.lists.items; }
std::int64_t cpu_items(const Invert&, std::int64_t threads) { return threads; }
std::int64_t cpu_items(const Blend& call, std::int64_t) { return call.block.rows; }

void cpu_run(const Nearest& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  run(call, begin, end);
}
void cpu_run(const Pack& call, std::int64_t, std::int64_t begin, std::int64_t end) { run(call, begin, end); }
void cpu_run(const Products& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  run(call, begin, end);
}
void cpu_run(const Search& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  run(call, begin, end);
}
void cpu_run(const ReverseRanks& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  reverse_ranks(call, begin, end);
}
void cpu_run(const Sets& call, std::int64_t, std::int64_t begin, std::int64_t end) { sets(call, begin, end); }
void cpu_run(const PairDistances& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  run(call, begin, end);
}
void cpu_run(const Encode& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  call.type == DataType::kFloat64 ? encode<double>(call, begin, end) : encode<float>(call, begin, end);
}
void cpu_run(const Expand& call, std::int64_t, std::int64_t begin, std::int64_t end) {
  call.type == DataType::kFloat64 ? expand<double>(call, begin, end) : expand<float>(call, begin, end);
}
void cpu_run(const Invert& call, std::int64_t items, std::int64_t begin, std::int64_t end) {
  call.type == DataType::kFloat64 ? invert<double>(call, items, begin, end)
                                  : invert<float>(call, items, begin, end);
}
void cpu_run(const Blend& call, std::int64_t, std::int64_t begin, std::int64_t end) { run(call, begin, end); }

}  // namespace reid_ops::k_reciprocal
