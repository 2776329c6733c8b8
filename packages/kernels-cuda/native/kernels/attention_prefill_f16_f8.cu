#include "attention_prefill_mma.cuh"

void prefillMmaF16Bytes(Context& c, const PrefillArgs& a, const PrefillShape& shape) { prefillMma::startFor<f16, true>(c, a, shape); }
