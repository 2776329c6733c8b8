// Element types, as numbered by @aphrodite/tensor's DTYPE_CODE, and their conversions.
#pragma once
#include <cstdint>
#include <cstring>

enum class DType : int { f32, bf16, f16, i32, u8, i8, f8e4m3, f8e5m2, f64, i64, i16, u16, u32, u64, boolean, count };

inline int sizeOf(DType t) {
  static const int bytes[] = {4, 2, 2, 4, 1, 1, 1, 1, 8, 8, 2, 2, 4, 8, 1};
  return bytes[int(t)];
}
inline bool isFloat(DType t) { return int(t) <= int(DType::f16); }
