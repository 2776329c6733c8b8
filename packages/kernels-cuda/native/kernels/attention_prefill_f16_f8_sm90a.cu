#include "attention_prefill_sm90a.cuh"

bool prefillWgmmaF16Bytes(Context& c, const PrefillArgs& a, const PrefillShape& shape) { return prefillWgmma::startFor<f16, true>(c, a, shape); }
