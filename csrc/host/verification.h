// Where impostor pairs fall among the distances of genuine pairs: an exact ROC without sorting all pairs.
#pragma once

#include <cstdint>
#include <vector>

#include "host/ranking.h"

namespace reid_ops::ranking {

// Thresholds, strictly ascending, with a table over equal steps of their range: the place of a value is
// looked for only among the thresholds of its step.
template <typename Real>
class Thresholds {
 public:
  Thresholds(const Real* values, std::int64_t size);

  std::int64_t size() const { return static_cast<std::int64_t>(values_.size()); }
  bool equals(std::int64_t place, Real value) const { return place < size() && values_[place] == value; }

  // How many thresholds are below the value, which is not NaN.
  std::int64_t place(Real value) const;

 private:
  std::int64_t step_of(Real value) const;

  std::vector<Real> values_;
  std::vector<std::int32_t> first_;  // of a step: how many thresholds lie in earlier ones; then size()
  double low_ = 0, scale_ = 0;
  Real least_ = 0, most_ = 0;  // finite ones
};

// What impostor pairs (other identity, neither junk nor removed for the camera) give.
struct ImpostorCounts {
  std::int64_t* at_place;  // [size + 1] pairs with so many thresholds below their distance
  std::int64_t* equal;     // [size + 1] those of them whose distance is the threshold of that place
};

// Adds the impostor pairs of all rows on `threads` threads. A query whose identity is junk makes none.
// Returns the lowest row that holds a NaN, or -1; after a NaN the counts mean nothing.
template <typename Real>
std::int64_t count_impostors(const Gallery& gallery, const Distances<Real>& distances,
                             const std::int64_t* identities, const std::int64_t* cameras,
                             const Thresholds<Real>& thresholds, std::int64_t threads,
                             const ImpostorCounts& counts);

extern template class Thresholds<float>;
extern template class Thresholds<double>;
extern template std::int64_t count_impostors<float>(const Gallery&, const Distances<float>&,
                                                    const std::int64_t*, const std::int64_t*,
                                                    const Thresholds<float>&, std::int64_t,
                                                    const ImpostorCounts&);
extern template std::int64_t count_impostors<double>(const Gallery&, const Distances<double>&,
                                                     const std::int64_t*, const std::int64_t*,
                                                     const Thresholds<double>&, std::int64_t,
                                                     const ImpostorCounts&);

}  // namespace reid_ops::ranking
