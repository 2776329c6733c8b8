// Few rows of x times weights, f32 arithmetic, any types: bound by reading the weights. A block computes kRows outputs; its warps
// share k.
#include "device.cuh"
#include "gemm.h"
#include "gemm_store.cuh"
#include "launch.h"

namespace {

constexpr int kWarps = 8, kRows = 4;

/// Sums v[i] over the lanes of a warp. Afterwards a lane holds those with numbers lane · C / 32 … (at least one), from v[0] on.
template <int C> __device__ __forceinline__ void sumLanes(float (&v)[C]) {
  const int lane = threadIdx.x % 32;
  int n = C;
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    if (n == 1) {
      v[0] += __shfl_xor_sync(~0u, v[0], o);
      continue;
    }
    n /= 2;
#pragma unroll
    for (int i = 0; i < C / 2; i++)
      if (i < n) {
        const bool upper = lane & o;
        const float give = upper ? v[i] : v[i + n], keep = upper ? v[i + n] : v[i];
        v[i] = keep + __shfl_xor_sync(~0u, give, o);
      }
  }
}

/// At most M rows of x.
template <class W, class X, int M>
__global__ void __launch_bounds__(kWarps * 32, M == 1 ? 3 : 2) gemvFloatKernel(const W* w, int64_t kp, int64_t n, const X* x, int64_t xStride, int64_t k, int m,
                                                               bool aligned, GemmOut out) {
  pdlTrigger();
  constexpr int V = kVec<W>;
  __shared__ float parts[kWarps][kRows * M];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t n0 = int64_t(blockIdx.x) * kRows;
  const int first = blockIdx.y * M, rows = m - first < M ? m - first : M;
  x += first * xStride;
  float sums[kRows * M] = {};
  const W* row[kRows];
#pragma unroll
  for (int r = 0; r < kRows; r++) row[r] = w + (n0 + r < n ? n0 + r : n - 1) * kp;
  pdlWait();
#pragma unroll(M == 16 ? 1 : 2)
  for (int64_t k0 = (warp * 32 + lane) * V; k0 < kp; k0 += kWarps * 32 * V) {
    Vec<W, V> in[kRows];
#pragma unroll
    for (int r = 0; r < kRows; r++) in[r] = *reinterpret_cast<const Vec<W, V>*>(row[r] + k0);
#pragma unroll
    for (int t = 0; t < M; t++) {
      if (t >= rows) break;
      const X* p = x + t * xStride + k0;
      float v[V];
      if (aligned && k0 + V <= k) {
        constexpr int kPart = kVec<X> < V ? kVec<X> : V;
#pragma unroll
        for (int i = 0; i < V; i += kPart) {
          const auto part = *reinterpret_cast<const Vec<X, kPart>*>(p + i);
#pragma unroll
          for (int j = 0; j < kPart; j++) v[i + j] = toFloat(part.v[j]);
        }
      } else {
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = k0 + i < k ? toFloat(p[i]) : 0.f;
      }
#pragma unroll
      for (int r = 0; r < kRows; r++)
#pragma unroll
        for (int i = 0; i < V; i++) sums[r * M + t] = fmaf(toFloat(in[r].v[i]), v[i], sums[r * M + t]);
    }
  }
  sumLanes(sums);
  constexpr int C = kRows * M, kEach = C > 32 ? C / 32 : 1, kShare = C > 32 ? 1 : 32 / C;
  if (lane % kShare == 0)
#pragma unroll
    for (int i = 0; i < kEach; i++) parts[warp][lane / kShare * kEach + i] = sums[i];
  __syncthreads();
  if (threadIdx.x >= C) return;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kWarps; i++) sum += parts[i][threadIdx.x];
  const int t = threadIdx.x % M;
  const int64_t col = n0 + threadIdx.x / M;
  if (t < rows && col < n) out.store(first + t, col, sum);
}

template <class W, class X> void run(Context& c, const LinearCall& a) {
  const bool aligned = uintptr_t(a.x) % 16 == 0 && a.xStride * sizeof(X) % 16 == 0;
  auto start = [&](auto kernel, int64_t most) {
    const dim3 grid(unsigned((a.w.n + kRows - 1) / kRows), unsigned((a.m + most - 1) / most));
    launch(c, "gemvFloat", kernel, grid, dim3(kWarps * 32), 0, reinterpret_cast<const W*>(a.w.p), a.w.kp(), a.w.n, reinterpret_cast<const X*>(a.x),
           a.xStride, a.w.k, int(a.m), aligned, GemmOut(a));
  };
  if (a.m == 1) start(gemvFloatKernel<W, X, 1>, 1);
  else if (a.m <= 4) start(gemvFloatKernel<W, X, 4>, 4);
  else start(gemvFloatKernel<W, X, 16>, 16);
}

}  // namespace

void gemvFloat(Context& c, const LinearCall& a) {
  withFloat(a.w.format, [&](auto w) {
    withFloat(a.xType, [&](auto x) { run<decltype(w), decltype(x)>(c, a); });
  });
}
