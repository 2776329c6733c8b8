#include "attention_prefill_mma.cuh"

void prefillMmaF16(const Context& c, const PrefillArgs& a, int64_t rows) { prefillMma::startFor<f16>(c, a, rows); }
