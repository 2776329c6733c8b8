// Arithmetic on elements: computed in f32, rounded once.
#include "elementwise.cuh"

namespace {

// 16-bit results are rounded to 2^-9 at best, so the quick exponential and division do; f32 results get the exact ones.
template <class T> __device__ __forceinline__ float exponential(float x) { return sizeof(T) == 4 ? expf(x) : __expf(x); }
template <class T> __device__ __forceinline__ float quotient(float a, float b) { return sizeof(T) == 4 ? a / b : __fdividef(a, b); }
/// x / (1 + e^-u); 0 where e^-u leaves f32, whatever x is.
template <class T> __device__ __forceinline__ float gated(float x, float u) { return u < -88.5f ? 0.0f : quotient<T>(x, 1.0f + exponential<T>(-u)); }

struct Silu {
  template <class T> __device__ float of(float x) const { return gated<T>(x, x); }
};
struct Gelu {
  template <class T> __device__ float of(float x) const { return x < -16.0f ? -0.0f : 0.5f * x * erfcf(-0.70710678f * x); }
};
struct GeluTanh {
  // 0.5 x (1 + tanh(u)) = x / (1 + e^(-2u))
  template <class T> __device__ float of(float x) const { return gated<T>(x, 1.5957691216f * (x + 0.044715f * x * x * x)); }
};
struct Relu {
  template <class T> __device__ float of(float x) const { return x < 0 ? 0.0f : x; }
};
struct Relu2 {
  template <class T> __device__ float of(float x) const { return x < 0 ? 0.0f : x * x; }
};
struct Scale {
  float factor;
  template <class T> __device__ float of(float x) const { return x * factor; }
};
struct SoftCap {
  float cap;
  template <class T> __device__ float of(float x) const { return cap * tanhf(x / cap); }
};
struct Same {
  template <class T> __device__ float of(float x) const { return x; }
};

/// to = f(from)
template <class To, class From, class F> struct Map {
  Rows to, from;
  F f;
  template <int N> __device__ __forceinline__ void at(int64_t row, int64_t col) const {
    const Vec<From, N> x = loadVec<From, N>(from, row, col);
    Vec<To, N> y;
#pragma unroll
    for (int i = 0; i < N; i++) y.v[i] = fromFloat<To>(f.template of<To>(toFloat(x.v[i])));
    storeVec(to, row, col, y);
  }
};
template <class T> struct Sum {
  Rows to, a, b;
  template <int N> __device__ __forceinline__ void at(int64_t row, int64_t col) const {
    const Vec<T, N> x = loadVec<T, N>(a, row, col), z = loadVec<T, N>(b, row, col);
    Vec<T, N> y;
#pragma unroll
    for (int i = 0; i < N; i++) y.v[i] = fromFloat<T>(toFloat(x.v[i]) + toFloat(z.v[i]));
    storeVec(to, row, col, y);
  }
};
/// to = f(gate) · up
template <class T, class F> struct Gated {
  Rows to, gate, up;
  F f;
  template <int N> __device__ __forceinline__ void at(int64_t row, int64_t col) const {
    const Vec<T, N> x = loadVec<T, N>(gate, row, col), z = loadVec<T, N>(up, row, col);
    Vec<T, N> y;
#pragma unroll
    for (int i = 0; i < N; i++) y.v[i] = fromFloat<T>(f.template of<T>(toFloat(x.v[i])) * toFloat(z.v[i]));
    storeVec(to, row, col, y);
  }
};

template <class To, class From, class F> void map(const Context& c, const char* name, Extent e, Rows out, Rows x, F f) {
  Map<To, From, F> op{out, x, f};
  overElements<16 / (sizeof(To) < sizeof(From) ? sizeof(To) : sizeof(From))>(c, name, op, e, {{&op.to, sizeof(To)}, {&op.from, sizeof(From)}});
}
template <class Call> void withActivation(Activation f, Call call) {
  switch (f) {
    case Activation::silu: return call(Silu{});
    case Activation::gelu: return call(Gelu{});
    case Activation::geluTanh: return call(GeluTanh{});
    case Activation::relu: return call(Relu{});
    default: return call(Relu2{});
  }
}

}  // namespace

void addRows(const Context& c, DType t, Extent e, Rows out, Rows a, Rows b) {
  withFloat(t, [&](auto type) {
    using T = decltype(type);
    Sum<T> op{out, a, b};
    overElements<kVec<T>>(c, "add", op, e, {{&op.to, sizeof(T)}, {&op.a, sizeof(T)}, {&op.b, sizeof(T)}});
  });
}
void scaleRows(const Context& c, DType t, Extent e, Rows out, Rows x, float factor) {
  withFloat(t, [&](auto type) { map<decltype(type), decltype(type)>(c, "scale", e, out, x, Scale{factor}); });
}
void softCapRows(const Context& c, DType t, Extent e, Rows out, Rows x, float cap) {
  withFloat(t, [&](auto type) { map<decltype(type), decltype(type)>(c, "softCap", e, out, x, SoftCap{cap}); });
}
void activateRows(const Context& c, DType t, Activation f, Extent e, Rows out, Rows x) {
  withActivation(f, [&](auto function) {
    withFloat(t, [&](auto type) { map<decltype(type), decltype(type)>(c, "activate", e, out, x, function); });
  });
}
void activateAndMulRows(const Context& c, DType t, Activation f, Extent e, Rows out, Rows gate, Rows up) {
  withActivation(f, [&](auto function) {
    withFloat(t, [&](auto type) {
      using T = decltype(type);
      Gated<T, decltype(function)> op{out, gate, up, function};
      overElements<kVec<T>>(c, "activateAndMul", op, e, {{&op.to, sizeof(T)}, {&op.gate, sizeof(T)}, {&op.up, sizeof(T)}});
    });
  });
}
void convertRows(const Context& c, DType to, DType from, Extent e, Rows out, Rows x) {
  withFloat(to, [&](auto a) { withFloat(from, [&](auto b) { map<decltype(a), decltype(b)>(c, "convert", e, out, x, Same{}); }); });
}
