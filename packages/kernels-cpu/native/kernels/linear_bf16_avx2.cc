// bf16 weights times f32 rows, at f32's accuracy: a bf16 is the upper half of an f32.
#include "linear_avx2.h"

namespace {
struct Bf16Weights : Avx2 {
  static constexpr int kUnits = 2;
  template <int R, int J> static INLINE_MEMBER void multiply(Acc (*a)[2 * J], const char* w, size_t panel, const uint32_t* x) {
    auto at = [&](int j, int half) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(w + j * panel) + half); };
    unit<R, J>(a, x, [&](int j, int half) { return _mm256_castsi256_ps(_mm256_slli_epi32(at(j, half), 16)); });
    unit<R, J>(a, x + R, [&](int j, int half) {
      return _mm256_castsi256_ps(_mm256_and_si256(at(j, half), _mm256_set1_epi32(int(0xffff0000))));
    });
  }
};
constexpr Table<Bf16Weights, kRows, kTile> table;
}  // namespace

extern const LinearKernel linearBf16Avx2 = {false, kRows, kTile, &table.at[0][0][0]};
