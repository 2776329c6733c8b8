#include "attention_avx512_lanes.h"
#include "attention_impl.h"

namespace {
constexpr AttentionTable<FloatDot<F32Lines>, 6, 24> kF32;
constexpr AttentionTable<FloatDot<Bf16Lines>, 6, 24> kBf16;
constexpr AttentionTable<FloatDot<F16Lines>, 6, 24> kF16;
}  // namespace

extern const AttentionKernel attentionF32Avx512 = kernelOf(kF32, softmaxFloats);
extern const AttentionKernel attentionBf16Avx512 = kernelOf(kBf16, softmaxFloats);
extern const AttentionKernel attentionF16Avx512 = kernelOf(kF16, softmaxFloats);
