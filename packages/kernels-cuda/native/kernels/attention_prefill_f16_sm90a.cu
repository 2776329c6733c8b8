#include "attention_prefill_sm90a.cuh"

bool prefillWgmmaF16(const Context& c, const PrefillArgs& a, int64_t rows) { return prefillWgmma::startFor<f16>(c, a, rows); }
