// Two norms around a sum. A row's values stay in the registers of its block from the first read to the last write.
#include "device.cuh"
#include "fused_norms.h"
#include "launch.h"

namespace {

/// Over the block; `parts` are other 32 words for every sum, so that nobody waits for the readers of the one before.
__device__ __forceinline__ float blockSum(float v, float* parts) {
  v = warpSum(v);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  return warpSum(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.0f);
}

/// T: the type of out, x and the weights. X: of the residual. Thread t has the vectors t, t + threads …, V of them.
template <class T, class X, int V> __global__ void __launch_bounds__(1024) normPairKernel(const NormPair p) {
  pdlTrigger();
  pdlWait();
  constexpr int K = kVec<T>;
  __shared__ float parts[2][32];
  const int64_t row = blockIdx.x;
  const int vectors = int(p.n / K);
  auto* x = reinterpret_cast<const Vec<T, K>*>(static_cast<const T*>(p.x.p) + row * p.x.stride);
  auto* residual = reinterpret_cast<Vec<X, K>*>(static_cast<X*>(p.residual.p) + row * p.residual.stride);
  auto* out = reinterpret_cast<Vec<T, K>*>(static_cast<T*>(p.out.p) + row * p.out.stride);

  Vec<T, K> v[V], first[V], second[V];
  Vec<X, K> sum[V];
  float squares = 0;
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int i = int(threadIdx.x) + j * int(blockDim.x);
    if (i >= vectors) continue;
    v[j] = x[i], sum[j] = residual[i];
    first[j] = static_cast<const Vec<T, K>*>(p.first)[i];
    if (V == 1) second[j] = static_cast<const Vec<T, K>*>(p.second)[i];  // long rows: later, for want of registers
#pragma unroll
    for (int k = 0; k < K; k++) squares += toFloat(v[j].v[k]) * toFloat(v[j].v[k]);
  }
  float inverse = 1.0f / sqrtf(blockSum(squares, parts[0]) / float(p.n) + p.firstEps);
  squares = 0;
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int i = int(threadIdx.x) + j * int(blockDim.x);
    if (i >= vectors) continue;
#pragma unroll
    for (int k = 0; k < K; k++) {
      const float added = toFloat(v[j].v[k]) * inverse * (toFloat(first[j].v[k]) + p.firstOffset);
      sum[j].v[k] = fromFloat<X>(toFloat(sum[j].v[k]) + added);
      squares += toFloat(sum[j].v[k]) * toFloat(sum[j].v[k]);
    }
    residual[i] = sum[j];
  }
  inverse = 1.0f / sqrtf(blockSum(squares, parts[1]) / float(p.n) + p.secondEps);
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int i = int(threadIdx.x) + j * int(blockDim.x);
    if (i >= vectors) continue;
    if (V > 1) second[j] = static_cast<const Vec<T, K>*>(p.second)[i];
#pragma unroll
    for (int k = 0; k < K; k++) v[j].v[k] = fromFloat<T>(toFloat(sum[j].v[k]) * inverse * (toFloat(second[j].v[k]) + p.secondOffset));
    out[i] = v[j];
  }
}

template <class T, class X> void enqueue(const Context& c, const NormPair& p) {
  const int64_t vectors = p.n / kVec<T>;
  const int each = vectors > 1024 ? 2 : 1;
  const auto grid = dim3(unsigned(p.rows)), block = dim3(unsigned(((vectors + each - 1) / each + 31) / 32 * 32));
  if (each == 1) launch(c, "fusedNorms", normPairKernel<T, X, 1>, grid, block, 0, p);
  else launch(c, "fusedNorms", normPairKernel<T, X, 2>, grid, block, 0, p);
}

}  // namespace

bool normPairFits(const NormPair& p) {
  const int64_t size = sizeOf(p.t), k = 16 / size;
  auto fits = [&](Rows m, int64_t bytes) { return uintptr_t(m.p) % size_t(k * bytes) == 0 && (p.rows <= 1 || m.stride % k == 0); };
  return p.n > 0 && p.n % k == 0 && p.n / k <= 2048 && p.rows < int64_t(1) << 31 && fits(p.out, size) && fits(p.x, size) &&
         fits(p.residual, sizeOf(p.sum)) && fits({const_cast<void*>(p.first), 0}, size) && fits({const_cast<void*>(p.second), 0}, size);
}

void normPair(const Context& c, const NormPair& p) {
  if (p.rows == 0) return;
  withFloat(p.t, [&](auto t) {
    if (p.sum == DType::f32) enqueue<decltype(t), float>(c, p);
    else enqueue<decltype(t), decltype(t)>(c, p);
  });
}
