#include "attention_prefill_sm90a.cuh"

bool prefillWgmmaBf16(Context& c, const PrefillArgs& a, const PrefillShape& shape) { return prefillWgmma::startFor<bf16, false>(c, a, shape); }
