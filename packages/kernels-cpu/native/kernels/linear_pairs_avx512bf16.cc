// bf16 weights times bf16 rows, two numbers of k at a time.
#include "linear_avx512.h"

namespace {
struct Pairs : Avx512 {
  static constexpr int kUnits = 1;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[J], const char* w, size_t panel, const uint32_t* x) {
    __m512i v[J];
    UNROLL for (int j = 0; j < J; j++) v[j] = _mm512_load_si512(w + j * panel);
    UNROLL for (int r = 0; r < R; r++) dotPairs<J>(a[r], v, x + r);
  }
};
constexpr Table<Pairs, kRows, kTile> table;
}  // namespace

extern const LinearKernel linearPairsAvx512Bf16 = {true, kRows, kTile, &table.at[0][0][0]};
