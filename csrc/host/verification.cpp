#include "host/verification.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <mutex>
#include <stdexcept>

#include "host/rows.h"

namespace reid_ops::ranking {

template <typename Real>
Thresholds<Real>::Thresholds(const Real* values, std::int64_t size) : values_(values, values + size) {
  if (size >= std::numeric_limits<std::int32_t>::max()) throw std::length_error("too many thresholds");
  const auto falls = [](Real earlier, Real later) { return !(earlier < later); };
  if (std::adjacent_find(values_.begin(), values_.end(), falls) != values_.end()) {
    throw std::invalid_argument("thresholds must ascend");
  }
  const auto finite = [](Real value) { return std::isfinite(value); };
  const auto least = std::find_if(values_.begin(), values_.end(), finite);
  const auto most = std::find_if(values_.rbegin(), values_.rend(), finite);
  if (least != values_.end()) least_ = *least, most_ = *most;
  // Two steps a threshold: most hold one or none, and the table is no larger than the thresholds.
  const std::int64_t steps = std::max<std::int64_t>(1, 2 * size);
  low_ = static_cast<double>(least_);
  const double range = static_cast<double>(most_) - low_;
  // Of a range too long or too short for a table (infinite, or below 1e-308) all is in one step.
  const double scale = range > 0 ? static_cast<double>(steps - 1) / range : 0.0;
  scale_ = std::isfinite(range) && std::isfinite(scale) ? scale : 0.0;
  first_.assign(static_cast<std::size_t>(steps) + 1, 0);
  for (const Real value : values_) ++first_[static_cast<std::size_t>(step_of(value)) + 1];
  for (std::size_t step = 1; step < first_.size(); ++step) first_[step] += first_[step - 1];
}

// Never falls as the value grows, whatever is rounded: so who is in an earlier step is below.
template <typename Real>
std::int64_t Thresholds<Real>::step_of(Real value) const {
  const Real inside = std::min(std::max(value, least_), most_);
  return static_cast<std::int64_t>((static_cast<double>(inside) - low_) * scale_);
}

template <typename Real>
std::int64_t Thresholds<Real>::place(Real value) const {
  const std::size_t step = static_cast<std::size_t>(step_of(value));
  const Real* begin = values_.data() + first_[step];
  const Real* end = values_.data() + first_[step + 1];
  while (end - begin > 8) {
    const Real* middle = begin + (end - begin) / 2;
    if (*middle < value) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  while (begin < end && *begin < value) ++begin;
  return begin - values_.data();
}

namespace {

template <typename Real>
class RowCounter {
 public:
  RowCounter(const Gallery& gallery, const Thresholds<Real>& thresholds)
      : gallery_(gallery),
        thresholds_(thresholds),
        at_place_(static_cast<std::size_t>(thresholds.size()) + 1, 0),
        equal_(at_place_) {}

  // False if the row holds a NaN.
  bool run(const Real* row, std::int64_t identity, std::int64_t camera) {
    bool nan = false;
    for (std::int64_t item = 0; item < gallery_.size(); ++item) nan |= row[item] != row[item];
    if (nan) return false;
    if (gallery_.is_junk(identity)) return true;
    gallery_.select(identity, camera, positives_, removed_);
    for (std::int64_t item = 0; item < gallery_.size(); ++item) add(row[item], 1);
    take_back(row, positives_);
    take_back(row, removed_);
    take_back(row, gallery_.junk());
    return true;
  }

  void add_to(const ImpostorCounts& counts) const {
    for (std::size_t place = 0; place < at_place_.size(); ++place) {
      counts.at_place[place] += at_place_[place];
      counts.equal[place] += equal_[place];
    }
  }

 private:
  void add(Real value, std::int64_t pairs) {
    const std::int64_t place = thresholds_.place(value);
    at_place_[static_cast<std::size_t>(place)] += pairs;
    if (thresholds_.equals(place, value)) equal_[static_cast<std::size_t>(place)] += pairs;
  }

  void take_back(const Real* row, const std::vector<std::int64_t>& items) {
    for (const std::int64_t item : items) add(row[item], -1);
  }

  const Gallery& gallery_;
  const Thresholds<Real>& thresholds_;
  std::vector<std::int64_t> at_place_;
  std::vector<std::int64_t> equal_;
  std::vector<std::int64_t> positives_;
  std::vector<std::int64_t> removed_;
};

}  // namespace

template <typename Real>
std::int64_t count_impostors(const Gallery& gallery, const Distances<Real>& distances,
                             const std::int64_t* identities, const std::int64_t* cameras,
                             const Thresholds<Real>& thresholds, std::int64_t threads,
                             const ImpostorCounts& counts) {
  std::mutex mutex;
  LowestRow bad;
  share_rows(distances.rows, threads, [&](const auto& next) {
    RowCounter<Real> counter(gallery, thresholds);
    for (std::int64_t query = next(); query >= 0; query = next()) {
      const Real* row = distances.values + query * distances.row_stride;
      if (!counter.run(row, identities[query], cameras != nullptr ? cameras[query] : 0)) bad.note(query);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    counter.add_to(counts);
  });
  return bad.row();
}

template class Thresholds<float>;
template class Thresholds<double>;
template std::int64_t count_impostors<float>(const Gallery&, const Distances<float>&, const std::int64_t*,
                                             const std::int64_t*, const Thresholds<float>&, std::int64_t,
                                             const ImpostorCounts&);
template std::int64_t count_impostors<double>(const Gallery&, const Distances<double>&, const std::int64_t*,
                                              const std::int64_t*, const Thresholds<double>&, std::int64_t,
                                              const ImpostorCounts&);

}  // namespace reid_ops::ranking
