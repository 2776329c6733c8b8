// bf16 and f16 products by wgmma on 9.0. Tiles of w (rows of the instruction) and x (its columns) come through a ring by TMA; a
// thread of a ninth warp feeds it. Where there are few tiles, the blocks of a cluster share a tile's k and add their sums through
// each other's shared memory. Made for 17 to 128 rows of x, which is reading weights: those are asked for before the kernel in
// front has ended. Gated: half of a block's rows of w are gates and half what they multiply.
#include <cuda.h>
#include "activation.cuh"
#include "device.cuh"
#include "gemm.h"
#include "gemm_store.cuh"
#include "ring.cuh"
#include "launch.h"
#include "wgmma.cuh"

namespace {

constexpr int kStep = 64;  // numbers of k in a stage: rows of 128 bytes, as the swizzle wants them
constexpr int kConsumers = 256, kThreads = kConsumers + 32;
constexpr int kMostStages = 8;
constexpr int kMostCluster = 8;

/// N rows of x and 128 R rows of w in a block.
template <int N, int R> struct Shape {
  static constexpr int kRows = 128 * R, kPitch = kRows + 4;
  static constexpr int kWeightBytes = kRows * 128, kStageBytes = kWeightBytes + N * 128;
  static constexpr int kSumBytes = N * kPitch * 4;
};

__device__ __forceinline__ void loadTile(uint32_t to, const CUtensorMap& map, int k, int row, uint32_t barrier, bool once) {
  uint64_t policy;
  if (once) asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  else asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
               "l"(reinterpret_cast<uint64_t>(&map)), "r"(k), "r"(row), "r"(barrier), "l"(policy)
               : "memory");
}
/// Rows of 128 bytes, swizzled in groups of eight.
__device__ __forceinline__ uint64_t descriptor(uint32_t address) {
  return uint64_t(1) << 62 | uint64_t(1024 >> 4) << 32 | uint64_t(1) << 16 | (address & 0x3ffff) >> 4;
}
__device__ __forceinline__ int clusterRank() {
  int r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
__device__ __forceinline__ void clusterSync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ float2 loadOfRank(uint32_t address, int rank) {
  uint32_t there;
  float2 v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(there) : "memory");
  return v;
}

/// The sums of all blocks of the cluster at this address, always in the same order.
__device__ __forceinline__ float2 sumOfRanks(uint32_t at, int cluster) {
  float2 sum = make_float2(0, 0);
  if (cluster == 1) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(sum.x), "=f"(sum.y) : "r"(at) : "memory");
    return sum;
  }
  float2 part[kMostCluster];
#pragma unroll
  for (int c = 0; c < kMostCluster; c++)
    if (c < cluster) part[c] = loadOfRank(at, c);
#pragma unroll
  for (int c = 0; c < kMostCluster; c++)
    if (c < cluster) sum.x += part[c].x, sum.y += part[c].y;
  return sum;
}

struct WgmmaCall {
  int64_t m, n;  // columns of out: half of w's rows where it is gated
  int activation;
  int tilesM, tilesN, steps, stages, cluster;
};

template <class T, int N, int R, bool gated>
__global__ void __launch_bounds__(kThreads, 1)
    gemmWgmmaKernel(const __grid_constant__ CUtensorMap wMap, const __grid_constant__ CUtensorMap xMap, WgmmaCall a, GemmOut out) {
  using S = Shape<N, R>;
  constexpr int kColumns = gated ? S::kRows / 2 : S::kRows;
  pdlTrigger();
  extern __shared__ char memory[];
  __shared__ uint64_t full[kMostStages], empty[kMostStages];
  const uint32_t ring = (sharedAddress(memory) + 1023) & ~1023u;
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int rank = a.cluster > 1 ? clusterRank() : 0;
  // Tiles in groups of eight along n: what runs together shares rows of both matrices.
  const int tile = blockIdx.x / a.cluster, perGroup = 8 * a.tilesM, group = tile / perGroup;
  const int height = min(a.tilesN - group * 8, 8), inside = tile % perGroup;
  const int n0 = (group * 8 + inside % height) * kColumns, m0 = inside / height * N;
  const int share = (a.steps + a.cluster - 1) / a.cluster, first = rank * share;
  const int steps = max(0, min(share, a.steps - first));
  if (t == 0) {
    for (int s = 0; s < a.stages; s++) barrierInit(sharedAddress(&full[s]), 1), barrierInit(sharedAddress(&empty[s]), kConsumers / 32);
    barrierInitFence();
  }
  __syncthreads();

  if (warp == kConsumers / 32) {
    if (lane == 0) {
      auto weights = [&](int i, int s) {
        barrierExpect(sharedAddress(&full[s]), S::kStageBytes);
        const uint32_t to = ring + s * S::kStageBytes, k = (first + i) * kStep;
        loadTile(to, wMap, k, n0, sharedAddress(&full[s]), a.tilesM == 1);
        if (gated) loadTile(to + S::kWeightBytes / 2, wMap, k, int(a.n) + n0, sharedAddress(&full[s]), a.tilesM == 1);
      };
      auto rows = [&](int i, int s) {
        loadTile(ring + s * S::kStageBytes + S::kWeightBytes, xMap, (first + i) * kStep, m0, sharedAddress(&full[s]), false);
      };
      const int ahead = min(a.stages, steps);
      for (int i = 0; i < ahead; i++) weights(i, i);
      pdlWait();
      for (int i = 0; i < ahead; i++) rows(i, i);
      int s = 0, parity = 0;
      for (int i = ahead; i < steps; i++) {
        barrierWait(sharedAddress(&empty[s]), parity);
        weights(i, s);
        rows(i, s);
        if (++s == a.stages) s = 0, parity ^= 1;
      }
    }
    __syncwarp();
  } else {
    pdlWait();
    const int half = warp / 4;  // of the block's rows of w: one warpgroup each
    float sums[R][N / 2];
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int i = 0; i < N / 2; i++) sums[r][i] = 0;
    int s = 0, parity = 0;
    for (int i = 0; i < steps; i++) {
      barrierWait(sharedAddress(&full[s]), parity);
      const uint64_t b = descriptor(ring + s * S::kStageBytes + S::kWeightBytes);
#pragma unroll
      for (int r = 0; r < R; r++) pinRegisters(sums[r]);
      wgmmaFence();
#pragma unroll
      for (int k = 0; k < kStep / 16; k++)
#pragma unroll
        for (int r = 0; r < R; r++)
          wgmmaShared<T, N>(sums[r], descriptor(ring + s * S::kStageBytes + (half * R + r) * 64 * 128) + 2 * k, b + 2 * k, 1);
      wgmmaCommit();
      // The products of the stage before are complete: its slot is free.
      wgmmaWait<1>();
      if (i > 0 && lane == 0) barrierArrive(sharedAddress(&empty[s == 0 ? a.stages - 1 : s - 1]));
      if (++s == a.stages) s = 0, parity ^= 1;
    }
    wgmmaWait<0>();
#pragma unroll
    for (int r = 0; r < R; r++) pinRegisters(sums[r]);
    barSync(1, kConsumers);  // nobody reads the ring any more
    float* parts = reinterpret_cast<float*>(memory + (ring - sharedAddress(memory)));
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int i = 0; i < N / 2; i++) {
        const int row = (half * R + r) * 64 + warp % 4 * 16 + lane / 4 + (i % 4 >= 2 ? 8 : 0), token = i / 4 * 8 + lane % 4 * 2 + i % 2;
        parts[token * S::kPitch + row] = sums[r][i];
      }
  }
  if (a.cluster > 1) clusterSync();
  else __syncthreads();
  if (t < kConsumers) {
    const int tokens = int(a.m - m0 < N ? a.m - m0 : N);
    constexpr int kPairs = kColumns / 2, kAtOnce = kConsumers / kPairs;
    const int pair = t % kPairs * 2;
    const int64_t col = n0 + pair;
    for (int token = rank + t / kPairs * a.cluster; token < tokens; token += kAtOnce * a.cluster) {
      const uint32_t at = ring + (token * S::kPitch + pair) * 4;
      float2 sum = sumOfRanks(at, a.cluster);
      if (!gated) {
        out.storePair(m0 + token, col, a.n, sum.x, sum.y);
        continue;
      }
      float2 factor = sumOfRanks(at + kColumns * 4, a.cluster);
      if (out.bias) {
        sum.x += out.biasAt(col, 2 * a.n), sum.y += out.biasAt(col + 1, 2 * a.n);
        factor.x += out.biasAt(a.n + col, 2 * a.n), factor.y += out.biasAt(a.n + col + 1, 2 * a.n);
      }
      out.storePairPlain(m0 + token, col, a.n, activated(a.activation, sum.x) * factor.x, activated(a.activation, sum.y) * factor.y);
    }
  }
  if (a.cluster > 1) clusterSync();  // others read this block's sums
}

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                            const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/// From the driver, which is not linked; null where it is too old.
Encode encoder() {
  static const Encode found = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult state;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &state) != cudaSuccess) f = nullptr;
    return reinterpret_cast<Encode>(f);
  }();
  return found;
}

CUtensorMap mapOf(const char* p, DType type, int64_t rows, int64_t cols, int64_t stride, int boxRows) {
  CUtensorMap map;
  const cuuint64_t sizes[2] = {cuuint64_t(cols), cuuint64_t(rows)}, strides[1] = {cuuint64_t(stride) * 2};
  const cuuint32_t box[2] = {kStep, cuuint32_t(boxRows)}, steps[2] = {1, 1};
  const CUresult r = encoder()(&map, type == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<char*>(p),
                               sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r != CUDA_SUCCESS) throw CudaFailure{cudaErrorInvalidValue, "cuTensorMapEncodeTiled"};
  return map;
}

template <class T, int N, int R, bool gated> void run(Context& c, const LinearCall& a, int cluster) {
  using S = Shape<N, R>;
  constexpr int kColumns = gated ? S::kRows / 2 : S::kRows;
  const int64_t n = gated ? a.w.n / 2 : a.w.n;
  WgmmaCall call{a.m, n, a.activation, int((a.m + N - 1) / N), int((n + kColumns - 1) / kColumns), int((a.w.kp() + kStep - 1) / kStep), 0, cluster};
  const int room = c.sharedBytes - 2048;
  call.stages = room / S::kStageBytes < kMostStages ? room / S::kStageBytes : kMostStages;
  const int ringBytes = call.stages * S::kStageBytes, bytes = 1024 + (ringBytes > S::kSumBytes ? ringBytes : S::kSumBytes);
  auto kernel = gemmWgmmaKernel<T, N, R, gated>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "gemmWgmma");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(call.tilesM) * unsigned(call.tilesN) * unsigned(cluster)), config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = size_t(bytes), config.stream = c.stream;
  LaunchAttributes attributes(c.pdl, unsigned(cluster));
  config.attrs = attributes.list, config.numAttrs = attributes.count;
  check(cudaLaunchKernelEx(&config, kernel, mapOf(a.w.p, a.w.format, a.w.n, a.w.kp(), a.w.kp(), kColumns),
                           mapOf(a.x, a.xType, a.m, a.w.k, a.xStride, N), call, GemmOut(a)),
        "gemmWgmma");
}

/// Rows of w in a block, in units of 128, and blocks that share a tile.
struct Plan {
  int rows, cluster;
  int64_t blocks;
};

/// As many blocks as run at once, larger ones first: they read x less often.
Plan planOf(const Context& c, const LinearCall& a, int64_t tilesM) {
  const int64_t steps = (a.w.kp() + kStep - 1) / kStep;
  Plan best{2, 1, tilesM * ((a.w.n + 255) / 256)};
  if (best.blocks >= c.sms * 3 / 4) return best;
  for (int rows : {2, 1})
    for (int cluster : {1, 2, 4, 8}) {
      const int64_t blocks = tilesM * ((a.w.n + rows * 128 - 1) / (rows * 128)) * cluster;
      // Groups of multiprocessors that may form a cluster leave some over.
      if (blocks <= (cluster > 2 ? c.sms - 4 : c.sms) && steps / cluster >= 4 && blocks > best.blocks) best = {rows, cluster, blocks};
    }
  return best;
}

template <class T, int N, int R> void withGate(Context& c, const LinearCall& a, int cluster) {
  if (a.activation >= 0) run<T, N, R, true>(c, a, cluster);
  else run<T, N, R, false>(c, a, cluster);
}
template <class T> void choose(Context& c, const LinearCall& a) {
  const int64_t n = a.m <= 64 ? 64 : 128;
  const Plan plan = planOf(c, a, (a.m + n - 1) / n);
  if (n == 64) plan.rows == 2 ? withGate<T, 64, 2>(c, a, plan.cluster) : withGate<T, 64, 1>(c, a, plan.cluster);
  else plan.rows == 2 ? withGate<T, 128, 2>(c, a, plan.cluster) : withGate<T, 128, 1>(c, a, plan.cluster);
}

}  // namespace

bool gemmWgmmaFits(const Context& c, const LinearCall& a) {
  if (c.capability != 90 || !gemmTensorFits(a) || !encoder()) return false;
  return uintptr_t(a.x) % 16 == 0 && a.xStride % 8 == 0 && a.xStride >= a.w.k && a.m <= int64_t(1) << 24 && a.w.n <= int64_t(1) << 24 &&
         a.w.k <= int64_t(1) << 24;
}

void gemmWgmma(Context& c, const LinearCall& a) {
  if (a.w.format == DType::bf16) choose<bf16>(c, a);
  else choose<f16>(c, a);
}
