// Sixteen lanes, whatever the instruction set: one register of AVX-512, two of AVX2, four of what has 128 bits. A kernel
// written on these types does the same operations in the same order everywhere, so its results have the same bits everywhere
// (nothing here contracts or approximates). A file that includes this defines KERNEL_NS, a namespace of its own.
#pragma once
#include "dtype.h"
#include "portability.h"

namespace KERNEL_NS {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
constexpr int kLanes = 16, kParts = kLanes / kWidth;

typedef float NativeF __attribute__((vector_size(4 * kWidth)));
typedef int32_t NativeI __attribute__((vector_size(4 * kWidth)));
typedef uint32_t NativeU __attribute__((vector_size(4 * kWidth)));
typedef uint16_t NativeH __attribute__((vector_size(2 * kWidth)));
// In memory, at any address. (A memcpy of all sixteen lanes would go through the stack in pieces.)
typedef float MemoryF __attribute__((vector_size(4 * kWidth), aligned(1), may_alias));
typedef int32_t MemoryI __attribute__((vector_size(4 * kWidth), aligned(1), may_alias));
typedef uint16_t MemoryH __attribute__((vector_size(2 * kWidth), aligned(1), may_alias));

struct F { NativeF v[kParts]; };
struct I { NativeI v[kParts]; };  // also masks: 0 or -1
struct U { NativeU v[kParts]; };

/// After a lambda's parameters: a call would pass its vectors through memory.
#define INLINE_LAMBDA __attribute__((always_inline))
#define EACH_PART UNROLL for (int p = 0; p < kParts; p++)
#define BINARY(R, A, B, op) \
  INLINE R operator op(A a, B b) { R r; EACH_PART r.v[p] = a.v[p] op b.v[p]; return r; }
BINARY(F, F, F, +) BINARY(F, F, F, -) BINARY(F, F, F, *) BINARY(F, F, F, /)
BINARY(I, F, F, <) BINARY(I, F, F, >) BINARY(I, F, F, >=) BINARY(I, F, F, ==)
BINARY(I, I, I, +) BINARY(I, I, I, -) BINARY(I, I, I, &) BINARY(I, I, I, |) BINARY(I, I, I, ==) BINARY(I, I, I, >) BINARY(I, I, I, <)
BINARY(U, U, U, +) BINARY(U, U, U, -) BINARY(U, U, U, &) BINARY(U, U, U, |) BINARY(U, U, U, ^) BINARY(I, U, U, ==)
#undef BINARY
INLINE U operator>>(U a, int n) { U r; EACH_PART r.v[p] = a.v[p] >> n; return r; }
INLINE U operator<<(U a, int n) { U r; EACH_PART r.v[p] = a.v[p] << n; return r; }
INLINE I operator>>(I a, int n) { I r; EACH_PART r.v[p] = a.v[p] >> n; return r; }
INLINE I operator<<(I a, int n) { I r; EACH_PART r.v[p] = a.v[p] << n; return r; }

INLINE F splat(float x) { F r; EACH_PART r.v[p] = NativeF{} + x; return r; }
INLINE I splatI(int32_t x) { I r; EACH_PART r.v[p] = NativeI{} + x; return r; }
INLINE U splatU(uint32_t x) { U r; EACH_PART r.v[p] = NativeU{} + x; return r; }
INLINE F select(I mask, F a, F b) { F r; EACH_PART r.v[p] = mask.v[p] ? a.v[p] : b.v[p]; return r; }
INLINE I select(I mask, I a, I b) { I r; EACH_PART r.v[p] = mask.v[p] ? a.v[p] : b.v[p]; return r; }
INLINE U select(I mask, U a, U b) { U r; EACH_PART r.v[p] = mask.v[p] ? a.v[p] : b.v[p]; return r; }
INLINE U bitsOf(F a) { U r; EACH_PART r.v[p] = (NativeU)a.v[p]; return r; }
INLINE I bitsAsI(F a) { I r; EACH_PART r.v[p] = (NativeI)a.v[p]; return r; }
INLINE F floatOf(U a) { F r; EACH_PART r.v[p] = (NativeF)a.v[p]; return r; }
INLINE F floatOf(I a) { F r; EACH_PART r.v[p] = (NativeF)a.v[p]; return r; }
INLINE U asU(I a) { U r; EACH_PART r.v[p] = (NativeU)a.v[p]; return r; }
INLINE I asI(U a) { I r; EACH_PART r.v[p] = (NativeI)a.v[p]; return r; }
INLINE F toFloat(I a) { F r; EACH_PART r.v[p] = __builtin_convertvector(a.v[p], NativeF); return r; }
/// Toward zero; the value must fit.
INLINE I toInt(F a) { I r; EACH_PART r.v[p] = __builtin_convertvector(a.v[p], NativeI); return r; }
INLINE F abs(F a) { return floatOf(bitsOf(a) & splatU(0x7fffffffu)); }
INLINE F withSign(F a, F sign) { return floatOf((bitsOf(a) & splatU(0x7fffffffu)) | (bitsOf(sign) & splatU(0x80000000u))); }
/// b where a is NaN.
INLINE F greater(F a, F b) {
#if defined(__AVX512F__)
  return F{{(NativeF)_mm512_max_ps((__m512)a.v[0], (__m512)b.v[0])}};
#elif defined(__AVX2__)
  return F{{(NativeF)_mm256_max_ps((__m256)a.v[0], (__m256)b.v[0]), (NativeF)_mm256_max_ps((__m256)a.v[1], (__m256)b.v[1])}};
#else
  return select(a > b, a, b);
#endif
}
/// b where a is NaN.
INLINE F lesser(F a, F b) {
#if defined(__AVX512F__)
  return F{{(NativeF)_mm512_min_ps((__m512)a.v[0], (__m512)b.v[0])}};
#elif defined(__AVX2__)
  return F{{(NativeF)_mm256_min_ps((__m256)a.v[0], (__m256)b.v[0]), (NativeF)_mm256_min_ps((__m256)a.v[1], (__m256)b.v[1])}};
#else
  return select(a < b, a, b);
#endif
}
INLINE I laneNumbers() {
  I r;
  EACH_PART for (int l = 0; l < kWidth; l++) r.v[p][l] = p * kWidth + l;
  return r;
}
INLINE float lane(F a, int i) { return a.v[i / kWidth][i % kWidth]; }
INLINE int32_t lane(I a, int i) { return a.v[i / kWidth][i % kWidth]; }

/// The sum of the lanes, always by the same tree: 8 apart, 4 apart, 2, 1.
INLINE float sum(F a) {
  float s[kLanes];
  UNROLL for (int i = 0; i < kLanes; i++) s[i] = lane(a, i);
  UNROLL for (int i = 0; i < 8; i++) s[i] = s[i] + s[i + 8];
  UNROLL for (int i = 0; i < 4; i++) s[i] = s[i] + s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}
INLINE float greatest(F a) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)a.v[0]);
#else
  NativeF m = a.v[0];
  UNROLL for (int p = 1; p < kParts; p++) m = m > a.v[p] ? m : a.v[p];
  float g = m[0];
  UNROLL for (int i = 1; i < kWidth; i++) g = m[i] > g ? m[i] : g;
  return g;
#endif
}

/// The high halves of 32 × 32 bit products.
INLINE U mulHigh(U a, uint32_t b) {
  U r;
#if defined(__AVX512F__)
  __m512i x = (__m512i)a.v[0], y = _mm512_set1_epi32(int(b));
  __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(x, y), 32), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), y);
  r.v[0] = (NativeU)_mm512_mask_blend_epi32(0xaaaa, even, odd);
#elif defined(__AVX2__)
  __m256i y = _mm256_set1_epi32(int(b));
  EACH_PART {
    __m256i x = (__m256i)a.v[p];
    __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(x, y), 32), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), y);
    r.v[p] = (NativeU)_mm256_blend_epi32(even, odd, 0xaa);
  }
#else
  EACH_PART for (int l = 0; l < kWidth; l++) r.v[p][l] = uint32_t((uint64_t(a.v[p][l]) * b) >> 32);
#endif
  return r;
}
INLINE U mulLow(U a, uint32_t b) { U r; EACH_PART r.v[p] = a.v[p] * b; return r; }

// Elements in memory. `T` names the storage; loads widen to f32, stores round to nearest even.
struct F32 {
  using Element = float;
  INLINE F load(const float* q) { F r; EACH_PART r.v[p] = (NativeF)*(const MemoryF*)(q + p * kWidth); return r; }
  INLINE void store(float* q, F a) { EACH_PART *(MemoryF*)(q + p * kWidth) = (MemoryF)a.v[p]; }
};

INLINE I loadInts(const int32_t* q) { I r; EACH_PART r.v[p] = (NativeI)*(const MemoryI*)(q + p * kWidth); return r; }
INLINE void storeInts(int32_t* q, I a) { EACH_PART *(MemoryI*)(q + p * kWidth) = (MemoryI)a.v[p]; }

INLINE U widen(const uint16_t* q) {
  U r;
#if defined(__AVX512F__)
  r.v[0] = (NativeU)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)q));
#elif defined(__AVX2__)
  EACH_PART r.v[p] = (NativeU)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(q + 8 * p)));
#else
  EACH_PART r.v[p] = __builtin_convertvector((NativeH)*(const MemoryH*)(q + p * kWidth), NativeU);
#endif
  return r;
}
/// The low halves.
INLINE void narrow(uint16_t* q, U a) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)q, _mm512_cvtepi32_epi16((__m512i)a.v[0]));
#elif defined(__AVX2__)
  __m256i low = _mm256_and_si256((__m256i)a.v[0], _mm256_set1_epi32(0xffff)), high = _mm256_and_si256((__m256i)a.v[1], _mm256_set1_epi32(0xffff));
  _mm256_storeu_si256((__m256i*)q, _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8));
#else
  EACH_PART *(MemoryH*)(q + p * kWidth) = (MemoryH)__builtin_convertvector(a.v[p], NativeH);
#endif
}

struct BF16 {
  using Element = uint16_t;
  INLINE F load(const uint16_t* q) { return floatOf(widen(q) << 16); }
  INLINE void store(uint16_t* q, F a) {
    U u = bitsOf(a);
    U rounded = (u + splatU(0x7fff) + ((u >> 16) & splatU(1))) >> 16;
    narrow(q, select(a == a, rounded, splatU(0x7fc0)));
  }
};

struct F16 {
  using Element = uint16_t;
#if defined(__AVX512F__)
  INLINE F load(const uint16_t* q) { return F{{(NativeF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)q))}}; }
  INLINE void store(uint16_t* q, F a) {
    _mm256_storeu_si256((__m256i*)q, _mm512_cvtps_ph((__m512)a.v[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#elif defined(__F16C__)
  INLINE F load(const uint16_t* q) {
    F r;
    EACH_PART r.v[p] = (NativeF)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(q + 8 * p)));
    return r;
  }
  INLINE void store(uint16_t* q, F a) {
    EACH_PART _mm_storeu_si128((__m128i*)(q + 8 * p), _mm256_cvtps_ph((__m256)a.v[p], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#else
  INLINE F load(const uint16_t* q) {
    U h = widen(q), magnitude = h & splatU(0x7fff);
    // As the bits of a float the half is 2^112 times too small, denormals included; infinity and NaN are not.
    F scaled = floatOf(magnitude << 13) * splat(0x1p112f);
    U bits = select(asI(magnitude) > splatI(0x7bff), (magnitude << 13) | splatU(0x7f800000u), bitsOf(scaled));
    return floatOf(bits | ((h & splatU(0x8000)) << 16));
  }
  INLINE void store(uint16_t* q, F a) {
    U u = bitsOf(a) & splatU(0x7fffffffu), sign = (bitsOf(a) >> 16) & splatU(0x8000);
    U normal = (u + splatU(0xc8000fffu) + ((u >> 13) & splatU(1))) >> 13;  // exponent less 112, rounded at bit 13
    U denormal = bitsOf(floatOf(u) + splat(0.5f)) - bitsOf(splat(0.5f));   // the sum's last bit is 2^-24
    U h = select(asI(u) < splatI(113 << 23), denormal, normal);
    h = select(asI(u) > splatI((143 << 23) - 1), select(asI(u) > splatI(255 << 23), splatU(0x7e00), splatU(0x7c00)), h);
    narrow(q, h | sign);
  }
#endif
};

/// The first n of 16 elements; the other lanes are zero.
template <class T> INLINE F loadFirst(const typename T::Element* q, int64_t n) {
  typename T::Element all[kLanes] = {};
  for (int64_t i = 0; i < n; i++) all[i] = q[i];
  return T::load(all);
}
template <class T> INLINE void storeFirst(typename T::Element* q, F a, int64_t n) {
  typename T::Element all[kLanes];
  T::store(all, a);
  for (int64_t i = 0; i < n; i++) q[i] = all[i];
}

}  // namespace KERNEL_NS
