// The loops of norm.h, compiled once an instruction set.
#pragma once
#include "norm.h"
#include "vec.h"

namespace KERNEL_NS {
namespace {

constexpr int kSums = 4;  // 4 × 16 lanes: enough independent additions to hide their latency

/// The sum over all elements of fn(i, count), a vector whose lanes from count on must be zero.
template <class Fn> INLINE float total(int64_t n, Fn fn) {
  F sums[kSums] = {splat(0), splat(0), splat(0), splat(0)};
  int64_t i = 0;
  for (; i + kSums * kLanes <= n; i += kSums * kLanes) UNROLL for (int j = 0; j < kSums; j++) sums[j] = sums[j] + fn(i + j * kLanes, kLanes);
  for (int j = 0; i < n; i += kLanes, j++) {
    F v = fn(i, n - i < kLanes ? n - i : int64_t(kLanes));
    UNROLL for (int k = 0; k < kSums; k++) if (k == j) sums[k] = sums[k] + v;
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}
template <class T> INLINE F loadSome(const typename T::Element* q, int64_t count) {
  return count == kLanes ? T::load(q) : loadFirst<T>(q, count);
}
template <class T> INLINE void storeSome(typename T::Element* q, F a, int64_t count) {
  if (count == kLanes) T::store(q, a);
  else storeFirst<T>(q, a, count);
}

/// T: the type of out, weight and x. N: of what is normed, the residual or else x.
template <class T, class N> void rmsOf(void* out, void* residual, const void* x, const void* weight, float eps, float weightOffset, int64_t n) {
  using E = typename T::Element;
  auto* o = static_cast<E*>(out);
  auto* r = static_cast<typename N::Element*>(residual);
  auto* in = static_cast<const typename N::Element*>(residual ? residual : x);
  auto* w = static_cast<const E*>(weight);
  float squares;
  if (r) {
    auto* added = static_cast<const E*>(x);
    squares = total(n, [&](int64_t i, int64_t count) INLINE_LAMBDA {
      storeSome<N>(r + i, loadSome<N>(r + i, count) + loadSome<T>(added + i, count), count);
      F v = loadSome<N>(r + i, count);
      return v * v;
    });
  } else {
    squares = total(n, [&](int64_t i, int64_t count) INLINE_LAMBDA {
      F v = loadSome<N>(in + i, count);
      return v * v;
    });
  }
  F inverse = splat(1.0f / __builtin_sqrtf(squares / float(n) + eps)), offset = splat(weightOffset);
  for (int64_t i = 0; i < n; i += kLanes) {
    int64_t count = n - i < kLanes ? n - i : int64_t(kLanes);
    storeSome<T>(o + i, loadSome<N>(in + i, count) * inverse * (loadSome<T>(w + i, count) + offset), count);
  }
}

template <class T> void layerOf(void* out, const void* x, const void* weight, const void* bias, float eps, int64_t n) {
  using E = typename T::Element;
  auto* o = static_cast<E*>(out);
  auto* in = static_cast<const E*>(x);
  auto* w = static_cast<const E*>(weight);
  auto* b = static_cast<const E*>(bias);
  F mean = splat(total(n, [&](int64_t i, int64_t count) INLINE_LAMBDA { return loadSome<T>(in + i, count); }) / float(n));
  float squares = total(n, [&](int64_t i, int64_t count) INLINE_LAMBDA {
    F d = loadSome<T>(in + i, count) - mean;
    if (count < kLanes) d = select(laneNumbers() < splatI(int32_t(count)), d, splat(0));
    return d * d;
  });
  F inverse = splat(1.0f / __builtin_sqrtf(squares / float(n) + eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    int64_t count = n - i < kLanes ? n - i : int64_t(kLanes);
    F y = (loadSome<T>(in + i, count) - mean) * inverse * loadSome<T>(w + i, count);
    if (b) y = y + loadSome<T>(b + i, count);
    storeSome<T>(o + i, y, count);
  }
}

void rms(DType t, DType normed, void* out, void* residual, const void* x, const void* weight, float eps, float weightOffset, int64_t n) {
  auto run = t == DType::f32    ? rmsOf<F32, F32>
             : t == DType::bf16 ? (normed == t ? rmsOf<BF16, BF16> : rmsOf<BF16, F32>)
                                : (normed == t ? rmsOf<F16, F16> : rmsOf<F16, F32>);
  run(out, residual, x, weight, eps, weightOffset, n);
}
void layer(DType t, void* out, const void* x, const void* weight, const void* bias, float eps, int64_t n) {
  if (t == DType::f32) layerOf<F32>(out, x, weight, bias, eps, n);
  else if (t == DType::bf16) layerOf<BF16>(out, x, weight, bias, eps, n);
  else layerOf<F16>(out, x, weight, bias, eps, n);
}

}  // namespace

extern const NormKernels kNorm;
const NormKernels kNorm = {rms, layer};

}  // namespace KERNEL_NS
