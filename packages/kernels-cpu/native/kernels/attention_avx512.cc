#include "attention_avx512_lanes.h"
#include "attention_impl.h"

namespace {
template <class Lines> constexpr AttentionTable<FloatDot<Lines>, 6, 24> kTable;
template <class Lines> constexpr AttentionKernel kKernel = kernelOf(kTable<Lines>, softmaxFloats);
}  // namespace

extern const AttentionKernels attentionAvx512 = {kKernel<F32Lines>, kKernel<Bf16Lines>, kKernel<F16Lines>, kKernel<ByteLines<DType::f8e4m3>>, kKernel<ByteLines<DType::f8e5m2>>};
