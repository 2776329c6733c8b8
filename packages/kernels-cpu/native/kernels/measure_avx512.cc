#include "measure.h"

static uint64_t read(const char* p, size_t bytes) {
  __m512i a[16];
  UNROLL for (int j = 0; j < 16; j++) a[j] = _mm512_setzero_si512();
  const size_t quarter = bytes / 4;
  for (size_t i = 0; i + 256 <= quarter; i += 256)
    UNROLL for (int s = 0; s < 4; s++) UNROLL for (int j = 0; j < 4; j++)
      a[s * 4 + j] = _mm512_add_epi64(a[s * 4 + j], _mm512_loadu_si512(p + size_t(s) * quarter + i + j * 64));
  UNROLL for (int j = 1; j < 16; j++) a[0] = _mm512_add_epi64(a[0], a[j]);
  return uint64_t(_mm512_reduce_add_epi64(a[0]));
}
static double multiplyF32(int64_t rounds) {
  __m512 a[24], x = _mm512_setzero_ps();
  UNROLL for (int j = 0; j < 24; j++) a[j] = x;
  for (int64_t i = 0; i < rounds; i++) UNROLL for (int j = 0; j < 24; j++) asm volatile("vfmadd231ps %1, %1, %0" : "+v"(a[j]) : "v"(x));
  UNROLL for (int j = 0; j < 24; j++) asm volatile("" : : "v"(a[j]));
  return double(rounds) * 24 * 32;
}

extern const MeasureKernels measureAvx512 = {read, multiplyF32};
