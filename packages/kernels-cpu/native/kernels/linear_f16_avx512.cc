// f16 weights times f32 rows.
#include "linear_avx512.h"

namespace {
struct F16Weights : Avx512 {
  static constexpr int kUnits = 2;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[J], const char* w, size_t panel, const uint32_t* x) {
    __m512i v[J];
    UNROLL for (int j = 0; j < J; j++) v[j] = widen(w + j * panel);
    UNROLL for (int r = 0; r < R; r++) dotF32<J>(a[r], v, x + r);
    UNROLL for (int j = 0; j < J; j++) v[j] = widen(w + j * panel + 32);
    UNROLL for (int r = 0; r < R; r++) dotF32<J>(a[r], v, x + R + r);
  }
  static INLINE_MEMBER __m512i widen(const char* p) {
    return _mm512_castps_si512(_mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p))));
  }
};
constexpr Table<F16Weights, kRows, kTile> table;
}  // namespace

extern const LinearKernel linearF16Avx512 = {false, kRows, kTile, &table.at[0][0][0]};
