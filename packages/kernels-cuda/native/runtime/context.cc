#include "context.h"
#include <string.h>
#include "blas.h"
#include "graphs.h"
#include "interpreter.h"
#include "reads.h"

void use(const Context& context) {
  thread_local int current = -1;
  if (current == context.device) return;
  check(cudaSetDevice(context.device), "cudaSetDevice");
  current = context.device;
}

Context::Context(int device) : device(device) {
  use(*this);
  auto attribute = [&](cudaDeviceAttr a) {
    int v = 0;
    check(cudaDeviceGetAttribute(&v, a, device), "cudaDeviceGetAttribute");
    return v;
  };
  sms = attribute(cudaDevAttrMultiProcessorCount);
  capability = attribute(cudaDevAttrComputeCapabilityMajor) * 10 + attribute(cudaDevAttrComputeCapabilityMinor);
  sharedBytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  l2Bytes = size_t(attribute(cudaDevAttrL2CacheSize));
  pdl = capability >= 90;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  try {
    scratch = static_cast<char*>(slabs.allocate(kScratchBytes, stream));
    counters = static_cast<unsigned int*>(slabs.allocate(kCounters * sizeof(unsigned int), stream));
    staging = std::make_unique<Staging>(size_t(32) << 20);
    reads = std::make_unique<Reads>();
    graphs = std::make_unique<Graphs>();
    interpreters = std::make_unique<Interpreters>(*this);
    blas = openBlas(*this);
  } catch (...) {
    cudaStreamDestroy(stream);
    throw;
  }
}

Context::~Context() {
  cudaSetDevice(device);
  cudaStreamSynchronize(stream);
  graphs.reset();
  interpreters.reset();
  reads.reset();
  blas.reset();
  cudaStreamDestroy(stream);
}

Slabs::~Slabs() {
  for (auto& slab : slabs_) cudaFree(reinterpret_cast<void*>(slab.first));
}

void* Slabs::allocate(size_t bytes, cudaStream_t stream) {
  void* p = nullptr;
  const size_t size = bytes ? bytes : 256;
  cudaError_t code = cudaMalloc(&p, size);
  if (code != cudaSuccess) {
    cudaGetLastError();  // or it would be reported again by the next call
    throw CudaFailure{code, "cudaMalloc"};
  }
  code = cudaMemsetAsync(p, 0, size, stream);
  if (code != cudaSuccess) {
    cudaFree(p);
    throw CudaFailure{code, "cudaMemsetAsync"};
  }
  slabs_[reinterpret_cast<uintptr_t>(p)] = size;
  return p;
}

bool Slabs::release(void* p, cudaStream_t stream) {
  auto found = slabs_.find(reinterpret_cast<uintptr_t>(p));
  if (found == slabs_.end()) return false;
  slabs_.erase(found);
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  check(cudaFree(p), "cudaFree");
  return true;
}

bool Slabs::contains(const void* p, size_t bytes) const {
  const uintptr_t a = reinterpret_cast<uintptr_t>(p);
  auto next = slabs_.upper_bound(a);
  if (next == slabs_.begin()) return false;
  --next;
  const uintptr_t offset = a - next->first;
  return offset <= next->second && bytes <= next->second - offset;
}
