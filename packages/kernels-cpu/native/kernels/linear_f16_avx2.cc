// f16 weights times f32 rows.
#include "linear_avx2.h"

namespace {
struct F16Weights : Avx2 {
  static constexpr int kUnits = 2;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[2 * J], const char* w, size_t panel, const uint32_t* x) {
    auto at = [&](int j, int quarter) {
      return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(w + j * panel) + quarter));
    };
    unit<R, J>(a, x, [&](int j, int half) { return at(j, half); });
    unit<R, J>(a, x + R, [&](int j, int half) { return at(j, 2 + half); });
  }
};
constexpr Table<F16Weights, kRows, kTile> table;
}  // namespace

extern const LinearKernel linearF16Avx2 = {false, kRows, kTile, &table.at[0][0][0]};
