// bf16 and f16 products on tensor cores by mma.sync: what runs where cuBLASLt is not there. Tiles of x and w come through a ring
// of cp.async stages; a warp's sums stay in its registers.
#include "device.cuh"
#include "gemm.h"
#include "gemm_store.cuh"
#include "launch.h"

namespace {

constexpr int kStep = 32;  // numbers of k in a stage: rows of 64 bytes

/// BM rows of x and BN rows of w in a block; WM x WN of them in a warp.
template <int BM_, int BN_, int WM_, int WN_, int kStages_> struct Tile {
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, kStages = kStages_;
  static constexpr int kWarpsM = BM / WM, kWarpsN = BN / WN, kThreads = kWarpsM * kWarpsN * 32;
  static constexpr int kStageBytes = (BM + BN) * kStep * 2, kSharedBytes = kStageBytes * kStages;
};

__device__ __forceinline__ void copyAsync(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void loadMatrices(uint32_t (&v)[4], uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(a) : "memory");
}
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bf16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, f16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Byte of 16-byte chunk c (0 … 3) of a row in a stage: eight rows of one chunk lie in different banks.
__device__ __forceinline__ uint32_t place(int row, int c) { return uint32_t(row * 64 + ((c ^ (row >> 1 & 3)) << 4)); }

struct TensorCall {
  const char *x, *w;
  int64_t xStride, kp, m, n, k;
  int stepsPerSplit;
  int64_t tilesM, tilesN;
};

/// Blocks that run together should share rows of both matrices: they walk down kGroup tiles of m before they go on in n.
__device__ __forceinline__ void tileOf(const TensorCall& a, int64_t& tm, int64_t& tn) {
  constexpr int64_t kGroup = 8;
  const int64_t perGroup = kGroup * a.tilesN, group = blockIdx.x / perGroup;
  const int64_t height = a.tilesM - group * kGroup < kGroup ? a.tilesM - group * kGroup : kGroup;
  const int64_t inside = blockIdx.x % perGroup;
  tm = group * kGroup + inside % height, tn = inside / height;
}

template <class T, class S> __global__ void __launch_bounds__(S::kThreads) gemmTensorKernel(TensorCall a, GemmOut out) {
  pdlTrigger();
  extern __shared__ __align__(128) char ring[];
  const uint32_t base = uint32_t(__cvta_generic_to_shared(ring));
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  int64_t tm, tn;
  tileOf(a, tm, tn);
  const int64_t m0 = tm * S::BM, n0 = tn * S::BN;
  const int allSteps = int(a.kp / kStep), firstStep = blockIdx.y * a.stepsPerSplit;
  const int steps = allSteps - firstStep < a.stepsPerSplit ? allSteps - firstStep : a.stepsPerSplit;

  // A thread's chunk is the same in all its rows.
  constexpr int kRowsAtOnce = S::kThreads / 4;
  const int chunk = t % 4, loadRow = t / 4;
  auto fetchX = [&](int stage, int step) {
    const int64_t k = int64_t(firstStep + step) * kStep + chunk * 8;
    const int64_t left = (a.k - k) * 2;
    const int bytes = left >= 16 ? 16 : left > 0 ? int(left) : 0;
#pragma unroll
    for (int r = 0; r < S::BM; r += kRowsAtOnce) {
      const int64_t row = m0 + loadRow + r;
      const bool there = row < a.m && bytes > 0;
      copyAsync(base + stage * S::kStageBytes + place(loadRow + r, chunk), there ? a.x + (row * a.xStride + k) * 2 : a.x, there ? bytes : 0);
    }
  };
  auto fetchW = [&](int stage, int step) {
    const int64_t k = int64_t(firstStep + step) * kStep + chunk * 8;
#pragma unroll
    for (int r = 0; r < S::BN; r += kRowsAtOnce) {
      const int64_t row = n0 + loadRow + r;
      copyAsync(base + stage * S::kStageBytes + S::BM * 64 + place(loadRow + r, chunk), a.w + ((row < a.n ? row : 0) * a.kp + k) * 2, row < a.n ? 16 : 0);
    }
  };
  auto commit = [] { asm volatile("cp.async.commit_group;" ::: "memory"); };

  // The weights of the first stages do not wait for the kernel before this one.
#pragma unroll
  for (int s = 0; s < S::kStages - 1; s++)
    if (s < steps) fetchW(s, s);
  pdlWait();
#pragma unroll
  for (int s = 0; s < S::kStages - 1; s++) {
    if (s < steps) fetchX(s, s);
    commit();
  }

  constexpr int kM = S::WM / 16, kN = S::WN / 8;
  const int wm = warp / S::kWarpsN * S::WM, wn = warp % S::kWarpsN * S::WN;
  float sums[kM][kN][4] = {};
  int stage = 0;
  for (int step = 0; step < steps; step++) {
    asm volatile("cp.async.wait_group %0;" ::"n"(S::kStages - 2) : "memory");
    __syncthreads();
    const int ahead = step + S::kStages - 1;
    const int free = stage == 0 ? S::kStages - 1 : stage - 1;
    if (ahead < steps) fetchW(free, ahead), fetchX(free, ahead);
    commit();
    const uint32_t xs = base + stage * S::kStageBytes, ws = xs + S::BM * 64;
#pragma unroll
    for (int k = 0; k < 2; k++) {
      uint32_t fx[kM][4], fw[kN / 2][4];
      // Lanes 0-15 name rows of the left half (k 0-7), 16-31 the same rows of the right half.
#pragma unroll
      for (int i = 0; i < kM; i++) loadMatrices(fx[i], xs + place(wm + i * 16 + lane % 16, k * 2 + lane / 16));
      // Matrices: outputs 0-7 with k 0-7, the same with k 8-15, outputs 8-15 likewise.
#pragma unroll
      for (int j = 0; j < kN / 2; j++) loadMatrices(fw[j], ws + place(wn + j * 16 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < kM; i++)
#pragma unroll
        for (int j = 0; j < kN; j++) multiply(sums[i][j], fx[i], fw[j / 2][j % 2 * 2], fw[j / 2][j % 2 * 2 + 1], T{});
    }
    stage = stage + 1 == S::kStages ? 0 : stage + 1;
  }

  // Through shared memory, 16 rows of a warp at a time, so that rows leave as whole lines.
  __syncthreads();
  out.p += int64_t(blockIdx.y) * a.m * a.n * 4;  // splits: f32 sums, one matrix behind the other
  constexpr int kPitch = S::WN + 8, kLanes = S::WN / 2;
  static_assert(kPitch * 16 * 4 * S::kThreads / 32 <= S::kSharedBytes);
  float* rows = reinterpret_cast<float*>(ring) + warp * 16 * kPitch;
#pragma unroll
  for (int i = 0; i < kM; i++) {
#pragma unroll
    for (int j = 0; j < kN; j++)
#pragma unroll
      for (int h = 0; h < 2; h++)
        *reinterpret_cast<float2*>(&rows[(h * 8 + lane / 4) * kPitch + j * 8 + lane % 4 * 2]) = make_float2(sums[i][j][h * 2], sums[i][j][h * 2 + 1]);
    __syncwarp();
#pragma unroll 4
    for (int r = lane / kLanes; r < 16; r += 32 / kLanes) {
      const float2 v = *reinterpret_cast<const float2*>(&rows[r * kPitch + lane % kLanes * 2]);
      const int64_t row = m0 + wm + i * 16 + r;
      if (row < a.m) out.storePair(row, n0 + wn + lane % kLanes * 2, a.n, v.x, v.y);
    }
    __syncwarp();
  }
}

/// Adds the sums of the splits, always in the same order.
__global__ void __launch_bounds__(256) addSplitsKernel(const float* parts, int splits, int64_t m, int64_t n, GemmOut out) {
  pdlTrigger();
  pdlWait();
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < m * n; i += int64_t(gridDim.x) * 256) {
    float sum = 0;
    for (int s = 0; s < splits; s++) sum += parts[s * m * n + i];
    out.store(i / n, i % n, sum);
  }
}

/// Rows of x at aligned addresses, [m][kp], the padding zero.
__global__ void __launch_bounds__(256) alignRowsKernel(uint16_t* to, const uint16_t* x, int64_t stride, int64_t m, int64_t k, int64_t kp) {
  pdlTrigger();
  pdlWait();
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < m * kp; i += int64_t(gridDim.x) * 256) {
    const int64_t row = i / kp, col = i % kp;
    to[i] = col < k ? x[row * stride + col] : uint16_t(0);
  }
}

constexpr size_t kPartsBytes = size_t(48) << 20;  // of scratch, for splits; behind it x is aligned

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T, class S> void run(Context& c, const LinearCall& a) {
  TensorCall call{a.x, a.w.p, a.xStride, a.w.kp(), a.m, a.w.n, a.w.k, 0, ceilDiv(a.m, S::BM), ceilDiv(a.w.n, S::BN)};
  const int64_t steps = call.kp / kStep, tiles = call.tilesM * call.tilesN;
  // Few tiles leave multiprocessors idle: then several blocks share a tile's k, at least 8 stages each.
  int64_t splits = tiles * 2 > c.sms ? 1 : (c.sms * 2) / tiles;
  const int64_t most = int64_t(kPartsBytes / 4) / (a.m * a.w.n);
  splits = splits > steps / 8 ? steps / 8 : splits;
  splits = splits > most ? most : splits;
  splits = splits < 1 ? 1 : splits;
  call.stepsPerSplit = int(ceilDiv(steps, splits));
  splits = ceilDiv(steps, call.stepsPerSplit);
  GemmOut out(a), parts(a);
  parts.p = c.scratch, parts.type = DType::f32, parts.stride = a.w.n, parts.bias = nullptr;
  launch(c, "gemmTensor", gemmTensorKernel<T, S>, dim3(unsigned(tiles), unsigned(splits)), dim3(S::kThreads), S::kSharedBytes, call,
         splits > 1 ? parts : out);
  if (splits == 1) return;
  const int64_t blocks = ceilDiv(a.m * a.w.n, 256), limit = int64_t(c.sms) * 8;
  launch(c, "addSplits", addSplitsKernel, dim3(unsigned(blocks < limit ? blocks : limit)), dim3(256), 0, reinterpret_cast<const float*>(c.scratch),
         int(splits), a.m, a.w.n, out);
}

template <class T> void choose(Context& c, const LinearCall& a) {
  auto tiles = [&](int64_t bm, int64_t bn) { return ceilDiv(a.m, bm) * ceilDiv(a.w.n, bn); };
  if (a.m > 64 && tiles(128, 256) >= c.sms && c.sharedBytes >= Tile<128, 256, 64, 64, 4>::kSharedBytes) run<T, Tile<128, 256, 64, 64, 4>>(c, a);
  else if (a.m > 64 && tiles(128, 128) * 2 >= c.sms) run<T, Tile<128, 128, 64, 64, 4>>(c, a);
  else run<T, Tile<64, 64, 32, 32, 6>>(c, a);
}

}  // namespace

LinearCall alignRows(Context& c, const LinearCall& call, size_t at) {
  const int64_t kp = call.w.kp(), blocks = ceilDiv(call.m * kp, 256), limit = int64_t(c.sms) * 8;
  if (size_t(call.m * kp) * 2 > Context::kScratchBytes - at) throw CudaFailure{cudaErrorInvalidValue, "alignRows"};
  uint16_t* rows = reinterpret_cast<uint16_t*>(c.scratch + at);
  launch(c, "alignRows", alignRowsKernel, dim3(unsigned(blocks < limit ? blocks : limit)), dim3(256), 0, rows, reinterpret_cast<const uint16_t*>(call.x),
         call.xStride, call.m, call.w.k, kp);
  LinearCall a = call;
  a.x = reinterpret_cast<const char*>(rows), a.xStride = kp;
  return a;
}

bool gemmTensorFits(const LinearCall& a) { return a.xType == a.w.format && a.w.format != DType::f32; }

void gemmTensor(Context& c, const LinearCall& call) {
  const bool aligned = uintptr_t(call.x) % 16 == 0 && call.xStride % 8 == 0;
  const int64_t kp = call.w.kp(), room = int64_t(Context::kScratchBytes - kPartsBytes) / 2 / kp;
  if (!aligned && room == 0) return gemmFloat(c, call);  // k beyond 24 million
  // Tiles are numbered by 32 bits, and what is aligned must fit scratch memory.
  int64_t most = int64_t(1) << 22;
  if (!aligned && room < most) most = room;
  for (int64_t from = 0; from < call.m; from += most) {
    LinearCall a = call;
    a.m = call.m - from < most ? call.m - from : most;
    a.x += from * a.xStride * 2, a.out += from * a.outStride * sizeOf(a.outType);
    if (!aligned) a = alignRows(c, a, kPartsBytes);
    if (a.w.format == DType::bf16) choose<bf16>(c, a);
    else choose<f16>(c, a);
  }
}
