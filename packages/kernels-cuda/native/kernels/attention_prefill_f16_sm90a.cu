#include "attention_prefill_sm90a.cuh"

bool prefillWgmmaF16(Context& c, const PrefillArgs& a, const PrefillShape& shape) { return prefillWgmma::startFor<f16, false>(c, a, shape); }
