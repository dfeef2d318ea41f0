// Half-precision storage types on the CPU: bits in memory, float in registers.
#pragma once

#include <cstdint>
#include <cstring>

namespace reid_ops {

// bfloat16 is the upper half of a float; rounding is to nearest, ties to even, NaN stays NaN.
struct BFloat16 {
  std::uint16_t bits;
};

// IEEE half. Conversions are plain integer arithmetic, so that no instruction set is assumed; the
// vector code of cpu_vector.h uses the hardware's conversion where there is one.
struct Float16 {
  std::uint16_t bits;
};

inline float to_float(BFloat16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

inline BFloat16 to_bfloat16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

inline float to_float(Float16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  std::uint32_t bits;
  if (magnitude >= 0x7c00u) {  // infinity or NaN
    bits = sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  } else if (magnitude >= 0x0400u) {  // normal: rebias the exponent from 15 to 127
    bits = sign | ((magnitude << 13) + ((127u - 15u) << 23));
  } else {  // zero or subnormal: magnitude * 2^-24, exact in float
    const float scaled = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    std::memcpy(&bits, &scaled, sizeof(bits));
    bits |= sign;
  }
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

inline Float16 to_float16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::uint16_t sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};   // NaN
  if (magnitude >= 0x47800000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // >= 65536: infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: subnormal, a multiple of 2^-24
    float absolute;
    std::memcpy(&absolute, &magnitude, sizeof(absolute));
    // Adding 0.5 puts the value where one float ulp is 2^-24: the addition itself rounds to even.
    const float shifted = absolute + 0.5f;
    std::uint32_t shifted_bits;
    std::memcpy(&shifted_bits, &shifted, sizeof(shifted_bits));
    return {static_cast<std::uint16_t>(sign | (shifted_bits - 0x3f000000u))};
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;  // round to nearest, ties to even
  return {static_cast<std::uint16_t>(sign | ((magnitude - ((127u - 15u) << 23) + 0xfffu + odd) >> 13))};
}

}  // namespace reid_ops
