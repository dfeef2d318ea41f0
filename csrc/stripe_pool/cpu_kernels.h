// stripe_pool on the CPU. Compiled once per instruction set (see cpu.cpp); no include guard.
//
// A vector holds one position of as many channels as it has lanes, so that maxima, their positions and
// sums need nothing across lanes, and the results, channel by channel in memory, are stored as they are.
// An item is one image's group of channels: [N,C,H,W] maps are transposed in registers on the way in,
// [N,H,W,C] maps are read as they lie.

namespace reid_ops::stripe_pool::REID_OPS_ISA {

#include "common/cpu_vector.h"

// Positions that lie transposed on the stack at a time: 16 KB with the widest vectors, half of the
// first-level cache or less.
constexpr std::int64_t kChunk = 256;
// [N,H,W,C]: vectors side by side, so that a position is read in runs of several cache lines and the sums
// and maxima of all still fit the registers.
constexpr int kVectorsTogether = 4;

// Lane-wise integers as wide as T: what comparisons give, and positions.
template <typename T>
using IndexOf = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

template <typename T>
REID_OPS_INLINE Vector<T> broadcast(T value) {
  return Vector<T>{} + value;
}

// The first `count` lanes, zeros after them.
template <typename S, typename T>
REID_OPS_INLINE Vector<T> load_some(const S* source, int count) {
  if (count == kLanes<T>) return load_widened<S, T>(source);
  S elements[kLanes<T>] = {};
  std::memcpy(elements, source, count * sizeof(S));
  return load_widened<S, T>(elements);
}

template <typename S, typename T>
REID_OPS_INLINE void store_some(S* target, Vector<T> value, int count) {
  if (count == kLanes<T>) return store_narrowed<S, T>(target, value);
  store_first<S, T>(target, value, count);
}

// What is known of a run of positions, of kLanes channels.
template <typename T>
struct Run {
  Vector<T> maximum, sum;
  Vector<IndexOf<T>> where;

  static REID_OPS_INLINE Run empty(std::int64_t first) {
    return {broadcast<T>(-std::numeric_limits<T>::infinity()), Vector<T>{},
            broadcast<IndexOf<T>>(static_cast<IndexOf<T>>(first))};
  }
  // Where another value takes the maximum's place: it is greater, or the first NaN.
  REID_OPS_INLINE auto beaten_by(Vector<T> value) const { return ~(value <= maximum) & (maximum == maximum); }
  // Takes in a run that comes after.
  REID_OPS_INLINE void append(const Run& next) {
    const auto better = beaten_by(next.maximum);
    maximum = better ? next.maximum : maximum;
    where = better ? next.where : where;
    sum += next.sum;
  }
};

REID_OPS_INLINE bool any_nan(Vector<float> value) {
  const auto unordered = value != value;
  std::int32_t any = 0;
  for (int lane = 0; lane < kLanes<float>; ++lane) any |= unordered[lane];
  return any != 0;
}
REID_OPS_INLINE bool any_nan(Vector<double> value) {
  const auto unordered = value != value;
  std::int64_t any = 0;
  for (int lane = 0; lane < kLanes<double>; ++lane) any |= unordered[lane];
  return any != 0;
}

// Positions first .. first + count - 1 of kVectors groups of channels; load(position, vector). Values are
// compared as if none were NaN, which is one comparison less: a NaN shows in the sum, and then they are
// walked again.
template <typename T, bool kArgmax, int kVectors, typename Load>
REID_OPS_INLINE void take_positions(std::int64_t first, std::int64_t count, Run<T>* runs, const Load& load) {
  Run<T> taken[kVectors];
  for (int k = 0; k < kVectors; ++k) taken[k] = Run<T>::empty(first);
  Vector<IndexOf<T>> index = taken[0].where;
  for (std::int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 4
    for (int k = 0; k < kVectors; ++k) {
      const Vector<T> value = load(i, k);
      const auto better = value > taken[k].maximum;
      taken[k].maximum = better ? value : taken[k].maximum;
      if constexpr (kArgmax) taken[k].where = better ? index : taken[k].where;
      taken[k].sum += value;
    }
    index += 1;
  }
  for (int k = 0; k < kVectors; ++k) {
    if (__builtin_expect(any_nan(taken[k].sum), 0)) {
      taken[k] = Run<T>::empty(first);
      for (std::int64_t i = 0; i < count; ++i) {
        const Vector<T> value = load(i, k);
        taken[k].append({value, value, broadcast<IndexOf<T>>(static_cast<IndexOf<T>>(first + i))});
      }
    }
    runs[k].append(taken[k]);
  }
}

// body(stripe, first position, count) for the stripes' shares of positions begin .. end - 1.
template <typename Body>
REID_OPS_INLINE void for_each_share(std::int64_t begin, std::int64_t end, std::int64_t size,
                                    const Body& body) {
  for (std::int64_t stripe = begin / size; begin < end; ++stripe) {
    const std::int64_t next = std::min(end, (stripe + 1) * size);
    body(stripe, begin, next - begin);
    begin = next;
  }
}

// From the stripes of `used` channels to all windows. `runs` are `step` apart.
template <typename S, typename T>
void write_windows(const Forward& call, std::int64_t image, std::int64_t channel, int used,
                   const Run<T>* runs, int step) {
  const Problem& problem = call.problem;
  const std::int64_t channels = problem.channels, windows = problem.windows();
  S* output = static_cast<S*>(call.output) + image * windows * 2 * channels + channel;
  std::int32_t* argmax =
      call.argmax == nullptr ? nullptr : call.argmax + image * windows * channels + channel;
  for (std::int64_t first = 0; first < problem.stripes; ++first) {
    Run<T> run = runs[first * step];
    for (std::int64_t length = 1; first + length <= problem.stripes; ++length) {
      if (length > 1) run.append(runs[(first + length - 1) * step]);
      const std::int64_t window = problem.window(first, length);
      S* target = output + window * 2 * channels;
      store_some<S, T>(target, run.maximum, used);
      store_some<S, T>(target + channels,
                       run.sum / broadcast<T>(static_cast<T>(length * problem.stripe_size())), used);
      if (argmax != nullptr) {
        store_some<std::int32_t, IndexOf<T>>(argmax + window * channels, run.where, used);
      }
    }
  }
}

// ------------------------------------------------------------------ forward

template <typename S, typename T, bool kArgmax>
void forward_planes(const Forward& call, std::int64_t image, std::int64_t channel, int used) {
  constexpr int lanes = kLanes<T>;
  const Problem& problem = call.problem;
  const std::int64_t positions = problem.positions(), size = problem.stripe_size();
  const S* x = static_cast<const S*>(call.x);
  const std::int64_t elements = problem.batch * problem.channels * positions;
  Planes<const S, T> planes = {};
  planes.row_stride = planes.column_stride = 1;
  planes.limit = x + elements;
  const S* first = x + (image * problem.channels + channel) * positions;
  if (used == lanes) {
    // Larger than what a core has of the third-level cache: ask for the planes that come next.
    planes.spread(first, positions,
                  elements * static_cast<std::int64_t>(sizeof(S)) >= std::int64_t{16} << 20);
  } else {
    planes.used = used;
    for (int lane = 0; lane < used; ++lane) planes.plane[lane] = first + lane * positions;
    planes.finish();
  }
  alignas(REID_OPS_VECTOR_BYTES) T chunk[kChunk * lanes];
  Run<T> runs[kMaxStripes];
  for (std::int64_t stripe = 0; stripe < problem.stripes; ++stripe)
    runs[stripe] = Run<T>::empty(stripe * size);
  for (std::int64_t begin = 0; begin < positions; begin += kChunk) {
    const std::int64_t count = std::min(kChunk, positions - begin);
    pack<S, T>(planes, {begin, 1, count, 1, 0}, chunk);
    for_each_share(
        begin, begin + count, size, [&](std::int64_t stripe, std::int64_t from, std::int64_t share) {
          const T* values = chunk + (from - begin) * lanes;
          take_positions<T, kArgmax, 1>(
              from, share, runs + stripe,
              [&](std::int64_t i, int) REID_OPS_ALWAYS_INLINE { return load_aligned(values + i * lanes); });
        });
  }
  write_windows<S, T>(call, image, channel, used, runs, 1);
}

// kVectors whole vectors of channels, or one of which `used` lanes are there.
template <typename S, typename T, bool kArgmax, int kVectors>
void forward_pixels(const Forward& call, std::int64_t image, std::int64_t channel, int used) {
  constexpr int lanes = kLanes<T>;
  const Problem& problem = call.problem;
  const std::int64_t channels = problem.channels, size = problem.stripe_size();
  const S* x = static_cast<const S*>(call.x) + image * problem.positions() * channels + channel;
  Run<T> runs[kMaxStripes * kVectors];
  for (std::int64_t stripe = 0; stripe < problem.stripes; ++stripe) {
    const std::int64_t first = stripe * size;
    Run<T>* own = runs + stripe * kVectors;
    for (int k = 0; k < kVectors; ++k) own[k] = Run<T>::empty(first);
    // In short shares, whose sums are then added: rounding grows with a share's length, not a stripe's.
    for (std::int64_t done = 0; done < size; done += kChunk) {
      const S* from = x + (first + done) * channels;
      take_positions<T, kArgmax, kVectors>(first + done, std::min(kChunk, size - done), own,
                                           [&](std::int64_t i, int k) REID_OPS_ALWAYS_INLINE {
                                             const S* source = from + i * channels + k * lanes;
                                             return kVectors > 1 ? load_widened<S, T>(source)
                                                                 : load_some<S, T>(source, used);
                                           });
    }
  }
  for (int k = 0; k < kVectors; ++k) {
    write_windows<S, T>(call, image, channel + k * lanes, kVectors > 1 ? lanes : used, runs + k, kVectors);
  }
}

// ----------------------------------------------------------------- backward

// What a stripe's positions get: `everywhere`, and at `where` the sum of both.
template <typename T>
struct Share {
  Vector<T> everywhere, at_maximum;
  Vector<IndexOf<T>> where;
};

template <typename S, typename T>
void share_gradient(const Backward& call, std::int64_t image, std::int64_t channel, int used,
                    Share<T>* shares, int step) {
  const Problem& problem = call.problem;
  const std::int64_t channels = problem.channels, windows = problem.windows(), stripes = problem.stripes;
  const S* grad = static_cast<const S*>(call.grad_output) + image * windows * 2 * channels + channel;
  const std::int32_t* argmax = call.argmax + image * windows * channels + channel;
  const auto where = [&](std::int64_t window) REID_OPS_ALWAYS_INLINE {
    return load_some<std::int32_t, IndexOf<T>>(argmax + window * channels, used);
  };
  for (std::int64_t stripe = 0; stripe < stripes; ++stripe) {
    shares[stripe * step] = {Vector<T>{}, Vector<T>{}, where(problem.window(stripe, 1))};
  }
  for (std::int64_t length = 1; length <= stripes; ++length) {
    const Vector<T> pixels = broadcast<T>(static_cast<T>(length * problem.stripe_size()));
    for (std::int64_t first = 0; first + length <= stripes; ++first) {
      const std::int64_t window = problem.window(first, length);
      const S* source = grad + window * 2 * channels;
      const Vector<T> to_maximum = load_some<S, T>(source, used);
      const Vector<T> to_each = load_some<S, T>(source + channels, used) / pixels;
      const Vector<IndexOf<T>> winner = where(window);
      for (std::int64_t stripe = first; stripe < first + length; ++stripe) {
        Share<T>& share = shares[stripe * step];
        share.everywhere += to_each;
        share.at_maximum += winner == share.where ? to_maximum : Vector<T>{};
      }
    }
  }
  for (std::int64_t stripe = 0; stripe < stripes; ++stripe) {
    shares[stripe * step].at_maximum += shares[stripe * step].everywhere;
  }
}

template <typename S, typename T>
REID_OPS_INLINE void fill(S* target, std::int64_t count, T value) {
  const S stored = narrow<S>(value);
  if constexpr (std::is_same_v<S, T>) {
    const Vector<T> vector = broadcast<T>(value);
    for_each_block<T>(
        count,
        [&](std::int64_t first) REID_OPS_ALWAYS_INLINE { store_narrowed<S, T>(target + first, vector); },
        [&] { std::fill_n(target, count, stored); });
  } else {
    for (std::int64_t i = 0; i < count; ++i) target[i].bits = stored.bits;
  }
}

template <typename S, typename T>
void backward_planes(const Backward& call, std::int64_t image, std::int64_t channel, int used) {
  const Problem& problem = call.problem;
  const std::int64_t positions = problem.positions(), size = problem.stripe_size();
  Share<T> shares[kMaxStripes];
  share_gradient<S, T>(call, image, channel, used, shares, 1);
  S* plane = static_cast<S*>(call.grad_x) + (image * problem.channels + channel) * positions;
  for (int lane = 0; lane < used; ++lane, plane += positions) {
    for (std::int64_t stripe = 0; stripe < problem.stripes; ++stripe) {
      const Share<T>& share = shares[stripe];
      S* const target = plane + stripe * size;
      fill<S, T>(target, size, share.everywhere[lane]);
      const std::int64_t where = static_cast<std::int64_t>(share.where[lane]) - stripe * size;
      if (where >= 0 && where < size) target[where] = narrow<S, T>(share.at_maximum[lane]);
    }
  }
}

template <typename S, typename T, int kVectors>
void backward_pixels(const Backward& call, std::int64_t image, std::int64_t channel, int used) {
  constexpr int lanes = kLanes<T>;
  const Problem& problem = call.problem;
  const std::int64_t channels = problem.channels, size = problem.stripe_size();
  Share<T> shares[kMaxStripes * kVectors];
  for (int k = 0; k < kVectors; ++k) {
    share_gradient<S, T>(call, image, channel + k * lanes, kVectors > 1 ? lanes : used, shares + k, kVectors);
  }
  S* pixel = static_cast<S*>(call.grad_x) + image * problem.positions() * channels + channel;
  for (std::int64_t stripe = 0; stripe < problem.stripes; ++stripe) {
    Share<T> own[kVectors];
    for (int k = 0; k < kVectors; ++k) own[k] = shares[stripe * kVectors + k];
    Vector<IndexOf<T>> index = broadcast<IndexOf<T>>(static_cast<IndexOf<T>>(stripe * size));
    for (std::int64_t i = 0; i < size; ++i, pixel += channels) {
#pragma GCC unroll 4
      for (int k = 0; k < kVectors; ++k) {
        const Vector<T> value = index == own[k].where ? own[k].at_maximum : own[k].everywhere;
        if constexpr (kVectors > 1) {
          store_narrowed<S, T>(pixel + k * lanes, value);
        } else {
          store_some<S, T>(pixel, value, used);
        }
      }
      index += 1;
    }
  }
}

// -------------------------------------------------------------------- items

// Channels of an item: a vector's in [N,C,H,W]; several in [N,H,W,C], of which the last item has what is
// left.
inline std::int64_t channels_together(const Problem& problem) {
  const int lanes = problem.type == DataType::kFloat64 ? kLanes<double> : kLanes<float>;
  return problem.channels_last ? lanes * kVectorsTogether : lanes;
}

inline std::int64_t items_of(const Problem& problem) {
  const std::int64_t together = channels_together(problem);
  return problem.batch * ((problem.channels + together - 1) / together);
}

// body(image, channel, used lanes) for an item's vectors, or whole(image, channel) if all of them are full.
template <typename T, typename Whole, typename Body>
void for_each_vector(const Problem& problem, std::int64_t item, const Whole& whole, const Body& body) {
  const std::int64_t together = channels_together(problem);
  const std::int64_t groups = (problem.channels + together - 1) / together;
  const std::int64_t image = item / groups, first = item % groups * together;
  const std::int64_t end = std::min(problem.channels, first + together);
  if (problem.channels_last && end - first == together) return whole(image, first);
  for (std::int64_t channel = first; channel < end; channel += kLanes<T>) {
    body(image, channel, static_cast<int>(std::min<std::int64_t>(kLanes<T>, end - channel)));
  }
}

template <typename S, typename T, bool kArgmax>
void run_item(const Forward& call, std::int64_t item) {
  for_each_vector<T>(
      call.problem, item,
      [&](std::int64_t image, std::int64_t channel) {
        forward_pixels<S, T, kArgmax, kVectorsTogether>(call, image, channel, kLanes<T>);
      },
      [&](std::int64_t image, std::int64_t channel, int used) {
        if (call.problem.channels_last) return forward_pixels<S, T, kArgmax, 1>(call, image, channel, used);
        forward_planes<S, T, kArgmax>(call, image, channel, used);
      });
}

template <typename S, typename T>
void run_typed(const Forward& call, std::int64_t begin, std::int64_t end) {
  for (std::int64_t item = begin; item < end; ++item) {
    call.argmax == nullptr ? run_item<S, T, false>(call, item) : run_item<S, T, true>(call, item);
  }
}

template <typename S, typename T>
void run_typed(const Backward& call, std::int64_t begin, std::int64_t end) {
  for (std::int64_t item = begin; item < end; ++item) {
    for_each_vector<T>(
        call.problem, item,
        [&](std::int64_t image, std::int64_t channel) {
          backward_pixels<S, T, kVectorsTogether>(call, image, channel, kLanes<T>);
        },
        [&](std::int64_t image, std::int64_t channel, int used) {
          if (call.problem.channels_last) return backward_pixels<S, T, 1>(call, image, channel, used);
          backward_planes<S, T>(call, image, channel, used);
        });
  }
}

template <typename Call>
void run(const Call& call, std::int64_t begin, std::int64_t end) {
  switch (call.problem.type) {
    case DataType::kFloat32:
      return run_typed<float, float>(call, begin, end);
    case DataType::kFloat64:
      return run_typed<double, double>(call, begin, end);
    case DataType::kFloat16:
      return run_typed<Float16, float>(call, begin, end);
    case DataType::kBFloat16:
      return run_typed<BFloat16, float>(call, begin, end);
  }
}

}  // namespace reid_ops::stripe_pool::REID_OPS_ISA
