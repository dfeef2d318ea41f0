#include "host/ranking.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "common/instruction_set.h"
#include "host/rows.h"

#define REID_OPS_KERNEL_FILE "host/ranking_kernels.h"
#include "common/for_each_instruction_set.h"

namespace reid_ops::ranking {
namespace {

// Part of a row that stays in the first-level cache while every positive is counted against it.
constexpr std::int64_t kTileBytes = 16 * 1024;

// With more positives than this, finding each item's place among them by bisection beats comparing each
// positive with all items by vectors. From times on rows of 19,732: SSE2 meets bisection near 250 positives,
// AVX2 and AVX-512 beyond 500.
constexpr std::size_t kMostCounted = 256;

// Fewer removed items than this are placed by bisection too, without gathering their distances first.
constexpr std::size_t kFewRemoved = 64;

template <typename Real>
struct Kernels {
  std::int64_t (*count_below)(const Real*, std::int64_t, Real);
  std::int64_t (*count_up_to)(const Real*, std::int64_t, Real);
  bool (*has_nan)(const Real*, std::int64_t);
};

template <typename Real>
Kernels<Real> kernels() {
#if defined(REID_OPS_X86)
  switch (instruction_set()) {
    case InstructionSet::kAvx512:
      return {avx512::count_below<Real>, avx512::count_up_to<Real>, avx512::has_nan<Real>};
    case InstructionSet::kAvx2:
      return {avx2::count_below<Real>, avx2::count_up_to<Real>, avx2::has_nan<Real>};
    case InstructionSet::kBaseline:
      break;
  }
#endif
  return {baseline::count_below<Real>, baseline::count_up_to<Real>, baseline::has_nan<Real>};
}

// An item in ranking order: nearer first, equal distances by position.
template <typename Real>
struct Entry {
  Real distance;
  std::int64_t position;

  bool operator<(const Entry& other) const {
    return distance < other.distance || (distance == other.distance && position < other.position);
  }
};

template <typename Real>
class RowRanker {
 public:
  RowRanker(const Gallery& gallery, const Measures& measures)
      : gallery_(gallery), measures_(measures), kernels_(kernels<Real>()) {}

  // False if the row holds a NaN.
  bool run(const Real* row, std::int64_t query, std::int64_t identity, std::int64_t camera) {
    if (kernels_.has_nan(row, gallery_.size())) return false;
    gallery_.select(identity, camera, positives_, removed_);
    entries_.clear();
    for (const std::int64_t position : positives_) entries_.push_back({row[position], position});
    std::sort(entries_.begin(), entries_.end());
    ranks_.assign(entries_.size(), 0);
    if (entries_.size() > kMostCounted) {
      count_by_bisection(row);
    } else if (!entries_.empty()) {
      count_by_comparison(row);
    }
    if (!entries_.empty()) {
      leave_out(row, removed_);
      leave_out(row, gallery_.junk());
    }
    write(query);
    return true;
  }

 private:
  // Where an item falls among the positives: it comes before those from here on.
  std::size_t place(const Real* row, std::int64_t position) const {
    const Entry<Real> item{row[position], position};
    return static_cast<std::size_t>(std::upper_bound(entries_.begin(), entries_.end(), item) -
                                    entries_.begin());
  }

  void count_by_comparison(const Real* row) {
    const std::int64_t tile = kTileBytes / static_cast<std::int64_t>(sizeof(Real));
    for (std::int64_t begin = 0; begin < gallery_.size(); begin += tile) {
      const std::int64_t end = std::min(begin + tile, gallery_.size());
      for (std::size_t i = 0; i < entries_.size(); ++i) {
        const Entry<Real>& entry = entries_[i];
        // Before the positive's own position equals come first, after it they don't.
        const std::int64_t border = std::clamp(entry.position, begin, end);
        ranks_[i] += kernels_.count_up_to(row + begin, border - begin, entry.distance);
        ranks_[i] += kernels_.count_below(row + border, end - border, entry.distance);
      }
    }
  }

  void count_by_bisection(const Real* row) {
    places_.assign(entries_.size() + 1, 0);
    for (std::int64_t position = 0; position < gallery_.size(); ++position) ++places_[place(row, position)];
    std::int64_t before = 0;
    for (std::size_t i = 0; i < entries_.size(); ++i) ranks_[i] = (before += places_[i]);
  }

  // Takes back what `positions` (ascending) have added to the ranks.
  void leave_out(const Real* row, const std::vector<std::int64_t>& positions) {
    if (positions.size() < kFewRemoved || entries_.size() > kMostCounted) {
      places_.assign(entries_.size() + 1, 0);
      for (const std::int64_t position : positions) ++places_[place(row, position)];
      std::int64_t before = 0;
      for (std::size_t i = 0; i < entries_.size(); ++i) ranks_[i] -= (before += places_[i]);
      return;
    }
    gathered_.clear();
    for (const std::int64_t position : positions) gathered_.push_back(row[position]);
    const Real* values = gathered_.data();
    const auto size = static_cast<std::int64_t>(gathered_.size());
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const Entry<Real>& entry = entries_[i];
      const std::int64_t border =
          std::lower_bound(positions.begin(), positions.end(), entry.position) - positions.begin();
      ranks_[i] -= kernels_.count_up_to(values, border, entry.distance);
      ranks_[i] -= kernels_.count_below(values + border, size - border, entry.distance);
    }
  }

  void write(std::int64_t query) const {
    const std::size_t count = ranks_.size();
    double precisions = 0.0;
    double area = 0.0;
    for (std::size_t i = 0; i < count; ++i) {
      const double precision = static_cast<double>(i + 1) / static_cast<double>(ranks_[i] + 1);
      const double before = ranks_[i] == 0 ? 1.0 : static_cast<double>(i) / static_cast<double>(ranks_[i]);
      precisions += precision;
      area += (before + precision) / 2.0;
    }
    const double divisor = static_cast<double>(std::max<std::size_t>(count, 1));
    measures_.positives[query] = static_cast<std::int64_t>(count);
    measures_.first_rank[query] = count > 0 ? ranks_.front() : -1;
    measures_.last_rank[query] = count > 0 ? ranks_.back() : -1;
    measures_.mean_precision[query] = precisions / divisor;
    measures_.trapezoid[query] = area / divisor;
  }

  const Gallery& gallery_;
  const Measures& measures_;
  const Kernels<Real> kernels_;
  std::vector<std::int64_t> positives_;
  std::vector<std::int64_t> removed_;
  std::vector<std::int64_t> ranks_;
  std::vector<std::int64_t> places_;
  std::vector<Real> gathered_;
  std::vector<Entry<Real>> entries_;
};

}  // namespace

void Groups::build(const std::int64_t* values, std::int64_t size) {
  std::vector<std::pair<std::int64_t, std::int64_t>> pairs(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) pairs[static_cast<std::size_t>(i)] = {values[i], i};
  std::sort(pairs.begin(), pairs.end());
  positions_.resize(pairs.size());
  values_.clear();
  offsets_.clear();
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    positions_[i] = pairs[i].second;
    if (!values_.empty() && values_.back() == pairs[i].first) continue;
    values_.push_back(pairs[i].first);
    offsets_.push_back(static_cast<std::int64_t>(i));
  }
  offsets_.push_back(size);
}

Groups::Span Groups::find(std::int64_t value) const {
  const auto found = std::lower_bound(values_.begin(), values_.end(), value);
  if (found == values_.end() || *found != value) return {nullptr, nullptr};
  const std::size_t index = static_cast<std::size_t>(found - values_.begin());
  return {positions_.data() + offsets_[index], positions_.data() + offsets_[index + 1]};
}

Gallery::Gallery(const std::int64_t* identities, const std::int64_t* cameras, std::int64_t size,
                 const std::int64_t* junk, CameraRule rule)
    : size_(size),
      rule_(rule),
      has_junk_(junk != nullptr),
      junk_identity_(junk != nullptr ? *junk : 0),
      is_junk_(static_cast<std::size_t>(size), false) {
  by_identity_.build(identities, size);
  if (junk != nullptr) {
    const Groups::Span span = by_identity_.find(*junk);
    junk_.assign(span.begin, span.end);
    for (const std::int64_t position : junk_) is_junk_[static_cast<std::size_t>(position)] = true;
  }
  if (rule_ != CameraRule::kNone) cameras_.assign(cameras, cameras + size);
  if (rule_ == CameraRule::kAny) by_camera_.build(cameras, size);
}

void Gallery::select(std::int64_t identity, std::int64_t camera, std::vector<std::int64_t>& positives,
                     std::vector<std::int64_t>& removed) const {
  positives.clear();
  removed.clear();
  if (rule_ == CameraRule::kAny) {
    const Groups::Span span = by_camera_.find(camera);
    for (const std::int64_t* item = span.begin; item != span.end; ++item) {
      if (!is_junk_[static_cast<std::size_t>(*item)]) removed.push_back(*item);
    }
  }
  const Groups::Span span = by_identity_.find(identity);
  for (const std::int64_t* item = span.begin; item != span.end; ++item) {
    const std::size_t position = static_cast<std::size_t>(*item);
    if (is_junk_[position]) return;  // the query's identity is junk itself: it has no positives
    if (rule_ == CameraRule::kNone || cameras_[position] != camera) {
      positives.push_back(*item);
    } else if (rule_ == CameraRule::kSameIdentity) {
      removed.push_back(*item);
    }
  }
}

template <typename Real>
std::int64_t evaluate(const Gallery& gallery, const Distances<Real>& distances,
                      const std::int64_t* identities, const std::int64_t* cameras, std::int64_t threads,
                      const Measures& measures) {
  LowestRow bad;
  share_rows(distances.rows, threads, [&](const auto& next) {
    RowRanker<Real> ranker(gallery, measures);
    for (std::int64_t query = next(); query >= 0; query = next()) {
      const Real* row = distances.values + query * distances.row_stride;
      const std::int64_t camera = cameras != nullptr ? cameras[query] : 0;
      if (!ranker.run(row, query, identities[query], camera)) bad.note(query);
    }
  });
  return bad.row();
}

template std::int64_t evaluate<float>(const Gallery&, const Distances<float>&, const std::int64_t*,
                                      const std::int64_t*, std::int64_t, const Measures&);
template std::int64_t evaluate<double>(const Gallery&, const Distances<double>&, const std::int64_t*,
                                       const std::int64_t*, std::int64_t, const Measures&);

}  // namespace reid_ops::ranking
