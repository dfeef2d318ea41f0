// __nv_bfloat16 on the CPU: the conversions and functions of CUDA's header of this name that kernels use.
#pragma once

#include <cuda_runtime.h>

#include "emulation/small_float.h"

struct __nv_bfloat16_raw {
  unsigned short x;
};

struct __nv_bfloat16 {
  unsigned short bits;

  __nv_bfloat16() = default;
  __nv_bfloat16(const __nv_bfloat16_raw& raw) : bits(raw.x) {}
  operator __nv_bfloat16_raw() const { return {bits}; }
// torch's builds switch the implicit conversions off, to be explicit about every rounding.
#if !defined(__CUDA_NO_BFLOAT16_CONVERSIONS__)
  __nv_bfloat16(float value) : bits(reid_ops_emulation::float_to_bfloat16(value)) {}
  __nv_bfloat16(double value)
      : bits(reid_ops_emulation::float_to_bfloat16(reid_ops_emulation::round_to_odd(value))) {}
  __nv_bfloat16(int value) : __nv_bfloat16(static_cast<double>(value)) {}
  __nv_bfloat16(unsigned int value) : __nv_bfloat16(static_cast<double>(value)) {}
  operator float() const { return reid_ops_emulation::bfloat16_to_float(bits); }
#endif
};

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;

  __nv_bfloat162() = default;
  __nv_bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) : x(low), y(high) {}
};

using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16_raw{bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline __nv_bfloat16 __short_as_bfloat16(short bits) {
  return __ushort_as_bfloat16(static_cast<unsigned short>(bits));
}
inline short __bfloat16_as_short(__nv_bfloat16 value) { return static_cast<short>(value.bits); }

inline float __bfloat162float(__nv_bfloat16 value) {
  return reid_ops_emulation::bfloat16_to_float(value.bits);
}
inline __nv_bfloat16 __float2bfloat16(float value) {
  return __ushort_as_bfloat16(reid_ops_emulation::float_to_bfloat16(value));
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __float2bfloat16(value); }
inline __nv_bfloat16 __double2bfloat16(double value) {
  return __float2bfloat16(reid_ops_emulation::round_to_odd(value));
}
inline __nv_bfloat16 __int2bfloat16_rn(int value) { return __double2bfloat16(static_cast<double>(value)); }
inline int __bfloat162int_rn(__nv_bfloat16 value) { return __float2int_rn(__bfloat162float(value)); }
inline int __bfloat162int_rz(__nv_bfloat16 value) { return __float2int_rz(__bfloat162float(value)); }

inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) { return {low, high}; }
inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) { return {low, high}; }
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 value) { return {value, value}; }
inline __nv_bfloat162 __float2bfloat162_rn(float value) {
  return __bfloat162bfloat162(__float2bfloat16(value));
}
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {__float2bfloat16(low), __float2bfloat16(high)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 pair) { return __floats2bfloat162_rn(pair.x, pair.y); }
inline float2 __bfloat1622float2(__nv_bfloat162 pair) {
  return {__bfloat162float(pair.x), __bfloat162float(pair.y)};
}
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 pair) { return pair.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 pair) { return pair.y; }
inline __nv_bfloat162 __lows2bfloat162(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x, b.x}; }
inline __nv_bfloat162 __highs2bfloat162(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.y, b.y}; }
inline __nv_bfloat162 __lowhigh2highlow(__nv_bfloat162 pair) { return {pair.y, pair.x}; }

REID_OPS_EMULATION_SMALL_FLOAT(__nv_bfloat16, __nv_bfloat162, __bfloat162float, __float2bfloat16,
                               __double2bfloat16)

#if !defined(__CUDA_NO_BFLOAT16_OPERATORS__)
REID_OPS_EMULATION_SMALL_FLOAT_OPERATORS(__nv_bfloat16)
#endif
#if !defined(__CUDA_NO_BFLOAT162_OPERATORS__)
REID_OPS_EMULATION_SMALL_FLOAT_PAIR_OPERATORS(__nv_bfloat162)
#endif
