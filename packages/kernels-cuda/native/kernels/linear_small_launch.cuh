// Which instance of a kernel a call gets. One file a weight format instantiates this.
#pragma once
#include "launch.h"
#include "linear_small_direct.cuh"
#include "linear_small_ring.cuh"

/// What the host decided besides the call: instance, grid, shared memory.
struct SmallLaunch {
  bool ring;
  int abreast, blocks, sharedBytes;
};
void launchSmallBf16(const Context& c, const SmallCall& call, const SmallLaunch& how);
void launchSmallF16(const Context& c, const SmallCall& call, const SmallLaunch& how);
/// Clusters that can run at once.
int mostClustersBf16(const SmallCall& call, const SmallLaunch& how);
int mostClustersF16(const SmallCall& call, const SmallLaunch& how);

using SmallKernel = void (*)(SmallCall);
template <class F, int ABREAST> SmallKernel smallInstance(const SmallLaunch& how) { return how.ring ? smallLinearRing<F, ABREAST> : smallLinearDirect<F, ABREAST>; }
template <class T> SmallKernel smallKernel(const SmallCall& call, const SmallLaunch& how) {
  if (call.op.g) return how.abreast == 1 ? smallInstance<Split8<T>, 1>(how) : smallInstance<Split8<T>, 2>(how);
  if (call.op.tokens <= 8) return how.abreast == 1 ? smallInstance<Tokens8<T>, 1>(how) : smallInstance<Tokens8<T>, 2>(how);
  if (call.op.tokens <= 16) return how.abreast == 2 ? smallInstance<Tokens16<T>, 2>(how) : smallInstance<Tokens16<T>, 4>(how);
  return smallInstance<Tokens32<T>, 2>(how);
}

/// launch() knows no clusters.
struct SmallConfig {
  cudaLaunchConfig_t config{};
  cudaLaunchAttribute attributes[2];
  SmallConfig(SmallKernel kernel, const SmallCall& call, const SmallLaunch& how, cudaStream_t stream, bool pdl) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, how.sharedBytes), "smallLinear");
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
  if (call.cluster == 1) return launch(c, "smallLinear", kernel, dim3(how.blocks), dim3(kConsumerThreads + (how.ring ? 32 : 0)), how.sharedBytes, call);
  SmallConfig config(kernel, call, how, c.stream, c.pdl);
  check(cudaLaunchKernelEx(&config.config, kernel, call), "smallLinear");
}
inline int mostSmallClusters(SmallKernel kernel, const SmallCall& call, const SmallLaunch& how) {
  SmallConfig config(kernel, call, how, nullptr, false);
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, reinterpret_cast<const void*>(kernel), &config.config), "smallLinear");
  return clusters;
}
