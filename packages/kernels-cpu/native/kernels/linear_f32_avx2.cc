#include "linear_avx2.h"

namespace {
struct F32 : Avx2 {
  static constexpr int kUnits = 1;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[2 * J], const char* w, size_t panel, const uint32_t* x) {
    unit<R, J>(a, x, [&](int j, int half) { return _mm256_load_ps(reinterpret_cast<const float*>(w + j * panel) + 8 * half); });
  }
};
constexpr Table<F32, kRows, kTile> table;
}  // namespace

extern const LinearKernel linearF32Avx2 = {false, kRows, kTile, &table.at[0][0][0]};
