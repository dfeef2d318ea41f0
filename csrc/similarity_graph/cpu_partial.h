// similarity_graph on the CPU: vectors of which only the first lanes are in memory.
// Part of cpu_kernels.h, compiled once per instruction set; no include guard.
//
// Maps narrower than a vector have nothing else, so these must not go through memory element by
// element: with AVX2 and AVX-512 the processor's masked loads and stores do it.

#if defined(REID_OPS_X86) && REID_OPS_VECTOR_BYTES == 64
REID_OPS_INLINE Vector<float> load_masked(const float* source, std::int64_t count) {
  return (Vector<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), source);
}
REID_OPS_INLINE Vector<double> load_masked(const double* source, std::int64_t count) {
  return (Vector<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), source);
}
REID_OPS_INLINE void store_masked(float* target, Vector<float> value, std::int64_t count) {
  _mm512_mask_storeu_ps(target, static_cast<__mmask16>((1u << count) - 1), (__m512)value);
}
REID_OPS_INLINE void store_masked(double* target, Vector<double> value, std::int64_t count) {
  _mm512_mask_storeu_pd(target, static_cast<__mmask8>((1u << count) - 1), (__m512d)value);
}
#define REID_OPS_MASKED_HALVES 1
// 16-bit elements between memory and a buffer of a whole vector of them.
template <typename S>
REID_OPS_INLINE void copy_masked(const S* source, S* buffer, std::int64_t count) {
  const __m256i bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), source);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(buffer), bits);
}
template <typename S>
REID_OPS_INLINE void write_masked(const S* buffer, S* target, std::int64_t count) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(buffer));
  _mm256_mask_storeu_epi16(target, static_cast<__mmask16>((1u << count) - 1), bits);
}
#elif defined(REID_OPS_X86) && REID_OPS_VECTOR_BYTES == 32
REID_OPS_INLINE __m256i first_lanes(const float*, std::int64_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
}
REID_OPS_INLINE __m256i first_lanes(const double*, std::int64_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
REID_OPS_INLINE Vector<float> load_masked(const float* source, std::int64_t count) {
  return (Vector<float>)_mm256_maskload_ps(source, first_lanes(source, count));
}
REID_OPS_INLINE Vector<double> load_masked(const double* source, std::int64_t count) {
  return (Vector<double>)_mm256_maskload_pd(source, first_lanes(source, count));
}
REID_OPS_INLINE void store_masked(float* target, Vector<float> value, std::int64_t count) {
  _mm256_maskstore_ps(target, first_lanes(target, count), (__m256)value);
}
REID_OPS_INLINE void store_masked(double* target, Vector<double> value, std::int64_t count) {
  _mm256_maskstore_pd(target, first_lanes(target, count), (__m256d)value);
}
#else
template <typename T>
REID_OPS_INLINE Vector<T> load_masked(const T* source, std::int64_t count) {
  Vector<T> value = {};
  for (std::int64_t lane = 0; lane < count; ++lane) value[lane] = source[lane];
  return value;
}
template <typename T>
REID_OPS_INLINE void store_masked(T* target, Vector<T> value, std::int64_t count) {
  store_first<T, T>(target, value, count);
}
#endif

// The first `count` elements, zeros after them.
template <typename S, typename T>
REID_OPS_INLINE Vector<T> load_first(const S* source, std::int64_t count) {
  if (count >= kLanes<T>) return load_widened<S, T>(source);
  if constexpr (std::is_same_v<S, T>) {
    return load_masked(source, count);
  } else {
    S elements[kLanes<T>] = {};
#if defined(REID_OPS_MASKED_HALVES)
    copy_masked(source, elements, count);
#else
    for (std::int64_t lane = 0; lane < count; ++lane) elements[lane] = source[lane];
#endif
    return load_widened<S, T>(elements);
  }
}

template <typename S, typename T>
REID_OPS_INLINE void store_some(S* target, Vector<T> value, std::int64_t count) {
  if (count >= kLanes<T>) {
    store_narrowed<S, T>(target, value);
  } else if constexpr (std::is_same_v<S, T>) {
    store_masked(target, value, count);
  } else {
#if defined(REID_OPS_MASKED_HALVES)
    S elements[kLanes<T>];
    store_narrowed<S, T>(elements, value);
    write_masked(elements, target, count);
#else
    store_first<S, T>(target, value, count);
#endif
  }
}

#undef REID_OPS_MASKED_HALVES
