#include "rows_scatter.h"

namespace {

void toFloat(float* to, const char* from, DType type, int64_t n) {
  if (type == DType::f32) memcpy(to, from, size_t(n) * 4);
  else for (int64_t i = 0; i < n; i++) to[i] = loadReal(type, from + 2 * i);
}
void fromFloat(char* to, DType type, const float* from, int64_t n) {
  if (type == DType::f32) memcpy(to, from, size_t(n) * 4);
  else for (int64_t i = 0; i < n; i++) storeFloat(type, to + 2 * i, from[i]);
}
void packRows(uint32_t* to, const char* x, DType type, int64_t stride, int64_t k, int64_t units, int R, bool pairs) {
  for (int r = 0; r < R; r++) scatterRow(to + r, x + r * stride, type, k, 0, units, R, pairs, toFloat);
}

}  // namespace

extern const RowKernels rowsPortable = {toFloat, fromFloat, packRows};
