// Sixteen-bit floating types: conversions on the bits, and the functions __half and __nv_bfloat16
// have in common. Rounding is to nearest, ties to even; every NaN becomes 0x7fff, as CUDA's does.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace reid_ops_emulation {

inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Drops the low `count` bits (1 to 31), rounding to nearest, ties to even.
constexpr std::uint32_t drop_bits(std::uint32_t bits, unsigned int count) {
  const std::uint32_t half = 1u << (count - 1);
  const std::uint32_t odd = (bits >> count) & 1u;
  return (bits + (half - 1) + odd) >> count;
}

inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 0x1f) return float_of(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return float_of(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
  return sign != 0 ? -magnitude : magnitude;
}

inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65536 and more
  if (magnitude >= 0x38800000u) {  // a normal half; a carry out of the fraction is right, up to infinity
    return static_cast<std::uint16_t>(sign | drop_bits(magnitude - (112u << 23), 13));
  }
  if (magnitude < 0x33000000u) return static_cast<std::uint16_t>(sign);  // below half the smallest
  const std::uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;    // a multiple of 2^-24 results
  return static_cast<std::uint16_t>(sign | drop_bits(fraction, 126u - (magnitude >> 23)));
}

inline float bfloat16_to_float(std::uint16_t bits) {
  return float_of(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  const std::uint32_t sign = bits & 0x80000000u;
  return static_cast<std::uint16_t>((sign >> 16) | drop_bits(bits & 0x7fffffffu, 16));
}

// A double on its way to 16 bits must not be rounded twice: truncate, and note in the last bit that
// something was lost (round to odd). The second rounding then decides as from the double itself.
inline float round_to_odd(double value) {
  float rounded = static_cast<float>(value);
  if (!std::isfinite(value) || static_cast<double>(rounded) == value) return rounded;
  if (std::isinf(rounded) || std::fabs(static_cast<double>(rounded)) > std::fabs(value)) {
    rounded = std::nextafter(rounded, 0.0f);
  }
  return float_of(bits_of(rounded) | 1u);
}

}  // namespace reid_ops_emulation

// Functions over `type` and its pair `pair`; `load` and `store` convert from and to float. Sums and
// products of two are exact enough in float for one correct rounding; fma goes through double.
#define REID_OPS_EMULATION_SMALL_FLOAT(type, pair, load, store, store_double)                                \
  inline type __hadd(type a, type b) { return store(load(a) + load(b)); }                                    \
  inline type __hsub(type a, type b) { return store(load(a) - load(b)); }                                    \
  inline type __hmul(type a, type b) { return store(load(a) * load(b)); }                                    \
  inline type __hdiv(type a, type b) { return store(load(a) / load(b)); }                                    \
  inline type __hfma(type a, type b, type c) {                                                               \
    return store_double(                                                                                     \
        std::fma(static_cast<double>(load(a)), static_cast<double>(load(b)), static_cast<double>(load(c)))); \
  }                                                                                                          \
  inline type __hneg(type a) { return store(-load(a)); }                                                     \
  inline type __habs(type a) { return store(std::fabs(load(a))); }                                           \
  inline type __hmin(type a, type b) { return store(reid_ops_emulation::number_min(load(a), load(b))); }     \
  inline type __hmax(type a, type b) { return store(reid_ops_emulation::number_max(load(a), load(b))); }     \
  inline bool __hisnan(type a) { return std::isnan(load(a)); }                                               \
  inline int __hisinf(type a) { return std::isinf(load(a)) ? (load(a) > 0 ? 1 : -1) : 0; }                   \
  inline bool __heq(type a, type b) { return load(a) == load(b); }                                           \
  inline bool __hne(type a, type b) { return load(a) < load(b) || load(a) > load(b); }                       \
  inline bool __hlt(type a, type b) { return load(a) < load(b); }                                            \
  inline bool __hle(type a, type b) { return load(a) <= load(b); }                                           \
  inline bool __hgt(type a, type b) { return load(a) > load(b); }                                            \
  inline bool __hge(type a, type b) { return load(a) >= load(b); }                                           \
  inline pair __hadd2(pair a, pair b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }                       \
  inline pair __hsub2(pair a, pair b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }                       \
  inline pair __hmul2(pair a, pair b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }                       \
  inline pair __hfma2(pair a, pair b, pair c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }     \
  inline pair __hneg2(pair a) { return {__hneg(a.x), __hneg(a.y)}; }                                         \
  inline pair __habs2(pair a) { return {__habs(a.x), __habs(a.y)}; }                                         \
  inline pair __hmin2(pair a, pair b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                       \
  inline pair __hmax2(pair a, pair b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                       \
  inline float __low2float(pair a) { return load(a.x); }                                                     \
  inline float __high2float(pair a) { return load(a.y); }                                                    \
  inline type atomicAdd(type* address, type value) {                                                         \
    return reid_ops_emulation::atomic_update<std::uint16_t>(                                                 \
        address, [value](type old) -> type { return __hadd(old, value); });                                  \
  }                                                                                                          \
  inline pair atomicAdd(pair* address, pair value) {                                                         \
    return reid_ops_emulation::atomic_update<std::uint32_t>(                                                 \
        address, [value](pair old) -> pair { return __hadd2(old, value); });                                 \
  }                                                                                                          \
  REID_OPS_EMULATION_SHUFFLES(type)                                                                          \
  REID_OPS_EMULATION_SHUFFLES(pair)

#define REID_OPS_EMULATION_SMALL_FLOAT_OPERATORS(type)                  \
  inline type operator+(type a, type b) { return __hadd(a, b); }        \
  inline type operator-(type a, type b) { return __hsub(a, b); }        \
  inline type operator*(type a, type b) { return __hmul(a, b); }        \
  inline type operator/(type a, type b) { return __hdiv(a, b); }        \
  inline type operator-(type a) { return __hneg(a); }                   \
  inline type& operator+=(type& a, type b) { return a = __hadd(a, b); } \
  inline type& operator-=(type& a, type b) { return a = __hsub(a, b); } \
  inline type& operator*=(type& a, type b) { return a = __hmul(a, b); } \
  inline type& operator/=(type& a, type b) { return a = __hdiv(a, b); } \
  inline bool operator==(type a, type b) { return __heq(a, b); }        \
  inline bool operator!=(type a, type b) { return !__heq(a, b); }       \
  inline bool operator<(type a, type b) { return __hlt(a, b); }         \
  inline bool operator<=(type a, type b) { return __hle(a, b); }        \
  inline bool operator>(type a, type b) { return __hgt(a, b); }         \
  inline bool operator>=(type a, type b) { return __hge(a, b); }

#define REID_OPS_EMULATION_SMALL_FLOAT_PAIR_OPERATORS(pair)              \
  inline pair operator+(pair a, pair b) { return __hadd2(a, b); }        \
  inline pair operator-(pair a, pair b) { return __hsub2(a, b); }        \
  inline pair operator*(pair a, pair b) { return __hmul2(a, b); }        \
  inline pair operator-(pair a) { return __hneg2(a); }                   \
  inline pair& operator+=(pair& a, pair b) { return a = __hadd2(a, b); } \
  inline pair& operator-=(pair& a, pair b) { return a = __hsub2(a, b); } \
  inline pair& operator*=(pair& a, pair b) { return a = __hmul2(a, b); }
