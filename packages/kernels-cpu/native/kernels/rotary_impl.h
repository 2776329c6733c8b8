// Rotary embeddings for one instruction set; KERNEL_NS is defined by the file that includes this.
#pragma once
#include "rotary.h"
#include "vec.h"

namespace KERNEL_NS {
namespace {

/// Halves: number i turns with number i + half. Each of them in two products and a difference or sum, rounded once.
template <class T> INLINE void turnHalves(char* p, const float* table, int64_t half) {
  auto* a = reinterpret_cast<typename T::Element*>(p);
  auto* b = a + half;
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    F x = T::load(a + i), y = T::load(b + i), cos = F32::load(table + i), sin = F32::load(table + half + i);
    T::store(a + i, x * cos - y * sin), T::store(b + i, y * cos + x * sin);
  }
  if (i < half) {
    const int64_t n = half - i;
    F x = loadFirst<T>(a + i, n), y = loadFirst<T>(b + i, n), cos = loadFirst<F32>(table + i, n), sin = loadFirst<F32>(table + half + i, n);
    storeFirst<T>(a + i, x * cos - y * sin, n), storeFirst<T>(b + i, y * cos + x * sin, n);
  }
}
template <class E> INLINE void turnPairs(char* p, const float* table, int64_t half) {
  E* a = reinterpret_cast<E*>(p);
  for (int64_t i = 0; i < half; i++, a += 2) {
    const float x = ::load(a), y = ::load(a + 1), cos = table[i], sin = table[half + i];
    ::store(a, x * cos - y * sin), ::store(a + 1, y * cos + x * sin);
  }
}

void rotaryHeads(DType type, char* x, int64_t heads, int64_t dim, const float* table, int64_t half, bool interleaved) {
  for (int64_t h = 0; h < heads; h++, x += dim * sizeOf(type)) {
    if (interleaved) {
      if (type == DType::f32) turnPairs<float>(x, table, half);
      else if (type == DType::bf16) turnPairs<Bf16>(x, table, half);
      else turnPairs<::F16>(x, table, half);
    } else {
      if (type == DType::f32) turnHalves<F32>(x, table, half);
      else if (type == DType::bf16) turnHalves<BF16>(x, table, half);
      else turnHalves<F16>(x, table, half);
    }
  }
}

}  // namespace
}  // namespace KERNEL_NS
