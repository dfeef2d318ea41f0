// Arithmetic that CUDA has and C++ has not, plus the global min and max.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace reid_ops_emulation {

template <typename To, typename From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// The device's float-to-integer conversions saturate, and take NaN to zero.
template <typename Integer>
Integer saturate(double value, double low, double high) {
  if (!(value == value)) return 0;
  if (value <= low) return static_cast<Integer>(low);
  if (value >= high) return static_cast<Integer>(high);
  return static_cast<Integer>(value);
}

// PTX `min` and `max`: the number where the other is NaN (also a signalling one, unlike C's fmin), and
// -0 below +0.
template <typename Real>
Real number_min(Real a, Real b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <typename Real>
Real number_max(Real a, Real b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}

}  // namespace reid_ops_emulation

inline int __float_as_int(float value) { return reid_ops_emulation::bit_cast<int>(value); }
inline unsigned int __float_as_uint(float value) { return reid_ops_emulation::bit_cast<unsigned int>(value); }
inline float __int_as_float(int value) { return reid_ops_emulation::bit_cast<float>(value); }
inline float __uint_as_float(unsigned int value) { return reid_ops_emulation::bit_cast<float>(value); }
inline long long __double_as_longlong(double value) { return reid_ops_emulation::bit_cast<long long>(value); }
inline double __longlong_as_double(long long value) { return reid_ops_emulation::bit_cast<double>(value); }

inline int __popc(unsigned int value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned int>(value)); }
inline int __clzll(long long value) {
  return value == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(value));
}
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline unsigned int __brev(unsigned int value) {
  unsigned int reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= ((value >> bit) & 1u) << (31 - bit);
  return reversed;
}
inline unsigned long long __brevll(unsigned long long value) {
  return (static_cast<unsigned long long>(__brev(static_cast<unsigned int>(value))) << 32) |
         __brev(static_cast<unsigned int>(value >> 32));
}
inline unsigned int __byte_perm(unsigned int low, unsigned int high, unsigned int selector) {
  const unsigned long long bytes = (static_cast<unsigned long long>(high) << 32) | low;
  unsigned int result = 0;
  for (int byte = 0; byte < 4; ++byte) {
    const unsigned int pick = (selector >> (4 * byte)) & 7u;
    result |= static_cast<unsigned int>((bytes >> (8 * pick)) & 0xffu) << (8 * byte);
  }
  return result;
}
inline unsigned int __funnelshift_l(unsigned int low, unsigned int high, unsigned int shift) {
  const unsigned long long both = (static_cast<unsigned long long>(high) << 32) | low;
  return static_cast<unsigned int>((both << (shift & 31u)) >> 32);
}
inline unsigned int __funnelshift_r(unsigned int low, unsigned int high, unsigned int shift) {
  const unsigned long long both = (static_cast<unsigned long long>(high) << 32) | low;
  return static_cast<unsigned int>(both >> (shift & 31u));
}
inline unsigned int __umulhi(unsigned int a, unsigned int b) {
  return static_cast<unsigned int>((static_cast<unsigned long long>(a) * b) >> 32);
}
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

inline float rsqrtf(float value) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(value))); }
inline float rsqrt(float value) { return rsqrtf(value); }
inline double rsqrt(double value) { return 1.0 / std::sqrt(value); }
inline float __saturatef(float value) { return value >= 1.0f ? 1.0f : value > 0.0f ? value : 0.0f; }

// Correctly rounded forms: what plain operators give here too, except that these never contract.
inline float __fadd_rn(float a, float b) {
  volatile float sum = a + b;
  return sum;
}
inline float __fsub_rn(float a, float b) { return __fadd_rn(a, -b); }
inline float __fmul_rn(float a, float b) {
  volatile float product = a * b;
  return product;
}
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float value) { return 1.0f / value; }
inline float __fsqrt_rn(float value) { return std::sqrt(value); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) {
  volatile double sum = a + b;
  return sum;
}
inline double __dmul_rn(double a, double b) {
  volatile double product = a * b;
  return product;
}
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

inline int __float2int_rn(float value) {
  return reid_ops_emulation::saturate<int>(std::nearbyint(static_cast<double>(value)), -0x1p31, 0x1p31 - 1);
}
inline int __float2int_rz(float value) {
  return reid_ops_emulation::saturate<int>(std::trunc(static_cast<double>(value)), -0x1p31, 0x1p31 - 1);
}
inline int __float2int_rd(float value) {
  return reid_ops_emulation::saturate<int>(std::floor(static_cast<double>(value)), -0x1p31, 0x1p31 - 1);
}
inline int __float2int_ru(float value) {
  return reid_ops_emulation::saturate<int>(std::ceil(static_cast<double>(value)), -0x1p31, 0x1p31 - 1);
}
inline unsigned int __float2uint_rn(float value) {
  return reid_ops_emulation::saturate<unsigned int>(std::nearbyint(static_cast<double>(value)), 0.0,
                                                    0x1p32 - 1);
}
inline float __int2float_rn(int value) { return static_cast<float>(value); }
inline float __uint2float_rn(unsigned int value) { return static_cast<float>(value); }
inline float __ll2float_rn(long long value) { return static_cast<float>(value); }
inline float __double2float_rn(double value) { return static_cast<float>(value); }
inline double __uint2double_rn(unsigned int value) { return value; }

// Cache hints: plain loads and stores.
template <typename Value>
Value __ldg(const Value* address) {
  return *address;
}
template <typename Value>
Value __ldcg(const Value* address) {
  return *address;
}
template <typename Value>
Value __ldca(const Value* address) {
  return *address;
}
template <typename Value>
Value __ldcs(const Value* address) {
  return *address;
}
template <typename Value>
void __stcg(Value* address, Value value) {
  *address = value;
}
template <typename Value>
void __stcs(Value* address, Value value) {
  *address = value;
}

// The global overloads CUDA declares: mixed signedness goes unsigned, float with double goes double.
#define REID_OPS_EMULATION_MIN_MAX(type, left, right)                                                 \
  inline type min(left a, right b) {                                                                  \
    return static_cast<type>(a) < static_cast<type>(b) ? static_cast<type>(a) : static_cast<type>(b); \
  }                                                                                                   \
  inline type max(left a, right b) {                                                                  \
    return static_cast<type>(a) > static_cast<type>(b) ? static_cast<type>(a) : static_cast<type>(b); \
  }
REID_OPS_EMULATION_MIN_MAX(int, int, int)
REID_OPS_EMULATION_MIN_MAX(unsigned int, unsigned int, unsigned int)
REID_OPS_EMULATION_MIN_MAX(unsigned int, int, unsigned int)
REID_OPS_EMULATION_MIN_MAX(unsigned int, unsigned int, int)
REID_OPS_EMULATION_MIN_MAX(long, long, long)
REID_OPS_EMULATION_MIN_MAX(unsigned long, unsigned long, unsigned long)
REID_OPS_EMULATION_MIN_MAX(unsigned long, long, unsigned long)
REID_OPS_EMULATION_MIN_MAX(unsigned long, unsigned long, long)
REID_OPS_EMULATION_MIN_MAX(long long, long long, long long)
REID_OPS_EMULATION_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
REID_OPS_EMULATION_MIN_MAX(unsigned long long, long long, unsigned long long)
REID_OPS_EMULATION_MIN_MAX(unsigned long long, unsigned long long, long long)
#undef REID_OPS_EMULATION_MIN_MAX

#define REID_OPS_EMULATION_REAL_MIN_MAX(type, left, right)                                \
  inline type min(left a, right b) { return reid_ops_emulation::number_min<type>(a, b); } \
  inline type max(left a, right b) { return reid_ops_emulation::number_max<type>(a, b); }
REID_OPS_EMULATION_REAL_MIN_MAX(float, float, float)
REID_OPS_EMULATION_REAL_MIN_MAX(double, double, double)
REID_OPS_EMULATION_REAL_MIN_MAX(double, float, double)
REID_OPS_EMULATION_REAL_MIN_MAX(double, double, float)
#undef REID_OPS_EMULATION_REAL_MIN_MAX
