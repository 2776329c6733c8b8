#include "attention_decode.cuh"

template void startDecode<__half>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
