// Attention of one query a sequence over the paged cache, on tensor cores (mma.sync), the context split over blocks.
//
// A warp takes whole pages: one bulk copy brings a head's keys and values of a page (2 to 16 KB) into the warp's own ring in
// shared memory, so nobody but the warp itself fills and empties it. The products are turned around, with tokens and dimensions
// as rows of 16 and the heads of the group as 8 columns: scores = keys · queryᵀ, out = valuesᵀ · probabilities. A group of 8
// heads or fewer costs half of what it does the other way round, and no accumulator is padding.
//
// Page i of a sequence belongs to split i mod splits; a split's pages go round its warps. The splits of a (sequence, kv head) are
// `cluster` blocks that merge through distributed shared memory, times `groups` of such clusters that merge through scratch
// memory: the last group to finish takes in the others, always in the same order. A context that is shorter than the plan was
// made for uses fewer groups; the blocks of the others end at once.
#pragma once
#include "attention_decode_plan.h"
#include "attention_generic_elements.cuh"
#include "launch.h"
#include "ring.cuh"

namespace decode {

constexpr float kLog2e = 1.4426950408889634f;

__device__ __forceinline__ float exp2Fast(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
template <class T> __device__ __forceinline__ void mma(float (&d)[4], const uint4& a, uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void mma<bf16>(float (&d)[4], const uint4& a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void mma<f16>(float (&d)[4], const uint4& a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
template <bool Transposed> __device__ __forceinline__ uint4 loadMatrices(uint32_t p) {
  uint4 v;
  if (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(p) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(p) : "memory");
  return v;
}
__device__ __forceinline__ uint32_t transpose8x8(uint32_t v) {
  uint32_t r;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
  return r;
}
template <class T> __device__ __forceinline__ uint32_t pack2(float a, float b);
template <> __device__ __forceinline__ uint32_t pack2<bf16>(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}
template <> __device__ __forceinline__ uint32_t pack2<f16>(float a, float b) {
  const __half2 v = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}
__device__ __forceinline__ void storeShared16(uint32_t p, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// ---- clusters: sm_90 and newer; elsewhere a block is its own cluster ------------------------------------------------------------
__device__ __forceinline__ void clusterArrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void clusterWait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
/// Numbers at an address of this block's shared memory, in the block of another rank.
__device__ __forceinline__ float4 loadOfRank(const float4* p, int rank) {
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  float4 v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(sharedAddress(p)), "r"(rank));
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(there) : "memory");
  return v;
#else
  (void)rank;
  return *p;
#endif
}
__device__ __forceinline__ float2 loadOfRank(const float2* p, int rank) {
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  float2 v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(sharedAddress(p)), "r"(rank));
  asm volatile("ld.shared::cluster.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(there) : "memory");
  return v;
#else
  (void)rank;
  return *p;
#endif
}

// ---- partial results ------------------------------------------------------------------------------------------------------------
/// A head's softmax over a part of the context: its maximum (in powers of 2), its total, and four of its weighted sums.
struct Part {
  float4 value;
  float2 state;
};
/// Parts in their order; those with a maximum of -infinity count for nothing.
template <int N> __device__ __forceinline__ Part merge(const Part (&parts)[N]) {
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < N; i++) most = fmaxf(most, parts[i].state.x);
  const float base = most == -INFINITY ? 0.f : most;
  Part all{make_float4(0, 0, 0, 0), make_float2(most, 0)};
#pragma unroll
  for (int i = 0; i < N; i++) {
    const float f = exp2Fast(parts[i].state.x - base);
    all.state.y = fmaf(f, parts[i].state.y, all.state.y);
    all.value.x = fmaf(f, parts[i].value.x, all.value.x), all.value.y = fmaf(f, parts[i].value.y, all.value.y);
    all.value.z = fmaf(f, parts[i].value.z, all.value.z), all.value.w = fmaf(f, parts[i].value.w, all.value.w);
  }
  return all;
}
/// Part i of `count` comes from load(i), N at a time.
template <int N, class Load> __device__ __forceinline__ Part mergeAll(int count, Load load) {
  const Part none{make_float4(0, 0, 0, 0), make_float2(-INFINITY, 0)};
  Part all = none;
  for (int i0 = 0; i0 < count; i0 += N) {
    Part parts[N + 1];
    parts[0] = all;
#pragma unroll
    for (int i = 0; i < N; i++) parts[i + 1] = i0 + i < count ? load(i0 + i) : none;
    all = merge(parts);
  }
  return all;
}

/// D: the greatest head size, a multiple of 16; Exact: both head sizes are D. HeadTiles: of 8 heads.
template <class T, int D, int HeadTiles, bool Exact> __global__ void __launch_bounds__(kMostDecodeWarps * 32) kernel(AttentionCall c, QkvCall x, DecodePlan plan) {
  constexpr int kHeads = 8 * HeadTiles, kSteps = D / 16;
  constexpr int kLane = D / 32;                         // elements of a staged row that a lane holds
  constexpr int kStaged = (kHeads + 2 + 3) / 4;         // rows that a warp stages, of four warps or more
  constexpr int kSumRow = D + 4, kQueryRow = D + 8;     // free of bank conflicts
  extern __shared__ __align__(128) char shared[];
  __shared__ uint64_t full[kMostDecodeWarps * kMostDecodeStages];
  __shared__ bool last;
  pdlTrigger();
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane >> 2, t = lane & 3;
  const int threads = blockDim.x, warps = threads / 32;
  const int stages = plan.stages, split = blockIdx.x, s = blockIdx.z;
  const int kvHead = blockIdx.y / plan.headTiles, group = int(c.heads) / c.cache.kvHeads;
  const int head0 = kvHead * group + blockIdx.y % plan.headTiles * kHeads;
  const int heads = min(kHeads, (kvHead + 1) * group - head0);
  const PageRows keyRows = Exact ? PageRows(D, 2) : c.cache.keys(), valueRows = Exact ? PageRows(D, 2) : c.cache.values();
  const int keySteps = Exact ? kSteps : keyRows.rowBytes / 32, valueSteps = Exact ? kSteps : valueRows.rowBytes / 32;
  const int slotBytes = keyRows.bytes() + valueRows.bytes();
  T* const queries = reinterpret_cast<T*>(shared + plan.ringBytes);  // [kHeads][kQueryRow]
  T* const fresh = queries + kHeads * kQueryRow;                     // [2][D] this token's key and value
  float* const turned = reinterpret_cast<float*>(fresh + 2 * D) + warp * D;
  const uint32_t ring = sharedAddress(shared) + warp * stages * slotBytes;

  if (tid == 0) {
    for (int i = 0; i < warps * stages; i++) barrierInit(sharedAddress(full + i), 1);
    barrierInitFence();
  }
  for (int e = tid; e < (kHeads - heads) * kQueryRow / 2; e += threads) reinterpret_cast<uint32_t*>(queries + heads * kQueryRow)[e] = 0;
  if (!plan.settled) pdlWait();

  // ---- which pages --------------------------------------------------------------------------------------------------------------
  const int32_t* const table = c.pageTables + s * c.tableStride;
  auto tableAt = [&](int page) { return page < c.maxPages ? __ldg(table + page) : -1; };
  // Page numbers of 32 of this warp's pages, one a lane; asked for beside the length where they do not depend on it.
  const bool known = plan.groups == 1 && c.window <= 0;
  int entry = known ? tableAt(warp * plan.cluster + split + lane * plan.cluster * warps) : -1;
  const int first = c.queryStarts[s], next = c.queryStarts[s + 1];
  const int length = int(min(int64_t(c.contextLengths[s]), c.maxPages * kPageTokens));
  const int oldest = c.window > 0 && c.window < length ? length - int(c.window) : 0, firstPage = oldest / kPageTokens;
  const int pages = (length - 1) / kPageTokens - firstPage + 1;
  const int groups = min(plan.groups, max(1, pages / (plan.cluster * warps))), splits = plan.cluster * groups;
  const bool one = next - first == 1 && first >= 0 && first < c.tokens && length > 0;
  __syncthreads();
  if (!one || split >= splits) {
    if (plan.settled) pdlWait();
    return;
  }
  const int stride = splits * warps, unit = warp * splits + split;
  if (!known) entry = tableAt(firstPage + unit + lane * stride);
  const int count = pages > unit ? (pages - unit + stride - 1) / stride : 0;
  const bool owner = plan.fused && (pages - 1) % stride % splits == split;  // the block that has the last page

  int slot = 0, phase = 0, filled = 0, bad = 0;  // bad: slots whose page is outside the cache, a bit each
  auto fill = [&](int slot, int nothing) {
    if (filled < count) {
      if (filled > 0 && filled % 32 == 0) entry = tableAt(firstPage + unit + (filled + lane) * stride);
      int page = __shfl_sync(~0u, entry, filled % 32);
      const bool there = page >= 0 && page < c.cache.pages;
      bad = there ? bad & ~(1 << slot) : bad | 1 << slot;
      const char* const from = c.cache.p + (int64_t(there ? page : 0) * c.cache.kvHeads + kvHead) * slotBytes;
      const uint32_t to = ring + slot * slotBytes;
#if __CUDA_ARCH__ >= 900
      if (lane == 0) {
        const uint32_t barrier = sharedAddress(full + warp * stages + slot);
        barrierExpect(barrier, slotBytes + nothing);
        bulkLoad(to, from, slotBytes, barrier);
      }
#else
      for (int b = lane * 16; b < slotBytes; b += 32 * 16) copyAsync16(to + b + nothing, from + b);
#endif
    }
#if __CUDA_ARCH__ < 900
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
    filled++;
  };
  for (int i = 0; i < stages; i++) fill(i, 0);

  // ---- this token's rows: norm, rotation ------------------------------------------------------------------------------------------
  const int d0 = lane * kLane;
  float qWeight[kLane], kWeight[kLane], cosine[kLane], sine[kLane];
  const float* const angles = x.rotary.p ? x.rotary.row(first) : nullptr;
  const int half = x.rotary.half;
#pragma unroll
  for (int i = 0; i < kLane; i++) {
    const int d = d0 + i;
    qWeight[i] = x.qNorm.weight && d < c.cache.keyDim ? loadElement(x.qNorm.type, x.qNorm.weight, d) : 0.f;
    kWeight[i] = owner && x.kNorm.weight && d < c.cache.keyDim ? loadElement(x.kNorm.type, x.kNorm.weight, d) : 0.f;
    cosine[i] = 1.f, sine[i] = 0.f;
    if (angles && d < 2 * half) {
      const int a = x.rotary.interleaved ? d / 2 : d < half ? d : d - half;
      const bool second = x.rotary.interleaved ? d & 1 : d >= half;
      cosine[i] = __ldg(angles + a), sine[i] = second ? __ldg(angles + half + a) : -__ldg(angles + half + a);
    }
  }
  float slopes[HeadTiles][2] = {};
  if (c.slopes)
#pragma unroll
    for (int n = 0; n < HeadTiles; n++)
#pragma unroll
      for (int e = 0; e < 2; e++) slopes[n][e] = n * 8 + 2 * t + e < heads ? c.slopes[head0 + n * 8 + 2 * t + e] * kLog2e : 0.f;
  if (plan.settled) pdlWait();

  const int staged = heads + (owner ? 2 : 0);
  for (int base = warp; base < staged; base += kStaged * warps) {
    Vec<T, kLane> raw[kStaged];
#pragma unroll
    for (int r = 0; r < kStaged; r++) {
      const int row = base + r * warps;
      const bool isQ = row < heads, isV = row == heads + 1;
      const HeadRows& rows = isQ ? x.q : isV ? x.v : x.k;
      if (row < staged && d0 < rows.dim)
        raw[r] = *reinterpret_cast<const Vec<T, kLane>*>(reinterpret_cast<const T*>(rows.p) + first * rows.stride + int64_t(isQ ? head0 + row : kvHead) * rows.dim + d0);
      else
#pragma unroll
        for (int i = 0; i < kLane; i++) raw[r].v[i] = fromFloat<T>(0.f);
    }
#pragma unroll
    for (int r = 0; r < kStaged; r++) {
      const int row = base + r * warps;
      if (row >= staged) break;
      const bool isQ = row < heads, isV = row == heads + 1;
      float f[kLane];
#pragma unroll
      for (int i = 0; i < kLane; i++) f[i] = toFloat(raw[r].v[i]);
      if (!isV && (isQ ? x.qNorm.weight : x.kNorm.weight)) {
        float squares = 0;
#pragma unroll
        for (int i = 0; i < kLane; i++) squares = fmaf(f[i], f[i], squares);
        const float factor = rsqrtf(warpSum(squares) / c.cache.keyDim + x.eps);
#pragma unroll
        for (int i = 0; i < kLane; i++) f[i] *= factor * ((isQ ? qWeight[i] : kWeight[i]) + x.offset);
      }
      if (!isV && angles) {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < kLane; i++) turned[d0 + i] = f[i];
        __syncwarp();
#pragma unroll
        for (int i = 0; i < kLane; i++) {
          const int d = d0 + i, other = x.rotary.interleaved ? d ^ 1 : d < half ? d + half : d - half;
          if (d < 2 * half) f[i] = fmaf(f[i], cosine[i], turned[other] * sine[i]);
        }
      }
      Vec<T, kLane> out;
#pragma unroll
      for (int i = 0; i < kLane; i++) out.v[i] = fromFloat<T>(f[i]);
      *reinterpret_cast<Vec<T, kLane>*>((isQ ? queries + row * kQueryRow : isV ? fresh + D : fresh) + d0) = out;
    }
  }
  __syncthreads();

  const int keyChunks = keySteps * 2, freshChunks = keyChunks + valueSteps * 2;
  auto freshChunk = [&](int i) { return *reinterpret_cast<const uint4*>(i < keyChunks ? fresh + i * 8 : fresh + D + (i - keyChunks) * 8); };
  auto placeOf = [&](int i, int token) { return i < keyChunks ? keyRows.chunk(token, i) : keyRows.bytes() + valueRows.chunk(token, i - keyChunks); };
  if (owner && blockIdx.y % plan.headTiles == 0) {
    const int64_t place = x.slots[first];
    if (place >= 0 && place < c.cache.pages * kPageTokens)
      for (int i = tid; i < freshChunks; i += threads)
        *reinterpret_cast<uint4*>(c.cache.head(place / kPageTokens, kvHead) + placeOf(i, int(place % kPageTokens))) = freshChunk(i);
  }

  // ---- the context ----------------------------------------------------------------------------------------------------------------
  uint32_t q[kSteps][HeadTiles][2];
#pragma unroll
  for (int i = 0; i < kSteps; i++)
#pragma unroll
    for (int n = 0; n < HeadTiles; n++)
#pragma unroll
      for (int h = 0; h < 2; h++) q[i][n][h] = *reinterpret_cast<const uint32_t*>(queries + (n * 8 + g) * kQueryRow + i * 16 + h * 8 + t * 2);
  float sums[kSteps][HeadTiles][4] = {}, most[HeadTiles][2], total[HeadTiles][2];
#pragma unroll
  for (int n = 0; n < HeadTiles; n++) most[n][0] = most[n][1] = -INFINITY, total[n][0] = total[n][1] = 0.f;
  const float scale = c.softCap > 0 ? c.scale / c.softCap : c.scale * kLog2e, cap = c.softCap * kLog2e;
  // Of the matrices that a lane points at: keys as they lie (rows are tokens), values transposed (rows become dimensions).
  const int keyToken = (lane & 7) + (lane >> 3 & 1) * 8, keyChunk = lane >> 4;
  const int valueToken = (lane & 7) + (lane >> 4) * 8, valueChunk = lane >> 3 & 1;
  for (int j = 0; j < count; j++) {
#if __CUDA_ARCH__ >= 900
    barrierWait(sharedAddress(full + warp * stages + slot), phase);
#else
    static_assert(kMostDecodeStages == 3, "as many waits as there may be stages");
    if (stages == 3) asm volatile("cp.async.wait_group 2;" ::: "memory");
    else if (stages == 2) asm volatile("cp.async.wait_group 1;" ::: "memory");
    else asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncwarp();
#endif
    const int t0 = (firstPage + unit + j * stride) * kPageTokens;
    const int from = bad >> slot & 1 ? kPageTokens : max(oldest - t0, 0), to = min(length - t0, kPageTokens);
    const uint32_t keys = ring + slot * slotBytes, values = keys + keyRows.bytes();
    const bool newest = plan.fused && to == length - t0;
    if (newest || to < kPageTokens) {
      // Tokens that are not there yet: what lies there could be infinite, which times 0 is not 0.
      for (int i = lane; i < (kPageTokens - to) * valueSteps * 2; i += 32)
        storeShared16(values + valueRows.chunk(to + i / (valueSteps * 2), i % (valueSteps * 2)), make_uint4(0, 0, 0, 0));
      if (newest)
        for (int i = lane; i < freshChunks; i += 32) storeShared16(keys + placeOf(i, to - 1), freshChunk(i));
      __syncwarp();
    }
    float scores[HeadTiles][4] = {}, odd[HeadTiles][4] = {};  // two chains of products
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
      if (!Exact && i >= keySteps) break;
      const uint4 a = loadMatrices<false>(keys + keyRows.chunk(keyToken, 2 * i + keyChunk));
#pragma unroll
      for (int n = 0; n < HeadTiles; n++) mma<T>(i % 2 ? odd[n] : scores[n], a, q[i][n][0], q[i][n][1]);
    }
    uint32_t p[HeadTiles][2];
    bool grew = false;
    float shrink[HeadTiles][2];
#pragma unroll
    for (int n = 0; n < HeadTiles; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int token = g + (e >> 1) * 8;
        float v = (scores[n][e] + odd[n][e]) * scale;
        if (c.softCap > 0) v = cap * tanhf(v);
        if (c.slopes) v += slopes[n][e & 1] * float(t0 + token - length + 1);
        scores[n][e] = token >= from && token < to ? v : -INFINITY;
      }
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float m = fmaxf(scores[n][e], scores[n][e + 2]);
#pragma unroll
        for (int o = 4; o < 32; o *= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
        m = fmaxf(m, most[n][e]);
        grew |= m > most[n][e];
        const float base = m == -INFINITY ? 0.f : m;
        shrink[n][e] = exp2Fast(most[n][e] - base);
        most[n][e] = m;
        scores[n][e] = exp2Fast(scores[n][e] - base), scores[n][e + 2] = exp2Fast(scores[n][e + 2] - base);
        total[n][e] = fmaf(total[n][e], shrink[n][e], scores[n][e] + scores[n][e + 2]);
      }
      p[n][0] = transpose8x8(pack2<T>(scores[n][0], scores[n][1]));
      p[n][1] = transpose8x8(pack2<T>(scores[n][2], scores[n][3]));
    }
    if (__any_sync(~0u, grew)) {
#pragma unroll
      for (int i = 0; i < kSteps; i++)
#pragma unroll
        for (int n = 0; n < HeadTiles; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) sums[i][n][e] *= shrink[n][e & 1];
    }
    uint32_t least = ~0u;
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
      if (!Exact && i >= valueSteps) break;
      const uint4 a = loadMatrices<true>(values + valueRows.chunk(valueToken, 2 * i + valueChunk));
#pragma unroll
      for (int n = 0; n < HeadTiles; n++) mma<T>(sums[i][n], a, p[n][0], p[n][1]);
      least = min(least, __float_as_uint(sums[i][0][0]));
    }
    // The slot's next copy may not begin before its loads have ended, so it waits for all products: no sum has the bits of this NaN.
    __syncwarp();
    fill(slot, least == 0x7f800001u);
    if (++slot == stages) slot = 0, phase ^= 1;
  }

  // ---- the block's warps ----------------------------------------------------------------------------------------------------------
  float* const partial = reinterpret_cast<float*>(shared);                           // [warps][kHeads][kSumRow], where the ring was
  float2* const states = reinterpret_cast<float2*>(partial + warps * kHeads * kSumRow);  // [warps][kHeads]
  float2* const merged = states + warps * kHeads;                                    // [kHeads] of the block
  Part* const room = reinterpret_cast<Part*>(merged + kHeads);                       // [threads]
#pragma unroll
  for (int n = 0; n < HeadTiles; n++)
#pragma unroll
    for (int e = 0; e < 2; e++)
#pragma unroll
      for (int o = 4; o < 32; o *= 2) total[n][e] += __shfl_xor_sync(~0u, total[n][e], o);
  __syncthreads();
#pragma unroll
  for (int n = 0; n < HeadTiles; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int head = n * 8 + 2 * t + (e & 1);
      if (head >= heads) continue;
#pragma unroll
      for (int i = 0; i < kSteps; i++)
        if (Exact || i < valueSteps) partial[(warp * kHeads + head) * kSumRow + i * 16 + g + (e >> 1) * 8] = sums[i][n][e];
      if (g == 0 && e < 2) states[warp * kHeads + head] = make_float2(most[n][e], total[n][e]);
    }
  __syncthreads();
  // From here on a thread has items: four neighbouring dimensions of a head.
  const int valueDim = Exact ? D : c.cache.valueDim, headItems = valueDim / 4, items = heads * headItems;
  const int cluster = plan.cluster, rank = split % cluster, mine = split / cluster;
  const int outSize = c.outType == DType::f32 ? 4 : 2;
  const bool outWhole = ((reinterpret_cast<uintptr_t>(c.out) | c.outStride * outSize) & (4 * outSize - 1)) == 0;
  auto finish = [&](int item, const Part& part) {
    const int head = item / headItems, d = item % headItems * 4;
    float total = part.state.y;
    if (c.sinks && part.state.x != -INFINITY) total += exp2Fast(__ldg(c.sinks + head0 + head) * kLog2e - part.state.x);
    const float f = total > 0 ? 1.f / total : 0.f;
    const float v[4] = {part.value.x * f, part.value.y * f, part.value.z * f, part.value.w * f};
    const int64_t at = first * c.outStride + int64_t(head0 + head) * valueDim + d;
    if (!outWhole) {
      for (int i = 0; i < 4; i++) storeElement(c.outType, c.out, at + i, v[i]);
    } else if (c.outType == DType::f32) {
      *reinterpret_cast<float4*>(c.out + at * 4) = make_float4(v[0], v[1], v[2], v[3]);
    } else if (c.outType == DType::bf16) {
      *reinterpret_cast<uint2*>(c.out + at * 2) = make_uint2(pack2<bf16>(v[0], v[1]), pack2<bf16>(v[2], v[3]));
    } else {
      *reinterpret_cast<uint2*>(c.out + at * 2) = make_uint2(pack2<f16>(v[0], v[1]), pack2<f16>(v[2], v[3]));
    }
  };
  auto sumsAt = [&](int warp, int item) { return reinterpret_cast<float4*>(partial + (warp * kHeads + item / headItems) * kSumRow + item % headItems * 4); };
  auto ofBlock = [&](int item) {
    return mergeAll<4>(warps, [&](int w) { return Part{*sumsAt(w, item), states[w * kHeads + item / headItems]}; });
  };
  auto ofCluster = [&](int item) {
    if (cluster == 1) return ofBlock(item);
    return mergeAll<4>(cluster, [&](int r) { return Part{loadOfRank(sumsAt(0, item), r), loadOfRank(merged + item / headItems, r)}; });
  };
  // Each rank of a cluster ends a share of the items.
  const int per = (items + cluster - 1) / cluster, item0 = min(items, rank * per), share = min(items, item0 + per) - item0;
  if (cluster > 1) {
    for (int item = tid; item < items; item += threads) {
      const Part part = ofBlock(item);
      *sumsAt(0, item) = part.value;  // which only this thread has read
      if (item % headItems == 0) merged[item / headItems] = part.state;
    }
    clusterArrive(), clusterWait();
  }
  if (groups == 1) {
    for (int i = tid; i < share; i += threads) finish(item0 + i, ofCluster(item0 + i));
    if (cluster > 1) clusterArrive(), clusterWait();  // shared memory is there until everybody has read it
    return;
  }

  // ---- the groups of a (sequence, kv head), through scratch memory --------------------------------------------------------------------
  const int64_t work = int64_t(s) * gridDim.y + blockIdx.y;
  constexpr int kItems = kHeads * D / 4;
  float4* const valuesOf = plan.values + work * plan.groups * kItems + item0;
  float2* const statesOf = plan.states + work * plan.groups * kItems + item0;
  for (int i = tid; i < share; i += threads) {
    const Part part = ofCluster(item0 + i);
    __stcg(valuesOf + mine * kItems + i, part.value), __stcg(statesOf + mine * kItems + i, part.state);
  }
  if (cluster > 1) clusterArrive();
  __syncthreads();
  if (tid == 0) {
    unsigned int* const counter = plan.counters + work * cluster + rank;
    __threadfence();
    last = atomicAdd(counter, 1) == unsigned(groups - 1);
    if (last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  if (last) {
    // Threads beside those that have an item take some of its groups.
    const int lanes = share < threads ? min(groups, threads / max(share, 1)) : 1;
    for (int base = 0; base < share; base += threads) {
      const int i = lanes == 1 ? base + tid : tid % share, sub = lanes == 1 ? 0 : tid / share;
      Part part;
      if (i < share && sub < lanes)
        part = mergeAll<8>((groups - sub + lanes - 1) / lanes, [&](int j) {
          const int g = sub + j * lanes;
          return Part{__ldcg(valuesOf + g * kItems + i), __ldcg(statesOf + g * kItems + i)};
        });
      if (lanes > 1) {
        room[tid] = part;
        __syncthreads();
        if (sub == 0) part = mergeAll<4>(lanes, [&](int j) { return room[j * share + i]; });
      }
      if (i < share && sub == 0) finish(item0 + i, part);
    }
  }
  if (cluster > 1) clusterWait();
}

}  // namespace decode

/// Starts the kernel that `plan` was made for.
template <class T> void startDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan) {
  auto start = [&](auto kernel) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(plan.sharedBytes)), "attentionDecode");
    cudaLaunchAttribute attributes[2];
    int count = 0;
    if (c.pdl) {
      attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (plan.cluster > 1) {
      attributes[count].id = cudaLaunchAttributeClusterDimension;
      attributes[count++].val.clusterDim = {unsigned(plan.cluster), 1, 1};
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(unsigned(plan.cluster * plan.groups), unsigned(call.cache.kvHeads * plan.headTiles), unsigned(call.sequences));
    config.blockDim = dim3(unsigned(plan.warps * 32)), config.dynamicSmemBytes = plan.sharedBytes, config.stream = c.stream;
    config.attrs = attributes, config.numAttrs = unsigned(count);
    check(cudaLaunchKernelEx(&config, kernel, call, qkv, plan), "attentionDecode");
  };
  const bool two = plan.tileHeads == 16;
  if (plan.exact && plan.dim == 64) two ? start(decode::kernel<T, 64, 2, true>) : start(decode::kernel<T, 64, 1, true>);
  else if (plan.exact && plan.dim == 128) two ? start(decode::kernel<T, 128, 2, true>) : start(decode::kernel<T, 128, 1, true>);
  else if (plan.exact) start(decode::kernel<T, 256, 1, true>);
  else if (plan.dim == 128) two ? start(decode::kernel<T, 128, 2, false>) : start(decode::kernel<T, 128, 1, false>);
  else two ? start(decode::kernel<T, 256, 2, false>) : start(decode::kernel<T, 256, 1, false>);
}
