// The loops of elementwise.h, compiled once an instruction set.
#pragma once
#include "elementwise.h"
#include "vec_math.h"

namespace KERNEL_NS {
namespace {

/// fn(T{}) with the storage type of t.
template <class Fn> INLINE void withType(DType t, Fn fn) {
  if (t == DType::f32) fn(F32{});
  else if (t == DType::bf16) fn(BF16{});
  else fn(F16{});
}
template <class Fn> INLINE void withActivation(Activation f, Fn fn) {
  switch (f) {
    case Activation::silu: return fn(Silu{});
    case Activation::gelu: return fn(Gelu{});
    case Activation::geluTanh: return fn(GeluTanh{});
    case Activation::relu: return fn(Relu{});
    default: return fn(Relu2{});
  }
}

template <class To, class From, class Fn> INLINE void map(void* out, const void* x, int64_t n, Fn fn) {
  auto* o = static_cast<typename To::Element*>(out);
  auto* a = static_cast<const typename From::Element*>(x);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) To::store(o + i, fn(From::load(a + i)));
  if (i < n) storeFirst<To>(o + i, fn(loadFirst<From>(a + i, n - i)), n - i);
}
template <class T, class Fn> INLINE void map2(void* out, const void* x, const void* y, int64_t n, Fn fn) {
  auto* o = static_cast<typename T::Element*>(out);
  auto* a = static_cast<const typename T::Element*>(x);
  auto* b = static_cast<const typename T::Element*>(y);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) T::store(o + i, fn(T::load(a + i), T::load(b + i)));
  if (i < n) storeFirst<T>(o + i, fn(loadFirst<T>(a + i, n - i), loadFirst<T>(b + i, n - i)), n - i);
}

void add(DType t, void* out, const void* a, const void* b, int64_t n) {
  withType(t, [&](auto type) INLINE_LAMBDA { map2<decltype(type)>(out, a, b, n, [](F x, F y) INLINE_LAMBDA { return x + y; }); });
}
void scale(DType t, void* out, const void* x, float factor, int64_t n) {
  F f = splat(factor);
  withType(t, [&](auto type) INLINE_LAMBDA { map<decltype(type), decltype(type)>(out, x, n, [f](F v) INLINE_LAMBDA { return v * f; }); });
}
void softCap(DType t, void* out, const void* x, float cap, int64_t n) {
  F c = splat(cap);
  withType(t, [&](auto type) INLINE_LAMBDA { map<decltype(type), decltype(type)>(out, x, n, [c](F v) INLINE_LAMBDA { return c * tanh(v / c); }); });
}
void activate(DType t, Activation f, void* out, const void* x, int64_t n) {
  withType(t, [&](auto type) INLINE_LAMBDA {
    withActivation(f, [&](auto fn) INLINE_LAMBDA { map<decltype(type), decltype(type)>(out, x, n, [fn](F v) INLINE_LAMBDA { return fn.of(v); }); });
  });
}
void activateAndMul(DType t, Activation f, void* out, const void* gate, const void* up, int64_t n) {
  withType(t, [&](auto type) INLINE_LAMBDA {
    withActivation(f, [&](auto fn) INLINE_LAMBDA { map2<decltype(type)>(out, gate, up, n, [fn](F g, F u) INLINE_LAMBDA { return fn.of(g) * u; }); });
  });
}
void convert(DType to, DType from, void* out, const void* x, int64_t n) {
  withType(to, [&](auto o) INLINE_LAMBDA {
    withType(from, [&](auto i) INLINE_LAMBDA { map<decltype(o), decltype(i)>(out, x, n, [](F v) INLINE_LAMBDA { return v; }); });
  });
}

}  // namespace

extern const ElementwiseKernels kElementwise;
const ElementwiseKernels kElementwise = {add, scale, softCap, activate, activateAndMul, convert};

}  // namespace KERNEL_NS
