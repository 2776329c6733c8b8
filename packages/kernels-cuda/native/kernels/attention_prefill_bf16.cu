#include "attention_prefill_mma.cuh"

void prefillMmaBf16(Context& c, const PrefillArgs& a, const PrefillShape& shape) { prefillMma::startFor<bf16, false>(c, a, shape); }
