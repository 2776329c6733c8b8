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
#include "attention_decode_parts.cuh"
#include "attention_decode_plan.h"

namespace decode {

/// T: bf16 or f16, what is multiplied; C: the cache's type, T or an 8-bit float (T is f16 then). D: the greatest head size, a
/// multiple of 32; Exact: both head sizes are D. HeadTiles: of 8 heads. 128 registers for the common sizes: with more no block
/// starts beside one of the linears before and after it.
template <class T, class C, int D, int HeadTiles, bool Exact>
__global__ void __launch_bounds__(kMostDecodeWarps * 32, D * HeadTiles <= 128 ? 2 : 1) kernel(AttentionCall c, QkvCall x, DecodePlan plan) {
  constexpr int kHeads = 8 * HeadTiles, kSteps = D / 16;
  constexpr bool kBytes = sizeof(C) == 1;
  constexpr int kLane = D / 32;                         // elements of a staged row that a lane holds
  constexpr int kStaged = (kHeads + 2 + 3) / 4;         // rows that a warp stages, of four warps or more
  constexpr int kSumRow = D + 4, kQueryRow = D + 8;     // free of bank conflicts
  extern __shared__ __align__(128) char shared[];
  __shared__ uint64_t full[kMostDecodeWarps * kMostDecodeStages];
  __shared__ bool last;
  if (!plan.late) pdlTrigger();
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane >> 2, t = lane & 3;
  const int threads = blockDim.x, warps = threads / 32;
  const int stages = plan.stages, split = blockIdx.x, s = blockIdx.z;
  const int kvHead = blockIdx.y / plan.headTiles, group = int(c.heads) / c.cache.kvHeads;
  const int head0 = kvHead * group + blockIdx.y % plan.headTiles * kHeads;
  const int heads = min(kHeads, (kvHead + 1) * group - head0);
  const PageRows keyRows = Exact ? PageRows(D, sizeof(C)) : c.cache.keys(), valueRows = Exact ? PageRows(D, sizeof(C)) : c.cache.values();
  const int keySteps = Exact ? kSteps : keyRows.rowBytes / int(16 * sizeof(C)), valueSteps = Exact ? kSteps : valueRows.rowBytes / int(16 * sizeof(C));
  const int slotBytes = keyRows.bytes() + valueRows.bytes();
  const ChunkPlace keyPlace(keyRows), valuePlace(valueRows);
  T* const queries = reinterpret_cast<T*>(shared + plan.ringBytes);  // [kHeads][kQueryRow]
  C* const fresh = reinterpret_cast<C*>(queries + kHeads * kQueryRow);  // [2][D] this token's key and value
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
  auto tableAt = [&](int page) { return page < c.maxPages ? table[page] : -1; };
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
  const int64_t place = owner && blockIdx.y % plan.headTiles == 0 ? x.slots[first] : -1;

  int slot = 0, phase = 0, filled = 0, bad = 0;  // bad: slots whose page is outside the cache, a bit each
  auto fill = [&](int slot, int nothing) {
    if (filled < count) {
      if (filled > 0 && filled % 32 == 0) entry = tableAt(firstPage + unit + (filled + lane) * stride);
      const int page = __shfl_sync(~0u, entry, filled % 32);
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
    if (plan.late && filled >= count) pdlTrigger();  // what follows may take the memory's time from here on
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
    Vec<uint16_t, kLane> raw[kStaged];
#pragma unroll
    for (int r = 0; r < kStaged; r++) {
      const int row = base + r * warps;
      const bool isQ = row < heads, isV = row == heads + 1;
      const HeadRows& rows = isQ ? x.q : isV ? x.v : x.k;
      if (row < staged && d0 < rows.dim)
        raw[r] = *reinterpret_cast<const Vec<uint16_t, kLane>*>(reinterpret_cast<const uint16_t*>(rows.p) + first * rows.stride + int64_t(isQ ? head0 + row : kvHead) * rows.dim + d0);
      else
#pragma unroll
        for (int i = 0; i < kLane; i++) raw[r].v[i] = 0;
    }
#pragma unroll
    for (int r = 0; r < kStaged; r++) {
      const int row = base + r * warps;
      if (row >= staged) break;
      const bool isQ = row < heads, isV = row == heads + 1;
      float f[kLane];
#pragma unroll
      for (int i = 0; i < kLane; i++)
        f[i] = (isQ ? x.q : isV ? x.v : x.k).type == DType::bf16 ? __uint_as_float(uint32_t(raw[r].v[i]) << 16) : __half2float(__ushort_as_half(raw[r].v[i]));
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
      if (isQ) {
        Vec<T, kLane> out;
#pragma unroll
        for (int i = 0; i < kLane; i++) out.v[i] = fromFloat<T>(f[i]);
        *reinterpret_cast<Vec<T, kLane>*>(queries + row * kQueryRow + d0) = out;
      } else {
        Vec<C, kLane> out;
#pragma unroll
        for (int i = 0; i < kLane; i++) out.v[i] = toCache<C>(f[i]);
        *reinterpret_cast<Vec<C, kLane>*>(fresh + (isV ? D : 0) + d0) = out;
      }
    }
  }
  __syncthreads();

  const int keyChunks = keyRows.rowBytes / 16, valueChunks = valueRows.rowBytes / 16, freshChunks = keyChunks + valueChunks;
  auto freshChunk = [&](int i) { return *reinterpret_cast<const uint4*>(i < keyChunks ? fresh + i * (16 / sizeof(C)) : fresh + D + (i - keyChunks) * (16 / sizeof(C))); };
  auto placeOf = [&](int i, int token) { return i < keyChunks ? keyPlace(token, i) : keyRows.bytes() + valuePlace(token, i - keyChunks); };
  if (place >= 0 && place < c.cache.pages * kPageTokens)
    for (int i = tid; i < freshChunks; i += threads)
      *reinterpret_cast<uint4*>(c.cache.head(place / kPageTokens, kvHead) + placeOf(i, int(place % kPageTokens))) = freshChunk(i);

  // ---- the context ----------------------------------------------------------------------------------------------------------------
  uint32_t q[kSteps][HeadTiles][2];
#pragma unroll
  for (int i = 0; i < kSteps; i++)
#pragma unroll
    for (int n = 0; n < HeadTiles; n++)
#pragma unroll
      for (int h = 0; h < 2; h++) q[i][n][h] = *reinterpret_cast<const uint32_t*>(queries + (n * 8 + g) * kQueryRow + i * 16 + (kBytes ? t * 4 + h * 2 : h * 8 + t * 2));
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
      for (int i = lane; i < (kPageTokens - to) * valueChunks; i += 32)
        storeShared16(values + valuePlace(to + i / valueChunks, i % valueChunks), make_uint4(0, 0, 0, 0));
      if (newest)
        for (int i = lane; i < freshChunks; i += 32) storeShared16(keys + placeOf(i, to - 1), freshChunk(i));
      __syncwarp();
    }
    float scores[HeadTiles][4] = {}, odd[HeadTiles][4] = {};  // two chains of products
#pragma unroll
    for (int i = 0; i < kSteps; i += kBytes ? 2 : 1) {
      if (!Exact && i >= keySteps) break;
      const uint4 words = loadMatrices<false>(keys + keyPlace(keyToken, (kBytes ? i : 2 * i) + keyChunk));
      uint4 a[2] = {words, words};
      if constexpr (kBytes) keyOperands<C>(words, a);
#pragma unroll
      for (int h = 0; h < (kBytes ? 2 : 1); h++)
#pragma unroll
        for (int n = 0; n < HeadTiles; n++) mma<T>((i + h) % 2 ? odd[n] : scores[n], a[h], q[i + h][n][0], q[i + h][n][1]);
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
    for (int i = 0; i < kSteps; i += kBytes ? 2 : 1) {
      if (!Exact && i >= valueSteps) break;
      const uint4 words = loadMatrices<true>(values + valuePlace(valueToken, (kBytes ? i : 2 * i) + valueChunk));
      uint4 a[2] = {words, words};
      if constexpr (kBytes) valueOperands<C>(words, a);
#pragma unroll
      for (int h = 0; h < (kBytes ? 2 : 1); h++) {
#pragma unroll
        for (int n = 0; n < HeadTiles; n++) mma<T>(sums[i + h][n], a[h], p[n][0], p[n][1]);
        least = min(least, __float_as_uint(sums[i + h][0][0]));
      }
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
        if (Exact || i < valueSteps) partial[(warp * kHeads + head) * kSumRow + i * 16 + (kBytes ? 2 * g + (e >> 1) : g + (e >> 1) * 8)] = sums[i][n][e];
      if (g == 0 && e < 2) states[warp * kHeads + head] = make_float2(most[n][e], total[n][e]);
    }
  __syncthreads();
  // Items: four neighbouring dimensions of a head.
  const int valueDim = Exact ? D : c.cache.valueDim, headItems = valueDim / 4, items = heads * headItems;
  const int cluster = plan.cluster, rank = split % cluster, mine = split / cluster, outSize = c.outType == DType::f32 ? 4 : 2;
  const bool outWhole = ((reinterpret_cast<uintptr_t>(c.out) | c.outStride * outSize) & (4 * outSize - 1)) == 0;
  auto finish = [&](int item, const Part& part) {
    const int head = item / headItems, d = item % headItems * 4;
    float total = part.state.y;
    if (c.sinks && part.state.x != -INFINITY) total += exp2Fast(__ldg(c.sinks + head0 + head) * kLog2e - part.state.x);
    const float f = total > 0 ? 1.f / total : 0.f;
    const float v[4] = {part.value.x * f, part.value.y * f, part.value.z * f, part.value.w * f};
    storeFour(c.outType, c.out, first * c.outStride + int64_t(head0 + head) * valueDim + d, outWhole, v);
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
