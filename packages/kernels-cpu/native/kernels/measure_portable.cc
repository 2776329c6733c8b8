#include "measure.h"

static uint64_t read(const char* p, size_t bytes) {
  uint64_t a[8] = {};
  const size_t quarter = bytes / 4;
  for (size_t i = 0; i + 16 <= quarter; i += 16)
    UNROLL for (int s = 0; s < 4; s++) {
      uint64_t v[2];
      memcpy(v, p + size_t(s) * quarter + i, 16);
      a[2 * s] += v[0], a[2 * s + 1] += v[1];
    }
  return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}
static double multiplyF32(int64_t rounds) {
  typedef float Floats __attribute__((vector_size(16)));
  Floats a[12] = {}, x = {1, 1, 1, 1};
  for (int64_t i = 0; i < rounds; i++) {
    asm volatile("" : : "m"(a[0]) : "memory");
    UNROLL for (int u = 0; u < 4; u++) UNROLL for (int j = 0; j < 12; j++) a[j] += a[j] * x;
  }
  volatile float keep = 0;
  for (int j = 0; j < 12; j++) keep = a[j][0];
  (void)keep;
  return double(rounds) * 4 * 12 * 8;
}

extern const MeasureKernels measurePortable = {read, multiplyF32};
