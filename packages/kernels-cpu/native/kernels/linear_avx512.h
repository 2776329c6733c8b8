// What the AVX-512 kernels of the linear layer share.
#pragma once
#include "linear_micro.h"

namespace {

// acc[j] += weights[j] . x for J panels and one row, the row's 4 bytes broadcast to all lanes. In assembly, because g++ (12)
// otherwise hoists the broadcasts of all rows, runs out of registers and spills sums in the inner loop.
#define DOT(NAME, INSTRUCTION)                                                                                          \
  template <int J> INLINE void NAME(__m512* c, const __m512i* v, const uint32_t* x) {                                   \
    __m512i b;                                                                                                          \
    if constexpr (J == 1)                                                                                               \
      asm(INSTRUCTION " %[x]%{1to16%}, %[v0], %[c0]" : [c0] "+v"(c[0]) : [v0] "v"(v[0]), [x] "m"(*x));                  \
    if constexpr (J == 2)                                                                                               \
      asm("vpbroadcastd %[x], %[b]\n\t" INSTRUCTION " %[b], %[v0], %[c0]\n\t" INSTRUCTION " %[b], %[v1], %[c1]"         \
          : [b] "=&v"(b), [c0] "+v"(c[0]), [c1] "+v"(c[1]) : [v0] "v"(v[0]), [v1] "v"(v[1]), [x] "m"(*x));              \
    if constexpr (J == 3)                                                                                               \
      asm("vpbroadcastd %[x], %[b]\n\t" INSTRUCTION " %[b], %[v0], %[c0]\n\t" INSTRUCTION " %[b], %[v1], %[c1]\n\t"     \
          INSTRUCTION " %[b], %[v2], %[c2]"                                                                             \
          : [b] "=&v"(b), [c0] "+v"(c[0]), [c1] "+v"(c[1]), [c2] "+v"(c[2])                                             \
          : [v0] "v"(v[0]), [v1] "v"(v[1]), [v2] "v"(v[2]), [x] "m"(*x));                                               \
    if constexpr (J == 4)                                                                                               \
      asm("vpbroadcastd %[x], %[b]\n\t" INSTRUCTION " %[b], %[v0], %[c0]\n\t" INSTRUCTION " %[b], %[v1], %[c1]\n\t"     \
          INSTRUCTION " %[b], %[v2], %[c2]\n\t" INSTRUCTION " %[b], %[v3], %[c3]"                                       \
          : [b] "=&v"(b), [c0] "+v"(c[0]), [c1] "+v"(c[1]), [c2] "+v"(c[2]), [c3] "+v"(c[3])                            \
          : [v0] "v"(v[0]), [v1] "v"(v[1]), [v2] "v"(v[2]), [v3] "v"(v[3]), [x] "m"(*x));                               \
  }
DOT(dotF32, "vfmadd231ps")
#ifdef __AVX512BF16__
DOT(dotPairs, "vdpbf16ps")
#endif
#undef DOT

/// To bf16, to nearest even, as floatToBf16 does (vcvtneps2bf16 would flush denormals).
INLINE __m256i roundToBf16(__m512 v) {
  __m512i u = _mm512_castps_si512(v);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
  __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40)));
}

struct Avx512 {
  using Acc = __m512;
  static constexpr int kParts = 1;
  static INLINE_MEMBER Acc zero() { return _mm512_setzero_ps(); }
  static INLINE_MEMBER Acc load(const float* p) { return _mm512_load_ps(p); }
  static INLINE_MEMBER void save(float* p, Acc a) { _mm512_store_ps(p, a); }
  static INLINE_MEMBER void finish(const LinearOut& out, int64_t row, int64_t col, const Acc* a) {
    __mmask16 mask = col + kPanel <= out.n ? __mmask16(0xffff) : __mmask16((1u << (out.n - col)) - 1);
    __m512 v = *a;
    if (out.bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, out.bias + col));
    char* to = out.p + (row * out.stride + col) * sizeOf(out.type);
    if (out.type == DType::f32) _mm512_mask_storeu_ps(to, mask, v);
    else _mm256_mask_storeu_epi16(to, mask, out.type == DType::bf16 ? roundToBf16(v) : _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
};

constexpr int kRows = 14, kTile = 28;  // 28 sums, up to 3 of weights, 1 broadcast: 32 registers

}  // namespace
