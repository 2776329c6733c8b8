// How every kernel is started: on the context's stream, with programmatic dependent launch where the device has it. Therefore
// every kernel, in every block and on every path, calls pdlWait() (device.cuh) before it reads or writes anything that an
// earlier kernel may have written or read; what comes before that may only set up shared memory and read weights.
#pragma once
#include <utility>
#include "context.h"

template <class... P, class... A>
void launch(const Context& c, const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t sharedBytes, A&&... args) {
  if (sharedBytes > 48 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(sharedBytes)), name);
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = sharedBytes, config.stream = c.stream;
  cudaLaunchAttribute attribute[1];
  attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute[0].val.programmaticStreamSerializationAllowed = 1;
  config.attrs = attribute, config.numAttrs = c.pdl ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, P(std::forward<A>(args))...), name);
}
