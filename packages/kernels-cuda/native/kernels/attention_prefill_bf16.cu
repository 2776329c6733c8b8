#include "attention_prefill_mma.cuh"

void prefillMmaBf16(const Context& c, const PrefillArgs& a, int64_t rows) { prefillMma::startFor<bf16>(c, a, rows); }
