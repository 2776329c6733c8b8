// Which rotary kernel, and which thread turns which tokens.
#include <algorithm>
#include "rotary.h"

const RotaryKernel& rotaryKernel(Isa isa) {
#if KERNELS_X86
  if (isa >= Isa::avx512) return rotaryAvx512;
  if (isa == Isa::avx2) return rotaryAvx2;
#endif
  (void)isa;
  return rotaryPortable;
}

void rotary(Context& context, const RotaryCall& call) {
  const RotaryKernel kernel = rotaryKernel(context.isa);
  constexpr int64_t kTokens = 16;  // a chunk's; fewer are not worth waking anybody
  context.pool.run(int((call.tokens + kTokens - 1) / kTokens), [&](int chunk, int) {
    for (int64_t t = chunk * kTokens, end = std::min(call.tokens, t + kTokens); t < end; t++) {
      const float* table = call.table + call.row(t) * call.tableStride;
      for (const auto& side : call.sides)
        kernel(side.type, side.p + t * side.stride * sizeOf(side.type), side.heads, side.dim, table, call.half, call.interleaved);
    }
  });
}
