// The loop of reduce.h, compiled once an instruction set.
#pragma once
#include "reduce.h"
#include "vec.h"

namespace KERNEL_NS {
namespace {

template <class T> INLINE void reduceOf(void* out, const void* const* parts, int count, int64_t n) {
  using Element = typename T::Element;
  auto* o = static_cast<Element*>(out);
  auto part = [&](int r) INLINE_LAMBDA { return static_cast<const Element*>(parts[r]); };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    F sum = T::load(part(0) + i);
    for (int r = 1; r < count; r++) sum = sum + T::load(part(r) + i);
    T::store(o + i, sum);
  }
  if (i == n) return;
  F sum = loadFirst<T>(part(0) + i, n - i);
  for (int r = 1; r < count; r++) sum = sum + loadFirst<T>(part(r) + i, n - i);
  storeFirst<T>(o + i, sum, n - i);
}

void reduce(DType t, void* out, const void* const* parts, int count, int64_t n) {
  if (t == DType::f32) reduceOf<F32>(out, parts, count, n);
  else if (t == DType::bf16) reduceOf<BF16>(out, parts, count, n);
  else reduceOf<F16>(out, parts, count, n);
}

}  // namespace

extern const ReduceKernel kReduce;
const ReduceKernel kReduce = reduce;

}  // namespace KERNEL_NS
