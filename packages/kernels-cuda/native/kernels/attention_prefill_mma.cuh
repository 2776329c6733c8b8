// Prefill attention with mma.sync: any device from sm_80 on. A block has four warps of MT · 16 rows each and goes over the keys
// its rows see from the last to the first, 64 at a time. One buffer for keys and one for values: while the scores are computed
// the values arrive, while the values are weighed the next keys; two blocks share a multiprocessor. 8-bit caches become the
// queries' type on the way into those buffers, which is exact; the other block has the multiprocessor meanwhile.
#pragma once
#include "attention_prefill.cuh"
#include "attention_prefill_launch.h"
#include "launch.h"

__device__ __forceinline__ void matrixLoad(uint32_t (&r)[4], uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a) : "memory");
}
__device__ __forceinline__ void matrixLoadTransposed(uint32_t (&r)[4], uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a) : "memory");
}
template <class T> __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void multiply<bf16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void multiply<f16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void copyAsync16OrZero(uint32_t to, const void* from, bool copy) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(copy ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int n> __device__ __forceinline__ void copyWait() { asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory"); }

namespace prefillMma {

constexpr int kThreads = 128, kKeys = 64, kPages = kKeys / kPageTokens;

/// Bytes of shared memory: queries, keys, values, the number of the block's sequence.
template <int D, int MT> constexpr int kSharedBytes = (64 * MT + 2 * kKeys) * D * 2 + 16;

/// Starts the copy of a tile's keys or values. `base`: of the head in page 0. Tokens from `valid` on become zeros. Where the cache's
/// rows are as long as the tile's, pages are copied as they lie; else every chunk is put in its place.
template <int D> __device__ __forceinline__ void loadTile(uint32_t shared, const char* base, int64_t pageBytes, const int (&pages)[kPages], const PageRows& from, int valid) {
  constexpr PageRows to(D, 2);
  constexpr int kChunks = D / 8, kPageChunks = kPageTokens * kChunks;
  const int count = from.rowBytes / 16;
  auto copy = [&](uint32_t at, int token, int place) {
    int page = pages[0];
#pragma unroll
    for (int p = 1; p < kPages; p++)
      if (token >= p * kPageTokens) page = pages[p];
    const bool there = page >= 0 && token < valid;
    copyAsync16OrZero(shared + at, base + (there ? page * pageBytes + place : 0), there);
  };
  if (count == kChunks) {
#pragma unroll
    for (int j = 0; j < kKeys * kChunks / kThreads; j++) {
      const int i = threadIdx.x + j * kThreads, page = i / kPageChunks, rest = i % kPageChunks;
      const int token = page * kPageTokens + rest / (8 * kChunks) * 8 + rest % (8 * to.width) / to.width;
      copy(i * 16, token, rest * 16);
    }
  } else {
    for (int i = threadIdx.x; i < kKeys * count; i += kThreads) {
      const int token = i / count, c = i - token * count;
      copy(to.chunk(token, c), token, from.chunk(token & (kPageTokens - 1), c));
    }
  }
}

/// The same of 8-bit floats, which are there when this returns; `Batch` pieces are on their way at a time.
template <class T, int D, int Batch> __device__ __forceinline__ void loadBytes(char* shared, DType type, const char* base, int64_t pageBytes, const int (&pages)[kPages], const PageRows& from, int valid) {
  constexpr PageRows to(D, 2);
  const int count = from.rowBytes / 16;
  for (int first = threadIdx.x; first < kKeys * count; first += kThreads * Batch) {
    uint4 v[Batch];
#pragma unroll
    for (int j = 0; j < Batch; j++) {
      const int i = first + j * kThreads, token = i / count, c = i - token * count;
      int page = pages[0];
#pragma unroll
      for (int p = 1; p < kPages; p++)
        if (token >= p * kPageTokens) page = pages[p];
      const bool there = i < kKeys * count && page >= 0 && token < valid;
      v[j] = there ? *reinterpret_cast<const uint4*>(base + page * pageBytes + from.chunk(token & (kPageTokens - 1), c)) : uint4{};
    }
#pragma unroll
    for (int j = 0; j < Batch; j++) {
      const int i = first + j * kThreads, token = i / count, c = i - token * count;
      if (i >= kKeys * count) break;
      storeBytes<T>(type, v[j], shared + to.chunk(token, 2 * c), shared + to.chunk(token, 2 * c + 1));
    }
  }
}

/// Bytes: the cache's elements are 8-bit floats; else T.
template <class T, int D, int MT, bool Bytes> __global__ void __launch_bounds__(kThreads, 2) kernel(PrefillArgs a) {
  constexpr int M = 64 * MT, kSteps = D / 16, kScoreTiles = kKeys / 8, kOutTiles = D / 8;
  constexpr PageRows rows(D, 2);
  extern __shared__ __align__(1024) char shared[];
  pdlTrigger();
  pdlWait();
  const WorkNumber work = workOf(a, blockIdx.x);
  const int kvHead = work.kvHead;
  PrefillTile t;
  if (!findTile<M>(a, work.tile, reinterpret_cast<int*>(shared + kSharedBytes<D, MT> - 16), t)) return;

  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const uint32_t sharedQ = sharedAddress(shared), sharedK = sharedQ + M * D * 2, sharedV = sharedK + kKeys * D * 2;
  const PageRows keyRows = a.cache.keys(), valueRows = a.cache.values();
  const int64_t pageBytes = a.cache.pageBytes();
  const char *keyBase = a.cache.head(0, kvHead), *valueBase = keyBase + keyRows.bytes();

  const int firstPosition = t.firstPosition(a.group), lastPosition = t.lastPosition(a.group);
  int lowest = a.window ? max(0, firstPosition - a.window + 1) / kKeys : 0, n = lastPosition < 0 ? -1 : lastPosition / kKeys;
  narrow(a, work.split, lowest, n);
  int pages[kPages], nextPages[kPages];
  auto pagesAt = [&](int (&p)[kPages], int n) {
#pragma unroll
    for (int i = 0; i < kPages; i++) p[i] = n >= lowest ? pageOf(a, t, n * kPages + i) : -1;
  };
  pagesAt(pages, n), pagesAt(nextPages, n - 1);
  constexpr int kRowBytes = Bytes ? D : D * 2;
  const DType type = DType(a.cache.dtype);
  auto load = [&](uint32_t to, const char* base, const PageRows& from, int valid) {
    if (Bytes) loadBytes<T, D, 4>(shared + (to - sharedQ), type, base, pageBytes, pages, from, valid);
    else loadTile<D>(to, base, pageBytes, pages, from, valid);
  };
  if (keyRows.rowBytes != kRowBytes || valueRows.rowBytes != kRowBytes) {
    // Columns that the cache does not have are zeros from here on.
    for (int i = threadIdx.x; i < 2 * kKeys * D / 8; i += kThreads) *reinterpret_cast<uint4*>(shared + M * D * 2 + i * 16) = uint4{};
    __syncthreads();
  }
  if (n >= lowest) load(sharedK, keyBase, keyRows, t.context - n * kKeys);
  copyCommit();
  loadQueries<T, D, M, kThreads>(a, t, kvHead, shared, 0, 0, threadIdx.x);

  // Of the rows whose numbers this thread holds: [m-tile][upper or lower half].
  int position[MT][2];
  float slope[MT][2], most[MT][2], total[MT][2];
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int row = t.firstRow + (warp * MT + m) * 16 + h * 8 + lane / 4, token = row / a.group;
      position[m][h] = t.offset + token;
      slope[m][h] = a.slopes ? a.slopes[kvHead * a.group + row - token * a.group] * kLog2e : 0.f;
      most[m][h] = -INFINITY, total[m][h] = 0.f;
    }

  // Where this lane's row of each 8x8 matrix begins, with the swizzle of its own chunk; column steps are XORed and added.
  const int w = rows.width;
  auto laneAddress = [&](uint32_t base, int token, int half) { return base + rows.chunk(token, half); };
  const uint32_t laneQ = laneAddress(sharedQ, warp * MT * 16 + (lane & 15), lane >> 4);
  const uint32_t laneK = laneAddress(sharedK, (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
  const uint32_t laneV = laneAddress(sharedV, lane & 15, lane >> 4);
  auto column = [&](uint32_t address, int c) { return (address ^ ((c & (w - 1)) * 16)) + c / w * rows.panelBytes(); };

  float o[MT][kOutTiles][4] = {};
  const float factor = a.transform ? 1.f : a.scale;
  for (; n >= lowest; n--) {
    copyWait<0>();
    __syncthreads();
    load(sharedV, valueBase, valueRows, t.context - n * kKeys);
    copyCommit();

    float s[MT][kScoreTiles][4] = {};
#pragma unroll
    for (int k = 0; k < kSteps; k++) {
      uint32_t q[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) matrixLoad(q[m], column(laneQ, 2 * k) + m * 2 * rows.groupBytes());
#pragma unroll
      for (int j = 0; j < kScoreTiles / 2; j++) {
        uint32_t b[4];
        matrixLoad(b, column(laneK, 2 * k) + j * 2 * rows.groupBytes());
#pragma unroll
        for (int m = 0; m < MT; m++) multiply<T>(s[m][2 * j], q[m], b[0], b[1]), multiply<T>(s[m][2 * j + 1], q[m], b[2], b[3]);
      }
    }
    copyWait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPages; i++) pages[i] = nextPages[i];
    if (n > lowest) load(sharedK, keyBase, keyRows, t.context - (n - 1) * kKeys);
    copyCommit();
    pagesAt(nextPages, n - 2);

    if (a.transform) {
#pragma unroll
      for (int m = 0; m < MT; m++) transformScores(a, reinterpret_cast<float(&)[kScoreTiles * 4]>(s[m]), slope[m], n * kKeys + lane % 4 * 2, position[m]);
    }
    if (n * kKeys + kKeys - 1 > firstPosition || (a.window && n * kKeys <= lastPosition - a.window)) {
#pragma unroll
      for (int m = 0; m < MT; m++)
#pragma unroll
        for (int j = 0; j < kScoreTiles; j++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const int behind = position[m][e / 2] - (n * kKeys + j * 8 + lane % 4 * 2 + e % 2);
            if (behind < 0 || (a.window && behind >= a.window)) s[m][j][e] = -INFINITY;
          }
    }

    // A row's reference need not be its maximum, only so near that nothing overflows: most tiles change none.
    bool grew = false;
    float peak[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float p = fmaxf(s[m][0][2 * h], s[m][0][2 * h + 1]);
#pragma unroll
        for (int j = 1; j < kScoreTiles; j++) p = fmaxf(p, fmaxf(s[m][j][2 * h], s[m][j][2 * h + 1]));
        p = fmaxf(p, __shfl_xor_sync(~0u, p, 1));
        p = fmaxf(p, __shfl_xor_sync(~0u, p, 2));
        peak[m][h] = p * factor;
        grew |= peak[m][h] > most[m][h] + 8.f;
      }
    if (__any_sync(~0u, grew)) {
#pragma unroll
      for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const float next = fmaxf(most[m][h], peak[m][h]);
          const float shrink = next == -INFINITY ? 1.f : exp2Approx(most[m][h] - next);
          most[m][h] = next, total[m][h] *= shrink;
#pragma unroll
          for (int j = 0; j < kOutTiles; j++) o[m][j][2 * h] *= shrink, o[m][j][2 * h + 1] *= shrink;
        }
    }
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float reference = most[m][h] == -INFINITY ? 0.f : most[m][h];
#pragma unroll
        for (int j = 0; j < kScoreTiles; j++)
#pragma unroll
          for (int e = 2 * h; e < 2 * h + 2; e++) {
            s[m][j][e] = exp2Approx(fmaf(s[m][j][e], factor, -reference));
            total[m][h] += s[m][j][e];
          }
      }
#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) {
      uint32_t p[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++)
#pragma unroll
        for (int e = 0; e < 4; e++) p[m][e] = Pair<T>::pack(s[m][2 * k + e / 2][e % 2 * 2], s[m][2 * k + e / 2][e % 2 * 2 + 1]);
#pragma unroll
      for (int j = 0; j < kOutTiles / 2; j++) {
        uint32_t b[4];
        matrixLoadTransposed(b, column(laneV, 2 * j) + k * 2 * rows.groupBytes());
#pragma unroll
        for (int m = 0; m < MT; m++) multiply<T>(o[m][2 * j], p[m], b[0], b[1]), multiply<T>(o[m][2 * j + 1], p[m], b[2], b[3]);
      }
    }
  }
  copyWait<0>();
  // Rows that see nothing never came to the barrier in the loop.
  __syncthreads();

#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float sum = total[m][h];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      const int r = (warp * MT + m) * 16 + h * 8 + lane / 4;
      if (a.splits > 1) {
        if (r < t.rows) storePartial<D>(a, partialRow(a, t, kvHead, work.split, r), &o[m][0][2 * h], most[m][h], sum);
        continue;
      }
      const float factor = outputScale(most[m][h], sum, a.sinks ? a.sinks + kvHead * a.group + (t.firstRow + r) % a.group : nullptr);
#pragma unroll
      for (int j = 0; j < kOutTiles; j++)
        *reinterpret_cast<uint32_t*>(shared + rows.chunk(r, j) + lane % 4 * 4) = Pair<T>::pack(o[m][j][2 * h] * factor, o[m][j][2 * h + 1] * factor);
    }
  if (a.splits > 1) return;
  __syncwarp();
  storeRows<T, D, MT * 16>(a, t, kvHead, shared, 0, warp * MT * 16);
}

template <class T, int D, int MT, bool Bytes> void start(Context& c, PrefillArgs a, const PrefillShape& shape) {
  a.tiles = int(shape.rows / (64 * MT) + 1 + a.sequences);
  splitKeys(c, a, shape, 64 * MT, D, kKeys, 2 * c.sms);
  const unsigned blocks = unsigned(a.tiles) * a.cache.kvHeads * a.splits;
  launch(c, "attention prefill", kernel<T, D, MT, Bytes>, dim3(blocks), dim3(kThreads), kSharedBytes<D, MT>, a);
  if (a.splits > 1) mergeSplits(c, a, shape.type);
}
template <class T, bool Bytes> void startFor(Context& c, const PrefillArgs& a, const PrefillShape& shape) {
  const int dim = a.cache.keyDim > a.cache.valueDim ? a.cache.keyDim : a.cache.valueDim;
  if (dim <= 64) start<T, 64, 2, Bytes>(c, a, shape);
  else if (dim <= 96) start<T, 96, 2, Bytes>(c, a, shape);
  else if (dim <= 128) start<T, 128, 2, Bytes>(c, a, shape);
  else if (dim <= 192) start<T, 192, 1, Bytes>(c, a, shape);
  else start<T, 256, 1, Bytes>(c, a, shape);
}

}  // namespace prefillMma
