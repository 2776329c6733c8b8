// Attention of one query a sequence over the paged cache, on tensor cores (mma.sync), the context split over blocks.
//
// A warp takes whole pages: one bulk copy brings a head's keys and values of a page (2 to 16 KB) into the warp's own ring in
// shared memory, so nobody but the warp itself fills and empties it. The products are turned around, with tokens and dimensions
// as rows of 16 and the heads of the group as 8 columns: scores = keys · queryᵀ, out = valuesᵀ · probabilities. A group of 8
// heads or fewer costs half of what it does the other way round, and no accumulator is padding.
//
// Page i of a sequence belongs to split i mod splits; a split's pages go round its warps. The splits of a (sequence, kv head) are
// `cluster` blocks that merge through distributed shared memory, times `groups` of such clusters that merge through scratch
// memory: the last group to finish takes in the others, always in the same order.
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
/// A number at an address of this block's shared memory, in the block of another rank.
__device__ __forceinline__ float loadOfRank(const float* p, int rank) {
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  float v;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(sharedAddress(p)), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(there) : "memory");
  return v;
#else
  (void)rank;
  return *p;
#endif
}

/// D: the greatest head size, a multiple of 16; Exact: both head sizes are D. HeadTiles: of 8 heads.
template <class T, int D, int HeadTiles, bool Exact> __global__ void __launch_bounds__(kMostDecodeWarps * 32) kernel(AttentionCall c, QkvCall x, DecodePlan plan) {
  constexpr int kHeads = 8 * HeadTiles, kStages = kDecodeStages, kSteps = D / 16;
  constexpr int kLane = D / 32;                         // elements of a staged row that a lane holds
  constexpr int kStaged = (kHeads + 2 + 3) / 4;         // rows that a warp stages, of four warps or more
  constexpr int kSumRow = D + 4, kQueryRow = D + 8;     // free of bank conflicts
  extern __shared__ __align__(128) char shared[];
  __shared__ uint64_t full[kMostDecodeWarps * kStages];
  __shared__ bool last;
  pdlTrigger();
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane >> 2, t = lane & 3;
  const int threads = blockDim.x, warps = threads / 32;
  const int splits = gridDim.x, split = blockIdx.x, s = blockIdx.z;
  const int kvHead = blockIdx.y / plan.headTiles, group = int(c.heads) / c.cache.kvHeads;
  const int head0 = kvHead * group + blockIdx.y % plan.headTiles * kHeads;
  const int heads = min(kHeads, (kvHead + 1) * group - head0);
  const PageRows keyRows = Exact ? PageRows(D, 2) : c.cache.keys(), valueRows = Exact ? PageRows(D, 2) : c.cache.values();
  const int keySteps = Exact ? kSteps : keyRows.rowBytes / 32, valueSteps = Exact ? kSteps : valueRows.rowBytes / 32;
  const int slotBytes = keyRows.bytes() + valueRows.bytes();
  T* const queries = reinterpret_cast<T*>(shared + plan.ringBytes);  // [kHeads][kQueryRow]
  T* const fresh = queries + kHeads * kQueryRow;                     // [2][D] this token's key and value
  float* const turned = reinterpret_cast<float*>(fresh + 2 * D) + warp * D;
  const uint32_t ring = sharedAddress(shared) + warp * kStages * slotBytes;

  if (tid == 0) {
    for (int i = 0; i < warps * kStages; i++) barrierInit(sharedAddress(full + i), 1);
    barrierInitFence();
  }
  for (int e = tid; e < (kHeads - heads) * kQueryRow / 2; e += threads) reinterpret_cast<uint32_t*>(queries + heads * kQueryRow)[e] = 0;
  if (!plan.settled) pdlWait();

  // ---- which pages --------------------------------------------------------------------------------------------------------------
  const int stride = splits * warps, unit = warp * splits + split;
  const int32_t* const table = c.pageTables + s * c.tableStride;
  auto tableAt = [&](int page) { return page < c.maxPages ? __ldg(table + page) : -1; };
  int entry = c.window > 0 ? -1 : tableAt(unit + lane * stride);  // page numbers of 32 of this warp's pages, one a lane
  const int first = c.queryStarts[s], next = c.queryStarts[s + 1];
  const int length = int(min(int64_t(c.contextLengths[s]), c.maxPages * kPageTokens));
  const bool one = next - first == 1 && first >= 0 && first < c.tokens && length > 0;
  __syncthreads();
  if (!one) {
    if (plan.settled) pdlWait();
    return;
  }
  const int oldest = c.window > 0 && c.window < length ? length - int(c.window) : 0, firstPage = oldest / kPageTokens;
  if (c.window > 0) entry = tableAt(firstPage + unit + lane * stride);
  const int pages = (length - 1) / kPageTokens - firstPage + 1, count = pages > unit ? (pages - unit + stride - 1) / stride : 0;
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
        const uint32_t barrier = sharedAddress(full + warp * kStages + slot);
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
#pragma unroll
  for (int i = 0; i < kStages; i++) fill(i, 0);

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
    barrierWait(sharedAddress(full + warp * kStages + slot), phase);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 1) : "memory");
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
    float scores[HeadTiles][4] = {};
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
      if (!Exact && i >= keySteps) break;
      const uint4 a = loadMatrices<false>(keys + keyRows.chunk(keyToken, 2 * i + keyChunk));
#pragma unroll
      for (int n = 0; n < HeadTiles; n++) mma<T>(scores[n], a, q[i][n][0], q[i][n][1]);
    }
    uint32_t p[HeadTiles][2];
    bool grew = false;
    float shrink[HeadTiles][2];
#pragma unroll
    for (int n = 0; n < HeadTiles; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int token = g + (e >> 1) * 8;
        float v = scores[n][e] * scale;
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
    if (++slot == kStages) slot = 0, phase ^= 1;
  }

  // ---- the block's warps ----------------------------------------------------------------------------------------------------------
  float* const partial = reinterpret_cast<float*>(shared);        // [warps][kHeads][kSumRow], where the ring was
  float* const states = partial + warps * kHeads * kSumRow;       // [warps][kHeads] maximum, then [warps][kHeads] total
  float* const merged = states + 2 * warps * kHeads;              // [kHeads] maximum, [kHeads] total of the block
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
      if (g == 0 && e < 2) states[warp * kHeads + head] = most[n][e], states[(warps + warp) * kHeads + head] = total[n][e];
    }
  __syncthreads();
  const int valueDim = Exact ? D : c.cache.valueDim, elements = heads * valueDim;
  const int cluster = plan.cluster, rank = split % cluster;
  auto finish = [&](int head, int d, float most, float total, float value) {
    if (c.sinks && most != -INFINITY) total += exp2Fast(__ldg(c.sinks + head0 + head) * kLog2e - most);
    storeElement(c.outType, c.out, first * c.outStride + int64_t(head0 + head) * valueDim + d, total > 0 ? value / total : 0.f);
  };
  auto ofBlock = [&](int head, int d, float& m, float& l) {
    float v = 0;
    m = -INFINITY, l = 0;
    for (int w = 0; w < warps; w++) m = fmaxf(m, states[w * kHeads + head]);
    const float base = m == -INFINITY ? 0.f : m;
    for (int w = 0; w < warps; w++) {
      const float f = exp2Fast(states[w * kHeads + head] - base);
      l = fmaf(f, states[(warps + w) * kHeads + head], l), v = fmaf(f, partial[(w * kHeads + head) * kSumRow + d], v);
    }
    return v;
  };
  float m, l;
  if (splits == 1) {
    for (int e = tid; e < elements; e += threads) {
      const int head = e / valueDim, d = e % valueDim;
      const float v = ofBlock(head, d, m, l);
      finish(head, d, m, l, v);
    }
    return;
  }

  // ---- the cluster's blocks: each rank takes a share of the numbers -----------------------------------------------------------------
  for (int e = tid; e < elements; e += threads) {
    const int head = e / valueDim, d = e % valueDim;
    const float v = ofBlock(head, d, m, l);
    partial[head * kSumRow + d] = v;  // read by this thread alone, as warp 0's
    if (d == 0) merged[head] = m, merged[kHeads + head] = l;
  }
  if (cluster > 1) clusterArrive(), clusterWait();
  else __syncthreads();
  auto ofCluster = [&](int head, int d, float& m, float& l) {
    float most[kMostDecodeCluster], total[kMostDecodeCluster], value[kMostDecodeCluster], v = 0;
    m = -INFINITY, l = 0;
#pragma unroll
    for (int r = 0; r < kMostDecodeCluster; r++)
      if (r < cluster) {
        most[r] = loadOfRank(merged + head, r), total[r] = loadOfRank(merged + kHeads + head, r);
        value[r] = loadOfRank(partial + head * kSumRow + d, r);
      }
#pragma unroll
    for (int r = 0; r < kMostDecodeCluster; r++)
      if (r < cluster) m = fmaxf(m, most[r]);
    const float base = m == -INFINITY ? 0.f : m;
#pragma unroll
    for (int r = 0; r < kMostDecodeCluster; r++)
      if (r < cluster) {
        const float f = exp2Fast(most[r] - base);
        l = fmaf(f, total[r], l), v = fmaf(f, value[r], v);
      }
    return v;
  };
  if (splits == cluster) {
    for (int e = rank * threads + tid; e < elements; e += cluster * threads) {
      const int head = e / valueDim, d = e % valueDim;
      const float v = ofCluster(head, d, m, l);
      finish(head, d, m, l, v);
    }
    clusterArrive(), clusterWait();  // shared memory is there until everybody has read it
    return;
  }

  // ---- the groups of a (sequence, kv head), through scratch memory --------------------------------------------------------------------
  const int groups = splits / cluster, mine = split / cluster;
  const int64_t work = int64_t(s) * gridDim.y + blockIdx.y;
  float* const sumsOf = plan.sums + work * groups * (kHeads * D);
  float2* const statesOf = plan.states + (work * cluster + rank) * groups * kHeads;
  for (int e = rank * threads + tid; e < elements; e += cluster * threads) {
    const int head = e / valueDim, d = e % valueDim;
    __stcg(sumsOf + mine * (kHeads * D) + e, ofCluster(head, d, m, l));
  }
  if (tid < heads) {
    ofCluster(tid, 0, m, l);
    __stcg(statesOf + mine * kHeads + tid, make_float2(m, l));
  }
  if (cluster > 1) clusterArrive();
  __threadfence();
  __syncthreads();
  if (tid == 0) {
    unsigned int* const counter = plan.counters + work * cluster + rank;
    last = atomicAdd(counter, 1) == unsigned(groups - 1);
    if (last) *counter = 0;
  }
  __syncthreads();
  if (last) {
    __threadfence();
    for (int e = rank * threads + tid; e < elements; e += cluster * threads) {
      const int head = e / valueDim, d = e % valueDim;
      float v = 0;
      m = -INFINITY, l = 0;
#pragma unroll 8
      for (int i = 0; i < groups; i++) {
        const float2 state = __ldcg(statesOf + i * kHeads + head);
        const float value = __ldcg(sumsOf + i * (kHeads * D) + e);
        const float n = fmaxf(m, state.x), base = n == -INFINITY ? 0.f : n;
        const float old = exp2Fast(m - base), f = exp2Fast(state.x - base);
        l = fmaf(f, state.y, l * old), v = fmaf(f, value, v * old), m = n;
      }
      finish(head, d, m, l, v);
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
