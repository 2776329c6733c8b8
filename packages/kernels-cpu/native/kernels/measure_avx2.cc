#include "measure.h"

static uint64_t read(const char* p, size_t bytes) {
  __m256i a[8];
  UNROLL for (int j = 0; j < 8; j++) a[j] = _mm256_setzero_si256();
  const size_t quarter = bytes / 4;
  for (size_t i = 0; i + 64 <= quarter; i += 64)
    UNROLL for (int s = 0; s < 4; s++) UNROLL for (int j = 0; j < 2; j++)
      a[s * 2 + j] = _mm256_add_epi64(a[s * 2 + j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + size_t(s) * quarter + i + j * 32)));
  UNROLL for (int j = 1; j < 8; j++) a[0] = _mm256_add_epi64(a[0], a[j]);
  alignas(32) uint64_t v[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(v), a[0]);
  return v[0] + v[1] + v[2] + v[3];
}
static double multiplyF32(int64_t rounds) {
  __m256 a[12], x = _mm256_setzero_ps();
  UNROLL for (int j = 0; j < 12; j++) a[j] = x;
  for (int64_t i = 0; i < rounds; i++) UNROLL for (int j = 0; j < 12; j++) asm volatile("vfmadd231ps %1, %1, %0" : "+x"(a[j]) : "x"(x));
  UNROLL for (int j = 0; j < 12; j++) asm volatile("" : : "x"(a[j]));
  return double(rounds) * 12 * 16;
}

extern const MeasureKernels measureAvx2 = {read, multiplyF32};
