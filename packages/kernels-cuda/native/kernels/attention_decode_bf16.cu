#include "attention_decode.cuh"

template void startDecode<__nv_bfloat16>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
