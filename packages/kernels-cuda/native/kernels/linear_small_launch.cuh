// Which instance of a kernel a call gets. One file a weight format instantiates this.
#pragma once
#include <algorithm>
#include "launch.h"
#include "linear_small_direct.cuh"
#include "linear_small_resident.cuh"
#include "linear_small_streamed.cuh"

/// What the host decided besides the call: instance, grid, shared memory.
struct SmallLaunch {
  int kind, abreast, blocks, sharedBytes;
};
void launchSmallBf16(const Context& c, const SmallCall& call, const SmallLaunch& how);
void launchSmallF16(const Context& c, const SmallCall& call, const SmallLaunch& how);
/// Clusters that can run at once.
int mostClustersBf16(const SmallCall& call, const SmallLaunch& how);
int mostClustersF16(const SmallCall& call, const SmallLaunch& how);

using SmallKernel = void (*)(SmallCall);
template <class F> SmallKernel smallStreamed(int abreast) {
  return abreast == 1 ? smallLinearStreamed<F, 1> : abreast == 2 ? smallLinearStreamed<F, 2> : smallLinearStreamed<F, 4>;
}
template <class F> SmallKernel smallInstance(const SmallLaunch& how) {
  if constexpr (!F::split)
    if (how.kind == kStreamed) return smallStreamed<F>(how.abreast);
  if constexpr (F::P == 1 && F::split == F::upper)
    if (how.kind == kResident) return smallLinearResident<F>;
  return smallLinearDirect<F, F::upper && !F::split ? 2 : 1>;
}
template <class T> SmallKernel smallKernel(const SmallCall& call, const SmallLaunch& how) {
  if (call.op.g) return smallInstance<Split8<T>>(how);
  return call.op.tokens <= 8 ? smallInstance<Tokens8<T>>(how) : smallInstance<Tokens16<T>>(how);
}

/// launch() knows no clusters.
struct SmallConfig {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute attributes[2];
  SmallConfig(SmallKernel kernel, const SmallCall& call, const SmallLaunch& how, cudaStream_t stream, bool pdl) {
    // Never lowered below what launch() takes for granted.
    const int most = std::max(how.sharedBytes, 48 * 1024);
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, most), "smallLinear");
    config.gridDim = dim3(how.blocks), config.blockDim = dim3(kConsumerThreads + 32), config.dynamicSmemBytes = how.sharedBytes;
    config.stream = stream;
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim.x = call.cluster, attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    config.attrs = attributes, config.numAttrs = pdl ? 2 : 1;
  }
};
inline void launchSmall(const Context& c, SmallKernel kernel, const SmallCall& call, const SmallLaunch& how) {
  if (call.cluster == 1) return launch(c, "smallLinear", kernel, dim3(how.blocks), dim3(kConsumerThreads + (how.kind == kDirect ? 0 : 32)), how.sharedBytes, call);
  SmallConfig config(kernel, call, how, c.stream, c.pdl);
  check(cudaLaunchKernelEx(&config.config, kernel, call), "smallLinear");
}
inline int mostSmallClusters(SmallKernel kernel, const SmallCall& call, const SmallLaunch& how) {
  SmallConfig config(kernel, call, how, nullptr, false);
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, reinterpret_cast<const void*>(kernel), &config.config), "smallLinear");
  return clusters;
}
