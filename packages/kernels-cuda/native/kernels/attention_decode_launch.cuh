// Starts the instance of the decode kernel that a plan asks for.
#pragma once
#include "attention_decode.cuh"
#include "launch.h"

/// Starts the kernel that `plan` was made for.
template <class T, class C> void startDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan) {
  auto start = [&](auto kernel) {
    // Always the same: captured graphs rely on it.
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(mostDecodeShared(c))), "attentionDecode");
    LaunchAttributes attributes(c.pdl, unsigned(plan.cluster));
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(unsigned(plan.cluster * plan.groups), unsigned(call.cache.kvHeads * plan.headTiles), unsigned(call.sequences));
    config.blockDim = dim3(unsigned(plan.warps * 32)), config.dynamicSmemBytes = plan.sharedBytes, config.stream = c.stream;
    config.attrs = attributes.list, config.numAttrs = attributes.count;
    check(cudaLaunchKernelEx(&config, kernel, call, qkv, plan), "attentionDecode");
  };
  const bool two = plan.tileHeads == 16;
  if (plan.exact && plan.dim == 64) two ? start(decode::kernel<T, C, 64, 2, true>) : start(decode::kernel<T, C, 64, 1, true>);
  else if (plan.exact && plan.dim == 128) two ? start(decode::kernel<T, C, 128, 2, true>) : start(decode::kernel<T, C, 128, 1, true>);
  else if constexpr (sizeof(C) == 2) {
    if (plan.exact) start(decode::kernel<T, C, 256, 1, true>);
    else if (plan.dim == 128) two ? start(decode::kernel<T, C, 128, 2, false>) : start(decode::kernel<T, C, 128, 1, false>);
    else two ? start(decode::kernel<T, C, 256, 2, false>) : start(decode::kernel<T, C, 256, 1, false>);
  }
}
