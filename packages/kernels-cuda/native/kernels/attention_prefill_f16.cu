#include "attention_prefill_mma.cuh"

void prefillMmaF16(Context& c, const PrefillArgs& a, const PrefillShape& shape) { prefillMma::startFor<f16, false>(c, a, shape); }
