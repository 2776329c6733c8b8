#include "measure.h"

double multiplyPairsAvx512Bf16(int64_t rounds) {
  __m512 a[24], x = _mm512_setzero_ps();
  UNROLL for (int j = 0; j < 24; j++) a[j] = x;
  for (int64_t i = 0; i < rounds; i++) UNROLL for (int j = 0; j < 24; j++) asm volatile("vdpbf16ps %1, %1, %0" : "+v"(a[j]) : "v"(x));
  UNROLL for (int j = 0; j < 24; j++) asm volatile("" : : "v"(a[j]));
  return double(rounds) * 24 * 64;
}
