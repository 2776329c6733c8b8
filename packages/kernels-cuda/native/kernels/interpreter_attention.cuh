// Attention of the interpreter: one query over a paged cache. The context is split over blocks; norm, rotation and cache write are its
// prologue, and the block of split 0 takes in what the others found. Keys and values of past tokens do not depend on the step:
// the feeding warp streams their pages through the ring of weights, long before the query is there.
#pragma once
#include "interpreter_product.cuh"

namespace interpreter {

/// Pages of past tokens and how they are shared; the same in every block.
struct Span {
  int past, pages, splits, each;  // each: pages of a split
  __device__ explicit Span(const Attention& a) {
    past = max(0, min(__ldg(a.length), a.maxPages * 16) - 1), pages = (past + 15) / 16;
    splits = max(1, min(a.splits, pages / a.splitPages)), each = (pages + splits - 1) / splits;
    if (each > 0) splits = (pages + each - 1) / each;
  }
};

template <int D> constexpr int kPageBytes = 2 * 16 * D * 2;
template <int D> constexpr int kSlotPages = kSlotBytes / kPageBytes<D>;

/// As bulkLoad, for what is read again in the next step and may stay in the L2.
__device__ __forceinline__ void bulkLoadKept(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

/// The feeding warp. absent: for each slot a bit for each page that is not in the cache.
template <int D> __device__ __forceinline__ void feedAttention(Ring& q, const Attention& a, uint32_t* absent) {
  const int lane = threadIdx.x & 31, kvHead = blockIdx.x / a.splits, split = blockIdx.x % a.splits;
  if (kvHead >= a.kvHeads) return;
  const Span span(a);
  if (split >= span.splits) return;
  const int end = min(span.pages, (split + 1) * span.each);
  for (int first = split * span.each; first < end; first += kSlotPages<D>) {
    const int count = min(kSlotPages<D>, end - first);
    const int page = lane < count ? __ldg(a.table + first + lane) : 0;
    const bool there = page >= 0 && page < a.pages;
    const uint32_t missing = __ballot_sync(~0u, !there), full = q.full + q.slot * 8;
    const char* const from = a.cache + (int64_t(there ? page : 0) * a.kvHeads + kvHead) * kPageBytes<D>;
    barrierWait(q.empty + q.slot * 8, q.phase ^ 1);
    if (lane == 0) {
      absent[q.slot] = missing;
      barrierExpect(full, count * kPageBytes<D>);
    }
    __syncwarp();
    if (lane < count) bulkLoadKept(q.here() + lane * kPageBytes<D>, from, kPageBytes<D>, full);
    q.next();
  }
}

template <bool Transposed> __device__ __forceinline__ uint4 loadMatrices(uint32_t p) {
  uint4 v;
  if (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(p) : "memory");
  else asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(p) : "memory");
  return v;
}
/// Of 8 rows of 8 numbers of 16 bits: rows become columns.
__device__ __forceinline__ uint32_t transposed(uint32_t v) {
  uint32_t r;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
  return r;
}
/// Where 16-byte chunk c of a token lies inside keys or values of a page: PageRows::chunk for rows of whole panels of 128 bytes.
template <int D> __device__ __forceinline__ uint32_t chunkAt(int token, int c) {
  return (token >> 3) * (8 * D * 2) + (c >> 3) * 1024 + ((token & 7) * 8 + ((c ^ token) & 7)) * 16;
}

/// Queries, and for split 0 key and value, of this token: normalised, turned, in shared memory; key and value in the cache.
template <int D>
__device__ __forceinline__ void stageHeads(const Attention& a, uint32_t base, int kvHead, int group, bool first, bf16* queries, float* key, float* value) {
  constexpr int kEach = D / 64;  // pairs (d, d + D / 2) of a lane
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int position = __ldg(a.position), slot = first ? __ldg(a.slot) : 0;
  const bool turned = position >= 0 && position < a.angleRows;
  for (int row = warp; row < group + (first ? 2 : 0); row += kConsumers) {
    const bool isQuery = row < group, isValue = row == group + 1;
    const unsigned short* const weights = static_cast<const unsigned short*>(isQuery ? a.qNorm : a.kNorm);
    float cosine[kEach], sine[kEach];
    unsigned short raw[2][kEach];  // converted after the wait: a conversion here would wait for memory first
#pragma unroll
    for (int i = 0; i < kEach; i++) {
      const int d = lane + i * 32;
      cosine[i] = 1, sine[i] = 0, raw[0][i] = raw[1][i] = 0;
      if (turned && !isValue) {
        cosine[i] = __ldg(a.angles + int64_t(position) * a.angleStride + d);
        sine[i] = __ldg(a.angles + int64_t(position) * a.angleStride + D / 2 + d);
      }
      if (weights && !isValue) raw[0][i] = __ldg(weights + d), raw[1][i] = __ldg(weights + d + D / 2);
    }
    const uint64_t* const from = isQuery ? a.q + (kvHead * group + row) * D : (isValue ? a.v : a.k) + kvHead * D;
    const uint32_t tag = base + (isQuery ? a.qOp : isValue ? a.vOp : a.kOp);
    float f[2][kEach], squares = 0;
    for (Patience patience;; patience()) {
      bool all = true;
      uint2 w[2][kEach];
#pragma unroll
      for (int i = 0; i < kEach * 2; i++) w[i & 1][i >> 1] = loadWord(from + lane + (i >> 1) * 32 + (i & 1) * (D / 2));
#pragma unroll
      for (int i = 0; i < kEach * 2; i++) all &= w[i & 1][i >> 1].y == tag, f[i & 1][i >> 1] = __uint_as_float(w[i & 1][i >> 1].x);
      if (__all_sync(~0u, all)) break;
    }
    if (!isValue) {
      if (weights) {
#pragma unroll
        for (int i = 0; i < kEach; i++) squares = fmaf(f[0][i], f[0][i], fmaf(f[1][i], f[1][i], squares));
        const float factor = rsqrtf(warpSum(squares) / D + a.eps);
#pragma unroll
        for (int i = 0; i < kEach; i++) f[0][i] *= factor * (lowOf(raw[0][i]) + a.offset), f[1][i] *= factor * (lowOf(raw[1][i]) + a.offset);
      }
#pragma unroll
      for (int i = 0; i < kEach; i++) {
        const float x = f[0][i], y = f[1][i];
        f[0][i] = x * cosine[i] - y * sine[i], f[1][i] = y * cosine[i] + x * sine[i];
      }
    }
    const float scale = a.scale * 1.4426950408889634f;  // softmax in powers of 2
    const bool kept = slot >= 0 && slot / 16 < a.pages;
    char* const page = a.cache + (int64_t(slot / 16) * a.kvHeads + kvHead) * kPageBytes<D> + (isValue ? kPageBytes<D> / 2 : 0);
#pragma unroll
    for (int i = 0; i < kEach; i++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int d = lane + i * 32 + h * (D / 2);
        if (isQuery) queries[row * (D + 8) + d] = __float2bfloat16_rn(f[h][i] * scale);
        else {
          (isValue ? value : key)[d] = f[h][i];
          if (kept) *reinterpret_cast<bf16*>(page + chunkAt<D>(slot & 15, d >> 3) + (d & 7) * 2) = __float2bfloat16_rn(f[h][i]);
        }
      }
  }
}

/// The eight consumer warps of a block that has a part of it.
template <int D, class AfterWait>
__device__ __forceinline__ void attend(Ring& r, const Attention& a, uint32_t base, const uint32_t* absent, char* shared, AfterWait afterWait) {
  constexpr int kQueryRow = D + 8, kPartRow = D + 4;
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, t = lane & 3;
  const int kvHead = blockIdx.x / a.splits, split = blockIdx.x % a.splits, group = a.heads / a.kvHeads;
  bf16* const queries = reinterpret_cast<bf16*>(shared);
  float *const key = reinterpret_cast<float*>(queries + group * kQueryRow), *const value = key + D, *const scores = value + D, *const parts = scores + 16;
  const Span span(a);
  if (split >= span.splits) return afterWait();
  stageHeads<D>(a, base, kvHead, group, split == 0, queries, key, value);
  afterWait();
  barSync(1, kConsumers * 32);

  uint32_t q[D / 16][2];
#pragma unroll
  for (int i = 0; i < D / 16; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) q[i][h] = g < group ? *reinterpret_cast<const uint32_t*>(queries + g * kQueryRow + i * 16 + h * 8 + t * 2) : 0;
  if (split == 0 && warp < group) {  // this token's score of a head
    float s = 0;
#pragma unroll
    for (int d = lane; d < D; d += 32) s = fmaf(__bfloat162float(queries[warp * kQueryRow + d]), key[d], s);
    s = warpSum(s);
    if (lane == 0) scores[warp] = s;
  }
  // scores = keys · queryᵀ, sums = valuesᵀ · probabilities: tokens, then dimensions are rows, heads are the eight columns.
  float most[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, sums[D / 16][4];
#pragma unroll
  for (int i = 0; i < D / 16; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0;
  const int keyToken = (lane & 7) + (lane >> 3 & 1) * 8, keyChunk = lane >> 4, valueToken = (lane & 7) + (lane >> 4) * 8, valueChunk = lane >> 3 & 1;
  const int begin = split * span.each, end = min(span.pages, begin + span.each);
  for (int first = begin; first < end; first += kSlotPages<D>) {
    barrierWait(r.full + r.slot * 8, r.phase);
    const int place = (warp - (first - begin)) & (kConsumers - 1), page = first + place;  // pages of a split go round the warps
    if (place < kSlotPages<D> && page < end) {
      const uint32_t keys = r.here() + place * kPageBytes<D>, values = keys + kPageBytes<D> / 2;
      const int live = absent[r.slot] >> place & 1 ? 0 : span.past - page * 16;
      if (live < 16) {  // what lies there could be infinite, which times 0 is not 0
        for (int e = lane; e < (16 - live) * (D / 8); e += 32)
          asm volatile("st.shared.v4.u32 [%0], {%1,%1,%1,%1};" ::"r"(values + chunkAt<D>(live + e / (D / 8), e % (D / 8))), "r"(0) : "memory");
        __syncwarp();
      }
      float s[2][4] = {};  // two chains of products
#pragma unroll
      for (int i = 0; i < D / 16; i++) {
        const uint4 w = loadMatrices<false>(keys + chunkAt<D>(keyToken, 2 * i + keyChunk));
        multiply(s[i & 1], w.x, w.y, w.z, w.w, q[i][0], q[i][1]);
      }
      float c[2];
      uint32_t p[2];
#pragma unroll
      for (int h = 0; h < 2; h++) {  // of two heads
        float low = s[0][h] + s[1][h], high = s[0][2 + h] + s[1][2 + h];  // tokens g and g + 8
        if (g >= live) low = -INFINITY;
        if (g + 8 >= live) high = -INFINITY;
        float n = fmaxf(most[h], fmaxf(low, high));
#pragma unroll
        for (int o = 4; o < 32; o *= 2) n = fmaxf(n, __shfl_xor_sync(~0u, n, o));
        const float from = n == -INFINITY ? 0.f : n;
        c[h] = exp2f(most[h] - from), most[h] = n;
        s[0][h] = exp2f(low - from), s[0][2 + h] = exp2f(high - from);
        total[h] = total[h] * c[h] + s[0][h] + s[0][2 + h];
      }
#pragma unroll
      for (int h = 0; h < 2; h++) p[h] = transposed(pairOf(s[0][2 * h], s[0][2 * h + 1]));
#pragma unroll
      for (int i = 0; i < D / 16; i++) {
        const uint4 w = loadMatrices<true>(values + chunkAt<D>(valueToken, 2 * i + valueChunk));
        sums[i][0] *= c[0], sums[i][1] *= c[1], sums[i][2] *= c[0], sums[i][3] *= c[1];
        multiply(sums[i], w.x, w.y, w.z, w.w, p[0], p[1]);
      }
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // ordinary writes here, bulk copies next
    giveBack(r, sums[D / 16 - 1][0]);
  }
#pragma unroll
  for (int h = 0; h < 2; h++)
#pragma unroll
    for (int o = 4; o < 32; o *= 2) total[h] += __shfl_xor_sync(~0u, total[h], o);
  const int used = min(kConsumers, end - begin);  // warps that had a page
#pragma unroll
  for (int h = 0; h < 2; h++)
    if (2 * t + h < group && warp < used) {
      float* const o = parts + (warp * group + 2 * t + h) * kPartRow;
#pragma unroll
      for (int i = 0; i < D / 16; i++) o[i * 16 + g] = sums[i][h], o[i * 16 + g + 8] = sums[i][2 + h];
      if (g == 0) o[D] = most[h], o[D + 1] = total[h];
    }
  barSync(1, kConsumers * 32);

  const int words = a.heads * (D / 2);
  const uint32_t tag = base + a.op;
  for (int e = tid; e < group * D / 2; e += kConsumers * 32) {
    const int row = e / (D / 2), d = e % (D / 2) * 2, head = kvHead * group + row;
    float M = split == 0 ? scores[row] : -INFINITY, w[kConsumers];
#pragma unroll
    for (int i = 0; i < kConsumers; i++) w[i] = i < used ? parts[(i * group + row) * kPartRow + D] : -INFINITY, M = fmaxf(M, w[i]);
    float L = split == 0 ? exp2f(scores[row] - M) : 0, A = L * (split == 0 ? value[d] : 0), B = L * (split == 0 ? value[d + 1] : 0);
#pragma unroll
    for (int i = 0; i < kConsumers; i++)
      if (w[i] != -INFINITY) {
        const float* const o = parts + (i * group + row) * kPartRow;
        const float c = exp2f(w[i] - M);
        A = fmaf(c, o[d], A), B = fmaf(c, o[d + 1], B), L = fmaf(c, o[D + 1], L);
      }
    uint64_t* const out = a.words + head * (D / 2) + d / 2;
    uint64_t* const states = a.words + a.splits * words + head;
    if (split) {
      const float factor = L > 0 ? 1.f / L : 0.f;
      storeWord(out + split * words, pairOf(A * factor, B * factor), tag);
      if (d == 0) storeWord(states + split * a.heads, __float_as_uint(L > 0 ? M + log2f(L) : -INFINITY), tag);
      continue;
    }
    for (int first = 1; first < span.splits; first += 4) {  // split 0 takes in the others, four at a time
      uint2 v[4], state[4];
      Patience patience;
      for (bool all = false; !all; patience()) {
        all = true;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int p = min(first + i, span.splits - 1);
          v[i] = loadWord(out + p * words), state[i] = loadWord(states + p * a.heads);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) all &= v[i].y == tag && state[i].y == tag;
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float m = __uint_as_float(state[i].x), n = fmaxf(M, m);
        if (first + i >= span.splits || m == -INFINITY) continue;
        const float c = exp2f(M - n), x = exp2f(m - n);
        A = fmaf(A, c, x * lowOf(v[i].x)), B = fmaf(B, c, x * highOf(v[i].x)), L = fmaf(L, c, x), M = n;
      }
    }
    const uint32_t pair = pairOf(A / L, B / L);
    storeWord(out, pair, tag);
    if (a.store) static_cast<uint32_t*>(a.store)[head * (D / 2) + d / 2] = pair;
  }
}

}  // namespace interpreter
