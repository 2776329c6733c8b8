#include "attention_prefill_sm90a.cuh"

bool prefillWgmmaBf16Bytes(Context& c, const PrefillArgs& a, const PrefillShape& shape) { return prefillWgmma::startFor<bf16, true>(c, a, shape); }
