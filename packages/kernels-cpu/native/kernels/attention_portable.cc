#include "dtype.h"

namespace {

/// Four lanes in what every processor with vectors has.
struct Lanes {
  typedef float Reg __attribute__((vector_size(16)));
  typedef int32_t Ints __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;
  static INLINE_MEMBER Reg zero() { return Reg{}; }
  static INLINE_MEMBER Reg splat(float x) { return Reg{x, x, x, x}; }
  static INLINE_MEMBER Reg load(const float* p) { return *reinterpret_cast<const Reg*>(p); }
  static INLINE_MEMBER void store(float* p, Reg a) { *reinterpret_cast<Reg*>(p) = a; }
  static INLINE_MEMBER Reg loadBf16Of(const char* line, int odd) {
    Ints v = *reinterpret_cast<const Ints*>(line);
    return (Reg)(odd ? v & int32_t(0xffff0000) : v << 16);
  }
  static INLINE_MEMBER Reg loadHalves(const char* p) {
    const F16* h = reinterpret_cast<const F16*>(p);
    return Reg{::load(h), ::load(h + 1), ::load(h + 2), ::load(h + 3)};
  }
  template <DType Type> static INLINE_MEMBER Reg loadBytes(const char* p) {
    // The bits of a float, with what its exponent lacks multiplied in; NaN (and infinity) by a mask.
    constexpr bool kE4m3 = Type == DType::f8e4m3;
    const Ints b = Ints{uint8_t(p[0]), uint8_t(p[1]), uint8_t(p[2]), uint8_t(p[3])}, magnitude = b & 0x7f;
    const Ints special = (kE4m3 ? magnitude == 0x7f : magnitude >= 0x7c) & 0x7f800000;
    const Ints v = (Ints)((Reg)(magnitude << (kE4m3 ? 20 : 21)) * splat(kE4m3 ? 0x1p120f : 0x1p112f));
    return (Reg)(v | special | (b & 0x80) << 24);
  }
  static INLINE_MEMBER Reg add(Reg a, Reg b) { return a + b; }
  static INLINE_MEMBER Reg mul(Reg a, Reg b) { return a * b; }
  static INLINE_MEMBER Reg divide(Reg a, Reg b) { return a / b; }
  static INLINE_MEMBER Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
  static INLINE_MEMBER Reg max(Reg a, Reg b) { return a > b ? a : b; }
  static INLINE_MEMBER Reg min(Reg a, Reg b) { return a < b ? a : b; }
  static INLINE_MEMBER Reg numbered(int i) { return splat(float(i)) + Reg{0, 1, 2, 3}; }
  static INLINE_MEMBER Reg within(Reg x, int first, int from, int to) {
    Ints i = Ints{0, 1, 2, 3} + first;
    return (i >= from) & (i < to) ? x : splat(-__builtin_inff());
  }
  static INLINE_MEMBER Reg exp2(Reg x) {
    Reg c = max(splat(-127.0f), x);  // 2^-127 is 0 below
    c = c == c ? c : zero();
    Ints i = __builtin_convertvector(c, Ints);
    i += __builtin_convertvector(i, Reg) > c;  // the comparison is -1 where it holds: down, not towards zero
    Reg f = c - __builtin_convertvector(i, Reg);
    Reg y = splat(0.00187931862f) * f + splat(0.00899099465f);
    y = y * f + splat(0.0558186769f);
    y = y * f + splat(0.240159273f);
    y = y * f + splat(0.693151712f);
    y = y * f + splat(1.0f);
    return x == x ? y * (Reg)((i + 127) << 23) : x;
  }
  static INLINE_MEMBER void round(char* to, DType type, Reg x) {
    for (int i = 0; i < 4; i++) storeFloat(type, to + i * sizeOf(type), x[i]);
  }
  static INLINE_MEMBER float first(Reg a) { return a[0]; }
  static INLINE_MEMBER float greatest(Reg a) {
    float m = a[0];
    for (int i = 1; i < 4; i++) m = a[i] > m ? a[i] : m;
    return m;
  }
  static INLINE_MEMBER float sum(Reg a) { return (a[0] + a[2]) + (a[1] + a[3]); }
  template <int N> static INLINE_MEMBER void multiplyAdd(Reg* a, const Reg* w, const uint32_t* x) {
    Reg b = splat(bitsToFloat(*x));
    UNROLL for (int j = 0; j < N; j++) a[j] = w[j] * b + a[j];
  }
};

}  // namespace

#include "attention_impl.h"

namespace {
template <class Lines> constexpr AttentionTable<FloatDot<Lines>, 3, 3> kTable;
template <class Lines> constexpr AttentionKernel kKernel = kernelOf(kTable<Lines>, softmaxFloats);
}  // namespace

extern const AttentionKernels attentionPortable = {kKernel<F32Lines>, kKernel<Bf16Lines>, kKernel<F16Lines>, kKernel<ByteLines<DType::f8e4m3>>, kKernel<ByteLines<DType::f8e5m2>>};
