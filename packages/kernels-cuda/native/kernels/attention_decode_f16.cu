#include "attention_decode_launch.cuh"

template void startDecode<f16, f16>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
