// How every kernel is started: on the context's stream, with programmatic dependent launch where the device has it. Therefore
// every kernel, in every block and on every path, calls pdlWait() (device.cuh) before it reads or writes anything that an
// earlier kernel may have written or read; what comes before that may only set up shared memory and read weights.
#pragma once
#include <utility>
#include "context.h"

/// The attributes of a launch; cluster: blocks of a cluster along x.
struct LaunchAttributes {
  cudaLaunchAttribute list[2];
  unsigned int count = 0;
  explicit LaunchAttributes(bool pdl, unsigned int cluster = 1) {
    if (cluster > 1) {
      list[count].id = cudaLaunchAttributeClusterDimension;
      list[count++].val.clusterDim = {cluster, 1, 1};
    }
    if (pdl) {
      list[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      list[count++].val.programmaticStreamSerializationAllowed = 1;
    }
  }
};

template <class... P, class... A>
void launch(const Context& c, const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, A&&... args) {
  if (sharedBytes > 48 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(sharedBytes)), name);
  LaunchAttributes attributes(c.pdl);
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = sharedBytes, config.stream = c.stream;
  config.attrs = attributes.list, config.numAttrs = attributes.count;
  check(cudaLaunchKernelEx(&config, kernel, P(std::forward<A>(args))...), name);
}
