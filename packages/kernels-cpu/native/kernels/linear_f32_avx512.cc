#include "linear_avx512.h"

namespace {
struct F32 : Avx512 {
  static constexpr int kUnits = 1;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[J], const char* w, size_t panel, const uint32_t* x) {
    __m512i v[J];
    UNROLL for (int j = 0; j < J; j++) v[j] = _mm512_load_si512(w + j * panel);
    UNROLL for (int r = 0; r < R; r++) dotF32<J>(a[r], v, x + r);
  }
};
constexpr Table<F32, kRows, kTile> table;
}  // namespace

extern const LinearKernel linearF32Avx512 = {false, kRows, kTile, &table.at[0][0][0]};
