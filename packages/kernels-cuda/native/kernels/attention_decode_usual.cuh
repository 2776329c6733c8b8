// Decode attention as steps ask for it most often (attention_decode.cuh in shorter code): fused with norms, rotary embedding and
// cache write, one type, heads of 64 or 128, groups of up to 8, one cluster of blocks a kv head. Every phase lies on the step's
// chain of dependent kernels, and runs its code for the first time since other kernels were there.
#pragma once
#include "attention_decode_parts.cuh"
#include "attention_decode_plan.h"

namespace decode {

struct UsualCall {
  char* cache;                   // pages of T, keys and values of D dimensions
  int pages, kvHeads;
  char* out;                     // T
  const char *q, *k, *v;         // T
  int outStride, qStride, kStride, vStride, tokens, group;
  const char *qNorm, *kNorm;     // T [D]
  float eps, offset, scale;      // scale: of scores in powers of 2
  const float* angles;
  int angleRows, angleStride;
  const int32_t *positions, *slots, *starts, *lengths, *tables;
  int tableStride, maxPages;
  int warpShift, clusterShift, stages;
  bool late;
};

template <class T> __device__ __forceinline__ float2 unpack2(uint32_t v);
template <> __device__ __forceinline__ float2 unpack2<bf16>(uint32_t v) { return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u)); }
template <> __device__ __forceinline__ float2 unpack2<f16>(uint32_t v) { return __half22float2(*reinterpret_cast<const __half2*>(&v)); }

template <class T, int D, bool NORM> __global__ void __launch_bounds__(kMostDecodeWarps * 32, 2) usual(const __grid_constant__ UsualCall a) {
#if __CUDA_ARCH__ >= 900
  constexpr int kSteps = D / 16, kPairs = D / 64;  // kPairs: words of two elements of a row that a lane holds
  constexpr int kSumRow = D + 4, kQueryRow = D + 8, kChunks = D / 8, kSide = kPageTokens * D * 2, kSlot = 2 * kSide;
  constexpr PageRows rows(D, 2);
  using Words = Vec<uint32_t, kPairs>;
  extern __shared__ __align__(128) char shared[];
  __shared__ uint64_t full[kMostDecodeWarps * kMostDecodeStages];
  __shared__ __align__(16) T queries[8 * kQueryRow];
  __shared__ __align__(16) T fresh[2 * D];
  __shared__ float2 states[kMostDecodeWarps * 8], merged[8];
  if (!a.late) pdlTrigger();
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, t = lane & 3;
  const int split = blockIdx.x, kvHead = blockIdx.y, s = blockIdx.z, warps = 1 << a.warpShift, cluster = 1 << a.clusterShift;
  const int strideShift = a.warpShift + a.clusterShift, stride = 1 << strideShift, unit = (warp << a.clusterShift) + split;

  // Everything that does not depend on anything, asked for at once. A batch of single tokens has token s in sequence s.
  const int32_t* const table = a.tables + s * a.tableStride;
  auto tableAt = [&](int page) { return page < a.maxPages ? __ldg(table + page) : -1; };
  int entry = tableAt(unit + (lane << strideShift));
  const int first = __ldg(a.starts + s), next = __ldg(a.starts + s + 1), long0 = __ldg(a.lengths + s);
  int position = s < a.tokens ? __ldg(a.positions + s) : -1, place = s < a.tokens ? __ldg(a.slots + s) : -1;
  Words qWeight, kWeight;
  if (NORM) qWeight = *reinterpret_cast<const Words*>(a.qNorm + lane * kPairs * 4), kWeight = *reinterpret_cast<const Words*>(a.kNorm + lane * kPairs * 4);
  const uint32_t barrier = sharedAddress(full + warp * kMostDecodeStages), ring = sharedAddress(shared) + warp * a.stages * kSlot;
  if (lane < a.stages) barrierInit(barrier + lane * 8, 1);
  barrierInitFence();
  for (int e = tid + a.group * kQueryRow / 2; e < 8 * kQueryRow / 2; e += blockDim.x) reinterpret_cast<uint32_t*>(queries)[e] = 0;
  __syncwarp();

  const int length = min(long0, a.maxPages * kPageTokens), pages = (length + kPageTokens - 1) / kPageTokens;
  if (next - first != 1 || first < 0 || first >= a.tokens || length <= 0) {
    pdlWait();
    return;
  }
  if (first != s) position = __ldg(a.positions + first), place = __ldg(a.slots + first);
  const bool owner = ((pages - 1) & (cluster - 1)) == split;  // the block that has the last page
  const int count = pages > unit ? (pages - unit + stride - 1) >> strideShift : 0;
  const bool turned = position >= 0 && position < a.angleRows;
  // cos and sin of the lane's dimensions; the lane 16 further has the other half of each pair.
  float cosine[2 * kPairs], sine[2 * kPairs];
#pragma unroll
  for (int i = 0; i < 2 * kPairs; i++) {
    const float* const at = a.angles + int64_t(turned ? position : 0) * a.angleStride + (lane & 15) * 2 * kPairs + i;
    cosine[i] = __ldg(at), sine[i] = __ldg(at + D / 2);
  }
  int slot = 0, phase = 0, filled = 0, bad = 0;  // bad: slots whose page is outside the cache, a bit each
  auto fill = [&](int slot, int nothing) {
    if (filled < count) {
      if (filled > 0 && filled % 32 == 0) entry = tableAt(unit + ((filled + lane) << strideShift));
      const int page = __shfl_sync(~0u, entry, filled % 32);
      const bool there = page >= 0 && page < a.pages;
      bad = there ? bad & ~(1 << slot) : bad | 1 << slot;
      if (lane == 0) {
        barrierExpect(barrier + slot * 8, kSlot + nothing);
        bulkLoad(ring + slot * kSlot, a.cache + (int64_t(there ? page : 0) * a.kvHeads + kvHead) * kSlot, kSlot, barrier + slot * 8);
      }
    }
    filled++;
    if (a.late && filled >= count) pdlTrigger();
  };
#pragma unroll 1
  for (int i = 0; i < a.stages; i++) fill(i, 0);
  pdlWait();

  // ---- this token's rows: norm, rotation -----------------------------------------------------------------------------------------
#pragma unroll 1
  for (int row = warp; row < a.group + (owner ? 2 : 0); row += warps) {
    const bool isQ = row < a.group, isV = row > a.group;
    const char* const from = isQ ? a.q + (int64_t(first) * a.qStride + (kvHead * a.group + row) * D) * 2 : (isV ? a.v : a.k) + (int64_t(first) * (isV ? a.vStride : a.kStride) + kvHead * D) * 2;
    Words w;
    if (kPairs == 2) {
      const uint2 u = __ldcg(reinterpret_cast<const uint2*>(from) + lane);
      w.v[0] = u.x, w.v[kPairs - 1] = u.y;
    } else w.v[0] = __ldcg(reinterpret_cast<const unsigned int*>(from) + lane);
    if (!isV) {
      float f[2 * kPairs];
#pragma unroll
      for (int i = 0; i < kPairs; i++) {
        const float2 u = unpack2<T>(w.v[i]);
        f[2 * i] = u.x, f[2 * i + 1] = u.y;
      }
      if (NORM) {
        float squares = 0;
#pragma unroll
        for (int i = 0; i < 2 * kPairs; i++) squares = fmaf(f[i], f[i], squares);
        const float factor = rsqrtf(warpSum(squares) * (1.f / D) + a.eps);
#pragma unroll
        for (int i = 0; i < kPairs; i++) {
          const float2 u = unpack2<T>(isQ ? qWeight.v[i] : kWeight.v[i]);
          f[2 * i] *= factor * (u.x + a.offset), f[2 * i + 1] *= factor * (u.y + a.offset);
        }
      }
#pragma unroll
      for (int i = 0; i < 2 * kPairs; i++) {
        const float other = __shfl_xor_sync(~0u, f[i], 16);
        if (turned) f[i] = fmaf(f[i], cosine[i], lane < 16 ? -other * sine[i] : other * sine[i]);
      }
#pragma unroll
      for (int i = 0; i < kPairs; i++) w.v[i] = pack2<T>(f[2 * i], f[2 * i + 1]);
    }
    if (isQ) *reinterpret_cast<Words*>(queries + row * kQueryRow + lane * 2 * kPairs) = w;
    else {
      *reinterpret_cast<Words*>(fresh + (isV ? D : 0) + lane * 2 * kPairs) = w;
      if (place >= 0 && place < a.pages * kPageTokens)
        *reinterpret_cast<Words*>(a.cache + (int64_t(place / kPageTokens) * a.kvHeads + kvHead) * kSlot + (isV ? kSide : 0) + rows.offset(place % kPageTokens, lane * 2 * kPairs, 2)) = w;
    }
  }
  __syncthreads();

  // ---- the context ----------------------------------------------------------------------------------------------------------------
  uint4 q[kSteps / 2];
#pragma unroll
  for (int i = 0; i < kSteps / 2; i++) q[i] = loadMatrices<false>(sharedAddress(queries + (lane & 7) * kQueryRow + i * 32 + (lane >> 3) * 8));
  float sums[kSteps][4] = {}, most[2] = {-INFINITY, -INFINITY}, total[2] = {};
  const int keyToken = (lane & 7) + (lane >> 3 & 1) * 8, keyChunk = lane >> 4;
  const int valueToken = (lane & 7) + (lane >> 4) * 8, valueChunk = lane >> 3 & 1;
#pragma unroll 1
  for (int j = 0; j < count; j++) {
    barrierWait(barrier + slot * 8, phase);
    const int t0 = (unit + (j << strideShift)) * kPageTokens, to = min(length - t0, kPageTokens);
    const bool wrong = bad >> slot & 1;
    const uint32_t keys = ring + slot * kSlot, values = keys + kSide;
    if (to == length - t0) {
      // The newest page: tokens that are not there yet could hold infinities, which times 0 are not 0; this token's rows come in.
      for (int i = lane; i < (kPageTokens - to) * kChunks; i += 32) storeShared16(values + rows.chunk(to + i / kChunks, i % kChunks), make_uint4(0, 0, 0, 0));
      if (lane < 2 * kChunks) {
        const uint4 chunk = reinterpret_cast<const uint4*>(fresh)[lane];
        storeShared16(lane < kChunks ? keys + rows.chunk(to - 1, lane) : values + rows.chunk(to - 1, lane - kChunks), chunk);
      }
      __syncwarp();
    }
    float scores[4] = {}, odd[4] = {};  // two chains of products
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
      const uint4 k = loadMatrices<false>(keys + rows.chunk(keyToken, 2 * i + keyChunk));
      if (i % 2) mma<T>(odd, k, q[i / 2].z, q[i / 2].w);
      else mma<T>(scores, k, q[i / 2].x, q[i / 2].y);
    }
    float shrink[2];
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int token = g + (e >> 1) * 8;
      scores[e] = token < to && !wrong ? (scores[e] + odd[e]) * a.scale : -INFINITY;
    }
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float m = fmaxf(scores[e], scores[e + 2]);
#pragma unroll
      for (int o = 4; o < 32; o *= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
      m = fmaxf(m, most[e]);
      const float base = m == -INFINITY ? 0.f : m;
      shrink[e] = exp2Fast(most[e] - base);
      most[e] = m;
      scores[e] = exp2Fast(scores[e] - base), scores[e + 2] = exp2Fast(scores[e + 2] - base);
      total[e] = fmaf(total[e], shrink[e], scores[e] + scores[e + 2]);
    }
    const uint32_t p0 = transpose8x8(pack2<T>(scores[0], scores[1])), p1 = transpose8x8(pack2<T>(scores[2], scores[3]));
    uint32_t least = ~0u;
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
#pragma unroll
      for (int e = 0; e < 4; e++) sums[i][e] *= shrink[e & 1];
      mma<T>(sums[i], loadMatrices<true>(values + rows.chunk(valueToken, 2 * i + valueChunk)), p0, p1);
      least = min(least, __float_as_uint(sums[i][0]));
    }
    // The slot's next copy waits for all products of what it held: no sum has the bits of this NaN.
    __syncwarp();
    fill(slot, least == 0x7f800001u);
    if (++slot == a.stages) slot = 0, phase ^= 1;
  }

  // ---- warps, blocks of the cluster -----------------------------------------------------------------------------------------------
  float* const partial = reinterpret_cast<float*>(shared);  // a warp's sums lie where its ring was
  const int partialFloats = a.stages * kSlot / 4;
#pragma unroll
  for (int e = 0; e < 2; e++)
#pragma unroll
    for (int o = 4; o < 32; o *= 2) total[e] += __shfl_xor_sync(~0u, total[e], o);
#pragma unroll
  for (int e = 0; e < 4; e++) {
    const int head = 2 * t + (e & 1);
    if (head >= a.group) continue;
    float* const to = partial + warp * partialFloats + head * kSumRow + g + (e >> 1) * 8;
#pragma unroll
    for (int i = 0; i < kSteps; i++) to[i * 16] = sums[i][e];
    if (g == 0 && e < 2) states[warp * 8 + head] = make_float2(most[e], total[e]);
  }
  __syncthreads();
  constexpr int kItems = D / 4;  // four neighbouring dimensions of a head
  auto sumsAt = [&](int w, int item) { return reinterpret_cast<float4*>(partial + w * partialFloats + item / kItems * kSumRow + item % kItems * 4); };
  auto ofBlock = [&](int item) {
    Part parts[kMostDecodeWarps];
#pragma unroll
    for (int w = 0; w < kMostDecodeWarps; w++)
      parts[w] = w < warps ? Part{*sumsAt(w, item), states[w * 8 + item / kItems]} : Part{make_float4(0, 0, 0, 0), make_float2(-INFINITY, 0)};
    return merge(parts);
  };
  auto finish = [&](int item, const Part& part) {
    const float f = part.state.y > 0 ? 1.f / part.state.y : 0.f;
    *reinterpret_cast<uint2*>(a.out + (int64_t(first) * a.outStride + kvHead * a.group * D + item * 4) * 2) =
        make_uint2(pack2<T>(part.value.x * f, part.value.y * f), pack2<T>(part.value.z * f, part.value.w * f));
  };
  const int items = a.group * kItems;
  if (cluster == 1) {
    for (int item = tid; item < items; item += blockDim.x) finish(item, ofBlock(item));
    return;
  }
  for (int item = tid; item < items; item += blockDim.x) {
    const Part part = ofBlock(item);
    *sumsAt(0, item) = part.value;  // which only this thread has read
    if (item % kItems == 0) merged[item / kItems] = part.state;
  }
  clusterArrive(), clusterWait();
  // Each rank ends a share of the items.
  const int per = (items + cluster - 1) >> a.clusterShift, item0 = split * per;
  for (int item = item0 + tid; item < min(items, item0 + per); item += blockDim.x) {
    Part parts[kMostDecodeCluster];
#pragma unroll
    for (int r = 0; r < kMostDecodeCluster; r++)
      parts[r] = r < cluster ? Part{loadOfRank(sumsAt(0, item), r), loadOfRank(merged + item / kItems, r)} : Part{make_float4(0, 0, 0, 0), make_float2(-INFINITY, 0)};
    finish(item, merge(parts));
  }
  clusterArrive(), clusterWait();  // shared memory is there until everybody has read it
#endif
}

}  // namespace decode
