#include "attention_decode_launch.cuh"

template void startDecode<f16, decode::E4m3>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
template void startDecode<f16, decode::E5m2>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
