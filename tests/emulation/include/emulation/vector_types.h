// dim3, float4 and the other vector types, with the device's size and alignment. The alignment is
// part of the type, so UndefinedBehaviorSanitizer reports a float4 access to a misaligned address.
#pragma once

#define REID_OPS_EMULATION_VECTORS(name, scalar, align2, align4)                       \
  struct name##1 { scalar x; };                                                        \
  struct alignas(align2) name##2 { scalar x, y; };                                     \
  struct name##3 { scalar x, y, z; };                                                  \
  struct alignas(align4) name##4 { scalar x, y, z, w; };                               \
  constexpr name##1 make_##name##1(scalar x) { return {x}; }                           \
  constexpr name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }              \
  constexpr name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; } \
  constexpr name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

REID_OPS_EMULATION_VECTORS(char, signed char, 2, 4)
REID_OPS_EMULATION_VECTORS(uchar, unsigned char, 2, 4)
REID_OPS_EMULATION_VECTORS(short, short, 4, 8)
REID_OPS_EMULATION_VECTORS(ushort, unsigned short, 4, 8)
REID_OPS_EMULATION_VECTORS(int, int, 8, 16)
REID_OPS_EMULATION_VECTORS(uint, unsigned int, 8, 16)
REID_OPS_EMULATION_VECTORS(long, long, 16, 16)
REID_OPS_EMULATION_VECTORS(ulong, unsigned long, 16, 16)
REID_OPS_EMULATION_VECTORS(longlong, long long, 16, 16)
REID_OPS_EMULATION_VECTORS(ulonglong, unsigned long long, 16, 16)
REID_OPS_EMULATION_VECTORS(float, float, 8, 16)
REID_OPS_EMULATION_VECTORS(double, double, 16, 16)
#undef REID_OPS_EMULATION_VECTORS

using double4_16a = double4;

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 from) : x(from.x), y(from.y), z(from.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
