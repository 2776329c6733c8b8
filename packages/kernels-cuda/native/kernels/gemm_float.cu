// Matrix product in f32 arithmetic, any types: tiles of f32 in shared memory, a square of outputs in each thread's registers.
#include "device.cuh"
#include "gemm.h"
#include "gemm_store.cuh"
#include "launch.h"

namespace {

constexpr int kThreads = 256, kStep = 16;  // numbers of k in a tile

/// 8 numbers from p, of which `valid` exist; p is 16-byte aligned if `aligned`.
template <class T> __device__ __forceinline__ void load8(float (&v)[8], const T* p, int64_t valid, bool aligned) {
  if (valid >= 8 && aligned) {
    constexpr int kParts = 8 / kVec<T>;
#pragma unroll
    for (int i = 0; i < kParts; i++) {
      const auto part = reinterpret_cast<const Vec<T, kVec<T>>*>(p)[i];
#pragma unroll
      for (int j = 0; j < kVec<T>; j++) v[i * kVec<T> + j] = toFloat(part.v[j]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = i < valid ? toFloat(p[i]) : 0.f;
  }
}

/// A thread computes S x S squares of 4 x 4 outputs, 64 apart; a block 64 · S squared.
template <class W, class X, int S>
__global__ void __launch_bounds__(kThreads, 2) gemmFloatKernel(const W* w, int64_t kp, int64_t n, const X* x, int64_t xStride, int64_t k, int64_t m,
                                                            bool aligned, GemmOut out) {
  pdlTrigger();
  constexpr int kTile = 64 * S, kPitch = kTile + 4;
  __shared__ alignas(16) float tiles[2][2][kStep][kPitch];  // [buffer][w, x]
  const int64_t n0 = int64_t(blockIdx.x) * kTile, m0 = int64_t(blockIdx.y) * kTile;
  // Loading: 8 numbers of k of one row; with 64 rows half of the threads load w and half x.
  const int t = threadIdx.x;
  const int loadRow = t % kTile, loadK = t / kTile % 2 * 8;
  const bool loadsW = S == 2 || t < 128, loadsX = S == 2 || t >= 128;
  float nextW[8], nextX[8];
  auto fetch = [&](int64_t k0) {
    if (loadsW) load8(nextW, w + (n0 + loadRow) * kp + k0 + loadK, n0 + loadRow < n ? 8 : 0, true);
    if (loadsX) load8(nextX, x + (m0 + loadRow) * xStride + k0 + loadK, m0 + loadRow < m ? k - k0 - loadK : 0, aligned);
  };
  auto store = [&](int buffer) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (loadsW) tiles[buffer][0][loadK + i][loadRow] = nextW[i];
      if (loadsX) tiles[buffer][1][loadK + i][loadRow] = nextX[i];
    }
  };
  const int tx = t % 16 * 4, ty = t / 16 * 4;
  float sums[S * 4][S * 4] = {};
  pdlWait();
  fetch(0);
  store(0);
  __syncthreads();
  int buffer = 0;
  for (int64_t k0 = 0; k0 < k; k0 += kStep, buffer ^= 1) {
    const bool more = k0 + kStep < k;
    if (more) fetch(k0 + kStep);
#pragma unroll
    for (int i = 0; i < kStep; i++) {
      float a[S * 4], b[S * 4];
#pragma unroll
      for (int s = 0; s < S; s++) {
        *reinterpret_cast<float4*>(&b[s * 4]) = *reinterpret_cast<const float4*>(&tiles[buffer][0][i][tx + s * 64]);
        *reinterpret_cast<float4*>(&a[s * 4]) = *reinterpret_cast<const float4*>(&tiles[buffer][1][i][ty + s * 64]);
      }
#pragma unroll
      for (int r = 0; r < S * 4; r++)
#pragma unroll
        for (int c = 0; c < S * 4; c++) sums[r][c] = fmaf(a[r], b[c], sums[r][c]);
    }
    if (more) store(buffer ^ 1);
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < S * 4; r++) {
    const int64_t row = m0 + ty + r / 4 * 64 + r % 4;
    if (row >= m) continue;
#pragma unroll
    for (int c = 0; c < S * 4; c++) {
      const int64_t col = n0 + tx + c / 4 * 64 + c % 4;
      if (col < n) out.store(row, col, sums[r][c]);
    }
  }
}

template <class W, class X> void run(Context& c, const LinearCall& a) {
  const bool aligned = uintptr_t(a.x) % 16 == 0 && a.xStride * sizeof(X) % 16 == 0;
  auto start = [&](auto kernel, int64_t tile) {
    const dim3 grid(unsigned((a.w.n + tile - 1) / tile), unsigned((a.m + tile - 1) / tile));
    launch(c, "gemmFloat", kernel, grid, dim3(kThreads), 0, reinterpret_cast<const W*>(a.w.p), a.w.kp(), a.w.n, reinterpret_cast<const X*>(a.x),
           a.xStride, a.w.k, a.m, aligned, GemmOut(a));
  };
  const int64_t large = ((a.w.n + 127) / 128) * ((a.m + 127) / 128);
  if (large >= c.sms) start(gemmFloatKernel<W, X, 2>, 128);
  else start(gemmFloatKernel<W, X, 1>, 64);
}

}  // namespace

void gemmFloat(Context& c, const LinearCall& call) {
  // Rows beyond what a grid may have in y go in another launch.
  constexpr int64_t kMost = int64_t(65535) * 64;
  for (int64_t from = 0; from < call.m; from += kMost) {
    LinearCall a = call;
    a.m = call.m - from < kMost ? call.m - from : kMost;
    a.x += from * a.xStride * sizeOf(a.xType), a.out += from * a.outStride * sizeOf(a.outType);
    withFloat(a.w.format, [&](auto w) {
      withFloat(a.xType, [&](auto x) { run<decltype(w), decltype(x)>(c, a); });
    });
  }
}
