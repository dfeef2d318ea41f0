// A compiled evaluator of the usual kind, as a contender: walks one query's sorted gallery and gives its
// average precision. The order comes from numpy, whose argsort is vectorised.
#include <cstdint>

extern "C" double average_precision(const std::int64_t* order, std::int64_t items, std::int64_t identity,
                                    std::int64_t camera, const std::int64_t* identities,
                                    const std::int64_t* cameras, std::int64_t junk) {
  std::int64_t kept = 0;
  std::int64_t hits = 0;
  double precisions = 0.0;
  for (std::int64_t i = 0; i < items; ++i) {
    const std::int64_t item = order[i];
    const bool match = identities[item] == identity;
    if (identities[item] == junk || (match && cameras[item] == camera)) continue;
    ++kept;
    if (!match) continue;
    ++hits;
    precisions += static_cast<double>(hits) / static_cast<double>(kept);
  }
  return hits > 0 ? precisions / static_cast<double>(hits) : 0.0;
}
