#include "measure.h"

namespace {
const MeasureKernels& kernels(Isa isa) {
#if KERNELS_X86
  if (isa >= Isa::avx512) return measureAvx512;
  if (isa == Isa::avx2) return measureAvx2;
#endif
  (void)isa;
  return measurePortable;
}
volatile uint64_t sink;  // what was read must go somewhere, or it need not be read
}  // namespace

double readSeconds(Context& context, const char* p, size_t bytes) {
  const auto& k = kernels(context.isa);
  const int parts = context.pool.threads();
  const size_t each = bytes / size_t(parts) & ~size_t(4095);
  double begin = now();
  context.pool.run(parts, [&](int c, int) { sink = k.read(p + size_t(c) * each, each); });
  return now() - begin;
}

double operationsPerSecond(Context& context, DType type) {
  const auto& k = kernels(context.isa);
  constexpr int64_t kRounds = 1000000;
  const int parts = context.pool.threads();
  double each = 0;
  double begin = now();
  context.pool.run(parts, [&](int c, int) {
    double n;
#if KERNELS_X86
    if (type == DType::bf16 && context.isa == Isa::avx512bf16) n = multiplyPairsAvx512Bf16(kRounds);
    else
#endif
      n = k.multiplyF32(kRounds);
    if (c == 0) each = n;
  });
  (void)type;
  return each * parts / (now() - begin);
}
