#include "attention_prefill_sm90a.cuh"

bool prefillWgmmaBf16(const Context& c, const PrefillArgs& a, int64_t rows) { return prefillWgmma::startFor<bf16>(c, a, rows); }
