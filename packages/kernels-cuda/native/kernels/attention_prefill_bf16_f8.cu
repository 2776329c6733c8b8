#include "attention_prefill_mma.cuh"

void prefillMmaBf16Bytes(Context& c, const PrefillArgs& a, const PrefillShape& shape) { prefillMma::startFor<bf16, true>(c, a, shape); }
