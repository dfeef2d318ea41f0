// __half on the CPU: the conversions and functions of CUDA's header of this name that kernels use.
#pragma once

#include <cuda_runtime.h>

#include "emulation/small_float.h"

struct __half_raw {
  unsigned short x;
};

struct __half {
  unsigned short bits;

  __half() = default;
  __half(const __half_raw& raw) : bits(raw.x) {}
  operator __half_raw() const { return {bits}; }
// torch's builds switch the implicit conversions off, to be explicit about every rounding.
#if !defined(__CUDA_NO_HALF_CONVERSIONS__)
  __half(float value) : bits(reid_ops_emulation::float_to_half(value)) {}
  __half(double value) : bits(reid_ops_emulation::float_to_half(reid_ops_emulation::round_to_odd(value))) {}
  __half(int value) : __half(static_cast<double>(value)) {}
  __half(unsigned int value) : __half(static_cast<double>(value)) {}
  operator float() const { return reid_ops_emulation::half_to_float(bits); }
#endif
};

struct alignas(4) __half2 {
  __half x, y;

  __half2() = default;
  __half2(__half low, __half high) : x(low), y(high) {}
};

using half = __half;
using half2 = __half2;

inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __short_as_half(short bits) { return __ushort_as_half(static_cast<unsigned short>(bits)); }
inline short __half_as_short(__half value) { return static_cast<short>(value.bits); }

inline float __half2float(__half value) { return reid_ops_emulation::half_to_float(value.bits); }
inline __half __float2half(float value) { return __ushort_as_half(reid_ops_emulation::float_to_half(value)); }
inline __half __float2half_rn(float value) { return __float2half(value); }
inline __half __double2half(double value) { return __float2half(reid_ops_emulation::round_to_odd(value)); }
inline __half __int2half_rn(int value) { return __double2half(static_cast<double>(value)); }
inline int __half2int_rn(__half value) { return __float2int_rn(__half2float(value)); }
inline int __half2int_rz(__half value) { return __float2int_rz(__half2float(value)); }

inline __half2 __halves2half2(__half low, __half high) { return {low, high}; }
inline __half2 make_half2(__half low, __half high) { return {low, high}; }
inline __half2 __half2half2(__half value) { return {value, value}; }
inline __half2 __float2half2_rn(float value) { return __half2half2(__float2half(value)); }
inline __half2 __floats2half2_rn(float low, float high) { return {__float2half(low), __float2half(high)}; }
inline __half2 __float22half2_rn(float2 pair) { return __floats2half2_rn(pair.x, pair.y); }
inline float2 __half22float2(__half2 pair) { return {__half2float(pair.x), __half2float(pair.y)}; }
inline __half __low2half(__half2 pair) { return pair.x; }
inline __half __high2half(__half2 pair) { return pair.y; }
inline __half2 __lows2half2(__half2 a, __half2 b) { return {a.x, b.x}; }
inline __half2 __highs2half2(__half2 a, __half2 b) { return {a.y, b.y}; }
inline __half2 __lowhigh2highlow(__half2 pair) { return {pair.y, pair.x}; }

REID_OPS_EMULATION_SMALL_FLOAT(__half, __half2, __half2float, __float2half, __double2half)

#if !defined(__CUDA_NO_HALF_OPERATORS__)
REID_OPS_EMULATION_SMALL_FLOAT_OPERATORS(__half)
#endif
#if !defined(__CUDA_NO_HALF2_OPERATORS__)
REID_OPS_EMULATION_SMALL_FLOAT_PAIR_OPERATORS(__half2)
#endif
