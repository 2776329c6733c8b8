// What the AVX2 kernels of the linear layer share: a panel is two registers.
#pragma once
#include "linear_micro.h"

namespace {

struct Avx2 {
  using Acc = __m256;
  static constexpr int kParts = 2;
  static INLINE_MEMBER Acc zero() { return _mm256_setzero_ps(); }
  static INLINE_MEMBER Acc load(const float* p) { return _mm256_load_ps(p); }
  static INLINE_MEMBER void save(float* p, Acc a) { _mm256_store_ps(p, a); }
  static INLINE_MEMBER void finish(const LinearOut& out, int64_t row, int64_t col, const Acc* a) {
    if (out.type == DType::f32 && col + kPanel <= out.n) {
      float* to = reinterpret_cast<float*>(out.p) + row * out.stride + col;
      UNROLL for (int i = 0; i < 2; i++)
        _mm256_storeu_ps(to + 8 * i, out.bias ? _mm256_add_ps(a[i], _mm256_loadu_ps(out.bias + col + 8 * i)) : a[i]);
      return;
    }
    alignas(32) float sums[kPanel];
    _mm256_store_ps(sums, a[0]), _mm256_store_ps(sums + 8, a[1]);
    finishFloats(out, row, col, sums);
  }
  /// a[R][2 J] += the registers of weights that get(j, half) gives times a unit of x.
  template <int R, int J, class Get> static INLINE_MEMBER void unit(Acc (*a)[2 * J], const uint32_t* x, Get&& get) {
    UNROLL for (int j = 0; j < J; j++) {
      __m256 lower = get(j, 0), upper = get(j, 1);
      UNROLL for (int r = 0; r < R; r++) {
        __m256 b = _mm256_broadcast_ss(reinterpret_cast<const float*>(x) + r);
        a[r][2 * j] = _mm256_fmadd_ps(lower, b, a[r][2 * j]);
        a[r][2 * j + 1] = _mm256_fmadd_ps(upper, b, a[r][2 * j + 1]);
      }
    }
  }
};

constexpr int kRows = 6, kTile = 6;  // 12 sums, 2 of weights, 1 broadcast: 16 registers

}  // namespace
