// Element types, as numbered by @aphrodite/tensor's DTYPE_CODE, and the exact conversions of single numbers. All functions
// are forced inline: kernel files of every instruction set include this.
#pragma once
#include "portability.h"

enum class DType : int { f32, bf16, f16, i32, u8, i8, f8e4m3, f8e5m2, f64, i64, i16, u16, u32, u64, boolean, count };

/// Bytes of one element.
INLINE int sizeOf(DType t) {
  constexpr uint64_t kBytes = 0x184218811114224;  // a hexadecimal digit a type, f32 lowest
  return int(kBytes >> (4 * int(t)) & 15);
}
/// The types that kernels compute with.
INLINE bool isFloat(DType t) { return int(t) <= int(DType::f16); }
/// The types whose values are real numbers: what a checkpoint's weights may be stored in.
INLINE bool isReal(DType t) { return isFloat(t) || (int(t) >= int(DType::f8e4m3) && int(t) <= int(DType::f64)); }

struct Bf16 { uint16_t bits; };
struct F16 { uint16_t bits; };
struct F8e4m3 { uint8_t bits; };
struct F8e5m2 { uint8_t bits; };

INLINE float bitsToFloat(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
INLINE uint32_t floatToBits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

INLINE float bf16ToFloat(uint16_t v) { return bitsToFloat(uint32_t(v) << 16); }
/// To nearest, ties to even; a NaN stays one (quiet).
INLINE uint16_t floatToBf16(float f) {
  uint32_t u = floatToBits(f);
  if ((u & 0x7fffffff) > 0x7f800000) return uint16_t(u >> 16 | 0x40);
  return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

INLINE float halfToFloat(uint16_t h) {
  uint32_t sign = uint32_t(h & 0x8000) << 16, magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00) return bitsToFloat(sign | 0x7f800000 | (magnitude & 0x3ff) << 13 | (magnitude > 0x7c00 ? 0x400000 : 0));
  if (magnitude < 0x400) {  // zero or subnormal: magnitude * 2^-24 is exact
    float f = float(magnitude) * 5.9604644775390625e-8f;
    return sign ? -f : f;
  }
  return bitsToFloat(sign | ((magnitude << 13) + (112u << 23)));
}
/// To nearest, ties to even; overflow becomes infinity; a NaN stays one (quiet).
INLINE uint16_t floatToHalf(float f) {
  uint32_t u = floatToBits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) return uint16_t(sign | 0x7e00 | (a >> 13 & 0x3ff));
  if (a >= 0x477ff000) return uint16_t(sign | 0x7c00);  // 65520 and above
  if (a < 0x38800000) {                                // below 2^-14: the addition rounds to a multiple of 2^-24
    return uint16_t(sign | (floatToBits(bitsToFloat(a) + 0.5f) - 0x3f000000));
  }
  return uint16_t(sign | (((a - (112u << 23)) + 0xfff + (a >> 13 & 1)) >> 13));
}

/// OCP 8-bit floats: e4m3 has no infinity (0x7f is NaN), e5m2 is the upper byte of a half.
INLINE float f8e4m3ToFloat(uint8_t v) {
  uint32_t sign = uint32_t(v & 0x80) << 24, magnitude = v & 0x7f;
  if (magnitude == 0x7f) return bitsToFloat(sign | 0x7fc00000);
  if (magnitude < 8) {
    float f = float(magnitude) * 0.001953125f;  // 2^-9
    return sign ? -f : f;
  }
  return bitsToFloat(sign | ((magnitude << 20) + (120u << 23)));
}
INLINE float f8e5m2ToFloat(uint8_t v) { return halfToFloat(uint16_t(v << 8)); }
/// To nearest, ties to even; what is beyond the greatest finite value becomes that; a NaN stays one. `mantissa`: stored bits;
/// `least`: the exponent of the least normal number; `most`: the bits of the greatest finite value.
INLINE uint8_t floatToByte(float f, int mantissa, int least, uint32_t most) {
  const uint32_t u = floatToBits(f), sign = u >> 24 & 0x80, a = u & 0x7fffffff;
  if (a > 0x7f800000) return uint8_t(sign | 0x7f);
  uint32_t bits;
  if (a < uint32_t(127 + least) << 23) {  // the addition rounds to a multiple of the least subnormal number
    const float magic = bitsToFloat(uint32_t(127 + least - mantissa + 23) << 23);
    bits = floatToBits(bitsToFloat(a) + magic) - floatToBits(magic);
  } else {
    const int drop = 23 - mantissa;
    bits = ((a - (uint32_t(127 + least - 1) << 23)) + ((1u << (drop - 1)) - 1) + (a >> drop & 1)) >> drop;
  }
  return uint8_t(sign | (bits < most ? bits : most));
}
INLINE uint8_t floatToF8e4m3(float f) { return floatToByte(f, 3, -6, 0x7e); }
INLINE uint8_t floatToF8e5m2(float f) { return floatToByte(f, 2, -14, 0x7b); }

INLINE float load(const float* p) { return *p; }
INLINE float load(const Bf16* p) { return bf16ToFloat(p->bits); }
INLINE float load(const F16* p) { return halfToFloat(p->bits); }
INLINE void store(float* p, float f) { *p = f; }
INLINE void store(Bf16* p, float f) { p->bits = floatToBf16(f); }
INLINE void store(F16* p, float f) { p->bits = floatToHalf(f); }
INLINE void store(F8e4m3* p, float f) { p->bits = floatToF8e4m3(f); }
INLINE void store(F8e5m2* p, float f) { p->bits = floatToF8e5m2(f); }

/// Any real type as f32 (f64 is rounded).
INLINE float loadReal(DType t, const char* p) {
  switch (t) {
    case DType::f32: { float f; memcpy(&f, p, 4); return f; }
    case DType::f64: { double d; memcpy(&d, p, 8); return float(d); }
    case DType::bf16: { uint16_t h; memcpy(&h, p, 2); return bf16ToFloat(h); }
    case DType::f16: { uint16_t h; memcpy(&h, p, 2); return halfToFloat(h); }
    case DType::f8e4m3: return f8e4m3ToFloat(uint8_t(*p));
    case DType::f8e5m2: return f8e5m2ToFloat(uint8_t(*p));
    default: return 0;
  }
}
INLINE void storeFloat(DType t, char* p, float f) {
  if (t == DType::f32) { memcpy(p, &f, 4); return; }
  uint16_t h = t == DType::bf16 ? floatToBf16(f) : floatToHalf(f);
  memcpy(p, &h, 2);
}
