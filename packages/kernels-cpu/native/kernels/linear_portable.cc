// The linear layer for any processor, in vectors of 4 floats that the compiler maps to what is there.
#include "linear_micro.h"

namespace {

typedef float Floats __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));

INLINE Words wordsAt(const char* p) {
  Words w;
  memcpy(&w, p, 16);
  return w;
}
INLINE Floats asFloats(Words w) {
  Floats f;
  memcpy(&f, &w, 16);
  return f;
}

struct Portable {
  using Acc = Floats;
  static constexpr int kParts = 4;
  static INLINE_MEMBER Acc zero() { return Floats{0, 0, 0, 0}; }
  static INLINE_MEMBER Acc load(const float* p) {
    Floats f;
    memcpy(&f, p, 16);
    return f;
  }
  static INLINE_MEMBER void save(float* p, Acc a) { memcpy(p, &a, 16); }
  static INLINE_MEMBER void finish(const LinearOut& out, int64_t row, int64_t col, const Acc* a) {
    float sums[kPanel];
    memcpy(sums, a, sizeof sums);
    finishFloats(out, row, col, sums);
  }
  template <int R, int J, class Get> static INLINE_MEMBER void unit(Acc (*a)[4 * J], const uint32_t* x, Get&& get) {
    UNROLL for (int r = 0; r < R; r++) {
      float b;
      memcpy(&b, x + r, 4);
      UNROLL for (int j = 0; j < J; j++) UNROLL for (int i = 0; i < 4; i++) a[r][4 * j + i] += get(j, i) * b;
    }
  }
};

struct F32 : Portable {
  static constexpr int kUnits = 1;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[4 * J], const char* w, size_t panel, const uint32_t* x) {
    unit<R, J>(a, x, [&](int j, int i) { return asFloats(wordsAt(w + j * panel + 16 * i)); });
  }
};
struct Bf16Weights : Portable {
  static constexpr int kUnits = 2;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[4 * J], const char* w, size_t panel, const uint32_t* x) {
    unit<R, J>(a, x, [&](int j, int i) { return asFloats(wordsAt(w + j * panel + 16 * i) << 16); });
    unit<R, J>(a, x + R, [&](int j, int i) { return asFloats(wordsAt(w + j * panel + 16 * i) & 0xffff0000u); });
  }
};
struct F16Weights : Portable {
  static constexpr int kUnits = 2;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[4 * J], const char* w, size_t panel, const uint32_t* x) {
    unit<R, J>(a, x, [&](int j, int i) { return widen(w + j * panel + 8 * i); });
    unit<R, J>(a, x + R, [&](int j, int i) { return widen(w + j * panel + 32 + 8 * i); });
  }
  /// Four halves: exponent and mantissa moved into place and scaled by 2^112, exact for subnormals too.
  static INLINE_MEMBER Floats widen(const char* p) {
    uint16_t h[4];
    memcpy(h, p, 8);
    Words w{h[0], h[1], h[2], h[3]};
    Words magnitude = (w & 0x7fffu) << 13;
    Words special = Words(magnitude >= 0x0f800000u) & 0x7f800000u;  // infinities and NaN
    Floats f = asFloats(magnitude) * 0x1p112f;
    Words bits;
    memcpy(&bits, &f, 16);
    return asFloats(bits | special | (w & 0x8000u) << 16);
  }
};

constexpr int kRows = 3, kTile = 3;  // 12 sums
constexpr Table<F32, kRows, kTile> tableF32;
constexpr Table<Bf16Weights, kRows, kTile> tableBf16;
constexpr Table<F16Weights, kRows, kTile> tableF16;

}  // namespace

extern const LinearKernel linearF32Portable = {false, kRows, kTile, &tableF32.at[0][0][0]};
extern const LinearKernel linearBf16Portable = {false, kRows, kTile, &tableBf16.at[0][0][0]};
extern const LinearKernel linearF16Portable = {false, kRows, kTile, &tableF16.at[0][0][0]};
