#include "attention_decode_launch.cuh"

template void startDecode<bf16, bf16>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
