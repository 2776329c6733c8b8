// bf16 weights times f32 rows, at f32's accuracy: a bf16 is the upper half of an f32.
#include "linear_avx512.h"

namespace {
struct Bf16Weights : Avx512 {
  static constexpr int kUnits = 2;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[J], const char* w, size_t panel, const uint32_t* x) {
    __m512i v[J];  // loaded twice: both halves at a time would need registers that the sums have
    UNROLL for (int j = 0; j < J; j++) v[j] = _mm512_slli_epi32(_mm512_load_si512(w + j * panel), 16);
    UNROLL for (int r = 0; r < R; r++) dotF32<J>(a[r], v, x + r);
    UNROLL for (int j = 0; j < J; j++) v[j] = _mm512_and_si512(_mm512_load_si512(w + j * panel), _mm512_set1_epi32(int(0xffff0000)));
    UNROLL for (int r = 0; r < R; r++) dotF32<J>(a[r], v, x + R + r);
  }
};
constexpr Table<Bf16Weights, kRows, kTile> table;
}  // namespace

extern const LinearKernel linearBf16Avx512 = {false, kRows, kTile, &table.at[0][0][0]};
