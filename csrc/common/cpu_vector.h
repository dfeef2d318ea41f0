// Vectors whose lanes are image planes, for depthwise kernels on the CPU.
//
// No include guard and no includes: part of a kernel file that for_each_instruction_set.h compiles
// several times, inside namespace REID_OPS_ISA.
//
// Depthwise work treats every plane (one channel of one image) alike, so a vector holds one
// position of kLanes planes. A kernel then needs neither horizontal sums nor masks at the map's
// right edge, and every lane does useful work however narrow the map. The price is a transpose on
// the way in and out, which `pack` and `unpack` do in registers.

#define REID_OPS_ALWAYS_INLINE __attribute__((always_inline))  // of a lambda
#define REID_OPS_INLINE inline REID_OPS_ALWAYS_INLINE

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(REID_OPS_VECTOR_BYTES)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

template <typename T>
constexpr int kLanes = REID_OPS_VECTOR_BYTES / sizeof(T);

template <typename T>
REID_OPS_INLINE Vector<T> load_aligned(const T* source) {
  return *reinterpret_cast<const Vector<T>*>(source);
}

template <typename T>
REID_OPS_INLINE void store_aligned(T* destination, Vector<T> value) {
  *reinterpret_cast<Vector<T>*>(destination) = value;
}

// Storage type S (what the tensor holds) to computing type T and back, one element.
template <typename T>
REID_OPS_INLINE T widen(T value) {
  return value;
}
REID_OPS_INLINE float widen(BFloat16 value) { return to_float(value); }
REID_OPS_INLINE float widen(Float16 value) { return to_float(value); }
REID_OPS_INLINE std::int32_t widen(std::int16_t value) { return value; }

template <typename S, typename T>
REID_OPS_INLINE S narrow(T value) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    return to_bfloat16(value);
  } else if constexpr (std::is_same_v<S, Float16>) {
    return to_float16(value);
  } else {
    return static_cast<S>(value);
  }
}

// kLanes consecutive elements, any alignment.
template <typename S, typename T>
REID_OPS_INLINE Vector<T> load_widened(const S* source) {
  Vector<T> value;
  if constexpr (std::is_same_v<S, T>) {
    std::memcpy(&value, source, sizeof(value));
  } else {
    alignas(REID_OPS_VECTOR_BYTES) T lanes[kLanes<T>];
    for (int lane = 0; lane < kLanes<T>; ++lane) lanes[lane] = static_cast<T>(widen(source[lane]));
    value = load_aligned(lanes);
  }
  return value;
}

template <typename S, typename T>
REID_OPS_INLINE void store_narrowed(S* destination, Vector<T> value) {
  if constexpr (std::is_same_v<S, T>) {
    std::memcpy(destination, &value, sizeof(value));
  } else {
    alignas(REID_OPS_VECTOR_BYTES) T lanes[kLanes<T>];
    store_aligned(lanes, value);
    for (int lane = 0; lane < kLanes<T>; ++lane) destination[lane] = narrow<S, T>(lanes[lane]);
  }
}

// The first `count` < kLanes elements: at most one 8-, 4-, 2- and 1-element store each.
template <typename S, typename T>
REID_OPS_INLINE void store_first(S* destination, Vector<T> value, std::int64_t count) {
  alignas(REID_OPS_VECTOR_BYTES) S elements[kLanes<T>];
  store_narrowed<S, T>(elements, value);
  const S* source = elements;
  if constexpr (kLanes<T> > 8) {
    if (count & 8) std::memcpy(destination, source, 8 * sizeof(S)), destination += 8, source += 8;
  }
  if constexpr (kLanes<T> > 4) {
    if (count & 4) std::memcpy(destination, source, 4 * sizeof(S)), destination += 4, source += 4;
  }
  if constexpr (kLanes<T> > 2) {
    if (count & 2) std::memcpy(destination, source, 2 * sizeof(S)), destination += 2, source += 2;
  }
  if (count & 1) std::memcpy(destination, source, sizeof(S));
}

// Swaps the off-diagonal kWidth x kWidth blocks of a 2*kWidth square: the butterfly step of a
// transpose. kLanes rows of vectors are transposed after the steps kWidth = 1, 2, 4, ...
template <typename T, int kWidth, int... kLane>
REID_OPS_INLINE void swap_blocks(Vector<T>& upper, Vector<T>& lower, std::integer_sequence<int, kLane...>) {
  constexpr int lanes = kLanes<T>;
  const Vector<T> new_upper =
      __builtin_shufflevector(upper, lower, ((kLane & kWidth) ? lanes + kLane - kWidth : kLane)...);
  lower = __builtin_shufflevector(upper, lower, ((kLane & kWidth) ? lanes + kLane : kLane + kWidth)...);
  upper = new_upper;
}

template <typename T, int kWidth = 1>
REID_OPS_INLINE void transpose(Vector<T> (&rows)[kLanes<T>]) {
#pragma GCC unroll 16
  for (int row = 0; row < kLanes<T>; ++row) {
    if (!(row & kWidth)) {
      swap_blocks<T, kWidth>(rows[row], rows[row + kWidth], std::make_integer_sequence<int, kLanes<T>>());
    }
  }
  if constexpr (2 * kWidth < kLanes<T>) transpose<T, 2 * kWidth>(rows);
}

// kLanes planes of one tensor. Every plane has the same strides; the planes themselves may lie
// anywhere. Lanes beyond the last real plane repeat it and are never written.
template <typename S, typename T>
struct Planes {
  S* plane[kLanes<T>];
  std::int64_t row_stride;
  std::int64_t column_stride;
  int used;                     // real planes, 1 .. kLanes
  const S* limit;               // one past the tensor's last element: a full vector may be read up to here
  const S* highest;             // the plane furthest on in memory
  bool adjacent;                // plane[l] == plane[0] + l: channels-last, no transpose needed
  std::int64_t next_group = 0;  // elements from here to the planes that come next; 0: do not prefetch them

  // kLanes planes, `step` elements apart. `streams`: the tensor is larger than the caches.
  void spread(S* first, std::int64_t step, bool streams) {
    for (int lane = 0; lane < kLanes<T>; ++lane) plane[lane] = first + lane * step;
    used = kLanes<T>;
    adjacent = step == 1;
    highest = step > 0 ? plane[kLanes<T> - 1] : plane[0];
    next_group = streams ? kLanes<T> * step : 0;
  }
  // The first `used` planes are set, anywhere.
  void finish() {
    highest = *std::max_element(plane, plane + used);
    for (int lane = used; lane < kLanes<T>; ++lane) plane[lane] = plane[used - 1];
    adjacent = used == kLanes<T>;
    for (int lane = 1; lane < used; ++lane) adjacent &= plane[lane] == plane[0] + lane;
  }
};

// A rectangle of positions inside the planes and where it lies in lane-major scratch memory:
// position (row, column) is the vector at scratch[(column * column_step + row * row_step) * kLanes].
struct Rectangle {
  std::int64_t first_row, rows, columns;
  std::int64_t column_step, row_step;
};

// Where the positions of a rectangle lie in scratch, row by row. Steps are in elements.
template <typename T>
struct ScratchWalk {
  std::int64_t columns, column_step, row_step, next_row;
  std::int64_t column = 0, offset = 0;

  explicit ScratchWalk(const Rectangle& area)
      : columns(area.columns),
        column_step(area.column_step * kLanes<T>),
        row_step(area.row_step * kLanes<T>),
        next_row(row_step - columns * column_step) {}

  REID_OPS_INLINE void seek(std::int64_t position) {
    const std::int64_t row = position / columns;
    column = position - row * columns;
    offset = column * column_step + row * row_step;
  }
  // This position's offset; then goes on to the next.
  REID_OPS_INLINE std::int64_t next() {
    const std::int64_t here = offset;
    offset += column_step;
    if (++column == columns) column = 0, offset += next_row;
    return here;
  }
};

// whole(first) for blocks of kLanes positions that cover `count`. The last block reaches back over some that
// are done already, so that none is short: it reads nothing outside and its size is known to the compiler.
// Where there are fewer than kLanes positions: shorter().
template <typename T, typename Whole, typename Shorter>
REID_OPS_INLINE void for_each_block(std::int64_t count, const Whole& whole, const Shorter& shorter) {
  constexpr std::int64_t lanes = kLanes<T>;
  if (count < lanes) return shorter();
  for (std::int64_t first = 0; first < count; first += lanes) whole(std::min(first, count - lanes));
}

// A transpose walks kLanes planes at once, more streams than the processor prefetches by itself. Planes of at
// least so many blocks are asked for so many blocks ahead. Shorter ones end before that: there the same place
// of the planes that come next is asked for, if the tensor is larger than the caches (else it costs 5 %).
constexpr std::int64_t kPrefetchFromBlocks = 16, kPrefetchAhead = 8;

template <typename S, typename T>
std::int64_t prefetch_distance(const Planes<S, T>& planes, std::int64_t run) {
  constexpr std::int64_t lanes = kLanes<T>;
  return run >= kPrefetchFromBlocks * lanes ? kPrefetchAhead * lanes : planes.next_group;
}

// Planes -> scratch.
template <typename S, typename T>
void pack(const Planes<const S, T>& planes, const Rectangle& area, T* scratch) {
  constexpr std::int64_t lanes = kLanes<T>;
  const bool dense = planes.column_stride == 1 && planes.row_stride == area.columns;
  const std::int64_t count = area.rows * area.columns;
  const std::int64_t start = area.first_row * planes.row_stride;
  ScratchWalk<T> walk(area);
  if (planes.column_stride == 1 && !planes.adjacent) {
    // Runs of consecutive elements: the whole rectangle when rows follow each other, else row by row.
    const std::int64_t run = dense ? count : area.columns;
    const std::int64_t ahead = prefetch_distance(planes, run);
    const bool prefetch = ahead != 0;
    for (std::int64_t base = 0; base < count; base += run) {
      const std::int64_t offset = dense ? start : start + (base / area.columns) * planes.row_stride;
      Vector<T> block[lanes];
      walk.seek(base);
      for_each_block<T>(
          run,
          [&](std::int64_t first) REID_OPS_ALWAYS_INLINE {
            for (int lane = 0; lane < lanes; ++lane) {
              const S* source = planes.plane[lane] + offset + first;
              if (prefetch) __builtin_prefetch(source + ahead);
              block[lane] = load_widened<S, T>(source);
            }
            transpose<T>(block);
            if (first % lanes != 0) walk.seek(base + first);
            for (int i = 0; i < lanes; ++i) store_aligned(scratch + walk.next(), block[i]);
          },
          [&] {
            if (planes.highest + offset + lanes <= planes.limit) {
#pragma GCC unroll 16
              for (int lane = 0; lane < lanes; ++lane)
                block[lane] = load_widened<S, T>(planes.plane[lane] + offset);
            } else {
              for (int lane = 0; lane < lanes; ++lane) {
                alignas(REID_OPS_VECTOR_BYTES) T elements[lanes] = {};
                for (std::int64_t i = 0; i < run; ++i)
                  elements[i] = static_cast<T>(widen(planes.plane[lane][offset + i]));
                block[lane] = load_aligned(elements);
              }
            }
            transpose<T>(block);
#pragma GCC unroll 16
            for (int i = 0; i < lanes; ++i) {
              if (i >= run) break;
              store_aligned(scratch + walk.next(), block[i]);
            }
          });
    }
    return;
  }
  for (std::int64_t row = 0; row < area.rows; ++row) {
    for (std::int64_t column = 0; column < area.columns; ++column) {
      const std::int64_t offset = start + row * planes.row_stride + column * planes.column_stride;
      T* destination = scratch + walk.next();
      if (planes.adjacent) {
        store_aligned(destination, load_widened<S, T>(planes.plane[0] + offset));
      } else {
        for (int lane = 0; lane < lanes; ++lane) {
          destination[lane] = static_cast<T>(widen(planes.plane[lane][offset]));
        }
      }
    }
  }
}

// Scratch -> planes whose rows follow each other without gaps (column_stride 1, row_stride = columns).
template <typename S, typename T>
void unpack(const Planes<S, T>& planes, const Rectangle& area, const T* scratch) {
  constexpr std::int64_t lanes = kLanes<T>;
  const std::int64_t start = area.first_row * area.columns, count = area.rows * area.columns;
  const std::int64_t ahead = prefetch_distance(planes, count);
  const bool prefetch = ahead != 0;
  ScratchWalk<T> walk(area);
  Vector<T> block[lanes];
  for_each_block<T>(
      count,
      [&](std::int64_t first) REID_OPS_ALWAYS_INLINE {
        if (first % lanes != 0) walk.seek(first);
        for (int i = 0; i < lanes; ++i) block[i] = load_aligned(scratch + walk.next());
        transpose<T>(block);
        for (int lane = 0; lane < planes.used; ++lane) {
          S* destination = planes.plane[lane] + start + first;
          if (prefetch) __builtin_prefetch(destination + ahead, 1);
          store_narrowed<S, T>(destination, block[lane]);
        }
      },
      [&] {
        for (int i = 0; i < lanes; ++i) {
          block[i] = i < count ? load_aligned(scratch + walk.next()) : Vector<T>{};
        }
        transpose<T>(block);
        for (int lane = 0; lane < planes.used; ++lane) {
          store_first<S, T>(planes.plane[lane] + start, block[lane], count);
        }
      });
}
