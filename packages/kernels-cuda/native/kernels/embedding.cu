// Rows of a packed table.
#include "device.cuh"
#include "launch.h"
#include "linear.h"

namespace {

/// A block a row. 8 numbers a thread and turn: the table is padded, so only the stores look at k.
template <class T, class Out>
__global__ void embeddingKernel(Out* out, int64_t stride, const int32_t* ids, const T* table, int64_t kp, int64_t n, int64_t k, int64_t first, bool aligned) {
  pdlTrigger();
  pdlWait();
  const int64_t row = int64_t(ids[blockIdx.x]) - first;
  const bool inside = row >= 0 && row < n;
  const T* from = table + (inside ? row : 0) * kp;
  Out* to = out + int64_t(blockIdx.x) * stride;
  for (int64_t i = threadIdx.x * 8; i < k; i += blockDim.x * 8) {
    alignas(16) T in[8];
    alignas(16) Out v[8];
#pragma unroll
    for (int j = 0; j < 8; j += kVec<T>)
      *reinterpret_cast<uint4*>(&in[j]) = inside ? *reinterpret_cast<const uint4*>(from + i + j) : uint4{0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = fromFloat<Out>(toFloat(in[j]));
    if (aligned && i + 8 <= k) {
#pragma unroll
      for (int j = 0; j < 8; j += kVec<Out>) *reinterpret_cast<uint4*>(to + i + j) = *reinterpret_cast<const uint4*>(&v[j]);
    } else {
#pragma unroll
      for (int j = 0; j < 8; j++)
        if (i + j < k) to[i + j] = v[j];
    }
  }
}

}  // namespace

void embedding(Context& c, const EmbeddingCall& a) {
  if (a.m == 0) return;
  withFloat(a.table.format, [&](auto t) {
    withFloat(a.outType, [&](auto o) {
      using T = decltype(t);
      using Out = decltype(o);
      const bool aligned = uintptr_t(a.out) % 16 == 0 && a.outStride * sizeof(Out) % 16 == 0;
      const unsigned threads = a.table.k <= 256 ? 32 : a.table.k <= 1024 ? 128 : 256;
      launch(c, "embedding", embeddingKernel<T, Out>, dim3(unsigned(a.m)), dim3(threads), 0, reinterpret_cast<Out*>(a.out), a.outStride, a.ids,
             reinterpret_cast<const T*>(a.table.p), a.table.kp(), a.table.n, a.table.k, a.first, aligned);
    });
  });
}
