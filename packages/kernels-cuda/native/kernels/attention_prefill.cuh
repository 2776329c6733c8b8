// What the prefill kernels share: the tile of a block, which keys a row sees, how a score becomes a power of 2.
//
// Rows of a tile are (token, head of the group) pairs: row r of a sequence is token r / group, head r % group of the kv head. So
// keys and values are read once for all heads that share them, and few tokens already fill a tile.
#pragma once
#include <cuda_fp8.h>
#include <type_traits>
#include "attention_prefill.h"
#include "device.cuh"
#include "ring.cuh"

struct PrefillArgs {
  CacheLayout cache;
  char* out;
  const char* q;
  int64_t outStride, qStride, tableStride;
  const int32_t *queryStarts, *contextLengths, *pageTables;
  const float *slopes, *sinks;
  int tokens, heads, group, sequences, maxPages, tiles;
  int window;                    // 0: all
  float scale, cap, capScale;    // of a score in powers of 2; cap > 0: a soft cap, see transformScores
  bool skipSingle, transform;    // transform: scores need more than the factor `scale`
  bool vectorQ, vectorOut;       // rows may be moved in 16-byte pieces
  // The keys of a tile may be split between blocks: sums [split][token][head][partialDim], then their states (SplitState).
  int splits, partialDim;
  float* partial;
};

/// Of a row's part: the reference its weights are relative to, in powers of 2, and their sum.
struct SplitState {
  float most, total;
};
__host__ __device__ inline SplitState* splitStates(const PrefillArgs& a) {
  return reinterpret_cast<SplitState*>(a.partial + int64_t(a.splits) * a.tokens * a.heads * a.partialDim);
}
/// What number a piece of work is: the last tile first, because it has most to do, then head by head.
struct WorkNumber {
  int tile, kvHead, split;
};
__device__ __forceinline__ WorkNumber workOf(const PrefillArgs& a, int number) {
  const int rest = number / a.splits;
  return {a.tiles - 1 - rest / a.cache.kvHeads, rest % a.cache.kvHeads, number % a.splits};
}
/// Narrows the tiles of keys [lowest, last] to those of a split.
__device__ __forceinline__ void narrow(const PrefillArgs& a, int split, int& lowest, int& last) {
  const int each = (last - lowest + a.splits) / a.splits;
  lowest += split * each;
  last = min(last, lowest + each - 1);
}

constexpr float kLog2e = 1.4426950408889634f;

/// The part of a batch that one block computes.
struct PrefillTile {
  int start, firstRow, rows;  // the sequence's first token; the rows of the sequence that are here
  int context, offset;        // tokens in the cache; position of the sequence's first query
  const int32_t* table;
  /// Positions of the first and the last row.
  __device__ int firstPosition(int group) const { return offset + firstRow / group; }
  __device__ int lastPosition(int group) const { return offset + (firstRow + rows - 1) / group; }
};

/// Tiles are numbered so that nobody must add up lengths: sequence s owns the numbers from this on, which are never fewer than it needs.
template <int M> __device__ __forceinline__ int64_t firstTile(const PrefillArgs& a, int s) { return int64_t(a.queryStarts[s]) * a.group / M + s; }

/// The last sequence that `begun` is true of (it is true of the first ones), found by a warp.
template <class F> __device__ __forceinline__ int sequenceOf(int sequences, F begun) {
  int low = 0, high = sequences;
  while (high - low > 1) {
    const int step = (high - low + 31) / 32, s = low + (threadIdx.x & 31) * step;
    const int before = __popc(__ballot_sync(~0u, s < high && begun(s)));
    low += max(before - 1, 0) * step;
    high = min(high, low + step);
  }
  return low;
}

template <int M> __device__ __forceinline__ int sequenceOfTile(const PrefillArgs& a, int number) {
  return sequenceOf(a.sequences, [&a, number](int s) { return firstTile<M>(a, s) <= number; });
}

/// The tile of a number of sequence s. False: no work there.
template <int M> __device__ __forceinline__ bool tileOf(const PrefillArgs& a, int number, int s, PrefillTile& t) {
  t.start = a.queryStarts[s];
  const int queries = min(a.queryStarts[s + 1], a.tokens) - t.start;
  if (t.start < 0 || queries <= 0 || (a.skipSingle && queries == 1)) return false;
  const int64_t ahead = number - firstTile<M>(a, s);
  if (ahead < 0 || ahead * M >= int64_t(queries) * a.group) return false;
  t.firstRow = int(ahead) * M;
  t.rows = min(M, queries * a.group - t.firstRow);
  t.context = min(a.contextLengths[s], a.maxPages * kPageTokens);
  t.offset = t.context - queries;
  t.table = a.pageTables + s * a.tableStride;
  return true;
}

/// The block's tile: every thread looks at other sequences, the one that finds it tells the rest. `found`: shared memory.
template <int M> __device__ bool findTile(const PrefillArgs& a, int number, int* found, PrefillTile& t) {
  if (threadIdx.x == 0) *found = -1;
  __syncthreads();
  for (int s = threadIdx.x; s < a.sequences; s += blockDim.x)
    if (firstTile<M>(a, s) <= number && number < firstTile<M>(a, s + 1)) *found = s;
  __syncthreads();
  return *found >= 0 && tileOf<M>(a, number, *found, t);
}

/// The page of a token's number, or -1 where there is none that may be read.
__device__ __forceinline__ int pageOf(const PrefillArgs& a, const PrefillTile& t, int index) {
  if (index * kPageTokens >= t.context) return -1;
  const int page = t.table[index];
  return page >= 0 && page < a.cache.pages ? page : -1;
}

__device__ __forceinline__ float exp2Approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float reciprocalApprox(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Products q · k to scores in powers of 2, in place: the fragments of a tile as the matrix units leave them, number i in row
/// i / 2 % 2, column i / 4 * 8 + i % 2 from `column` on. `position`, `slope`: of the two rows.
template <int n> __device__ __forceinline__ void transformScores(const PrefillArgs& a, float (&s)[n], const float (&slope)[2], int column, const int (&position)[2]) {
  if (a.cap > 0.f) {
    // cap · tanh(x) = cap - 2 cap / (1 + e^2x); capScale holds the factor of the exponent.
#pragma unroll
    for (int i = 0; i < n; i++) s[i] = fmaf(reciprocalApprox(1.f + exp2Approx(s[i] * a.capScale)), -2.f * a.cap, a.cap);
  } else {
#pragma unroll
    for (int i = 0; i < n; i++) s[i] *= a.scale;
  }
  if (a.slopes) {
    const float distance[2] = {float(column - position[0]), float(column - position[1])};
#pragma unroll
    for (int i = 0; i < n; i++) s[i] = fmaf(slope[i / 2 % 2], distance[i / 2 % 2] + float(i / 4 * 8 + i % 2), s[i]);
  }
}

template <class T> struct Pair;
template <> struct Pair<bf16> {
  static __device__ __forceinline__ uint32_t pack(float a, float b) {
    __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<uint32_t*>(&v);
  }
};
template <> struct Pair<f16> {
  static __device__ __forceinline__ uint32_t pack(float a, float b) {
    __half2 v = __floats2half2_rn(a, b);
    return *reinterpret_cast<uint32_t*>(&v);
  }
};

/// 16 numbers of 8 bits as numbers of a 16-bit type, which holds them: the first eight, and the others.
template <class T> __device__ __forceinline__ void storeBytes(DType type, const uint4& v, char* first, char* second) {
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
  uint32_t pairs[8];
#pragma unroll
  for (int h = 0; h < 8; h++) {
    const __half2_raw raw = __nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t(words[h / 2] >> h % 2 * 16), type == DType::f8e4m3 ? __NV_E4M3 : __NV_E5M2);
    if (std::is_same<T, f16>::value) {
      pairs[h] = uint32_t(raw.x) | uint32_t(raw.y) << 16;
    } else {
      const float2 f = __half22float2(__half2(raw));
      pairs[h] = Pair<T>::pack(f.x, f.y);
    }
  }
  *reinterpret_cast<uint4*>(first) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  *reinterpret_cast<uint4*>(second) = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
}

/// What an output is to be multiplied by at last. `most`, `total`: of its row; `sink`: one more score, without a value, or null.
__device__ __forceinline__ float outputScale(float most, float total, const float* sink) {
  if (!(total > 0.f)) return total != total ? total : 0.f;
  if (!sink) return 1.f / total;
  const float score = *sink * kLog2e, reference = fmaxf(most, score), shrink = exp2Approx(most - reference);
  return shrink / (total * shrink + exp2Approx(score - reference));
}

/// A tile's rows, from `tileRow` on, lie in shared memory in the layout of PageRows(D): loads rows [first, first + count) of them,
/// by `threads` threads; what is not there becomes zeros.
template <class T, int D, int count, int threads>
__device__ __forceinline__ void loadQueries(const PrefillArgs& a, const PrefillTile& t, int kvHead, char* shared, int tileRow, int first, int thread) {
  constexpr PageRows rows(D, 2);
  constexpr int kPieces = count * (D / 8) / threads, kBatch = kPieces < 8 ? kPieces : 8;
  static_assert(count * (D / 8) % threads == 0);
  auto place = [&](int i, int& r, int& c) {
    r = first + i / (D / 8), c = i % (D / 8);
    const int row = t.firstRow + tileRow + r, token = row / a.group;
    return reinterpret_cast<const T*>(a.q) + (t.start + token) * a.qStride + int64_t(kvHead * a.group + row - token * a.group) * a.cache.keyDim + c * 8;
  };
  if (!a.vectorQ) {
    for (int i = thread; i < count * (D / 8); i += threads) {
      int r, c;
      const T* from = place(i, r, c);
      alignas(16) T v[8];
      for (int d = 0; d < 8; d++) v[d] = tileRow + r < t.rows && c * 8 + d < a.cache.keyDim ? from[d] : fromFloat<T>(0.f);
      *reinterpret_cast<uint4*>(shared + rows.chunk(r, c)) = *reinterpret_cast<const uint4*>(v);
    }
    return;
  }
  // Many loads at once: the wait for them is what a tile begins with.
#pragma unroll
  for (int j = 0; j < kPieces; j += kBatch) {
    uint4 v[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch && j + k < kPieces; k++) {
      int r, c;
      const T* from = place(thread + (j + k) * threads, r, c);
      v[k] = tileRow + r < t.rows && c * 8 < a.cache.keyDim ? *reinterpret_cast<const uint4*>(from) : uint4{};
    }
#pragma unroll
    for (int k = 0; k < kBatch && j + k < kPieces; k++) {
      const int i = thread + (j + k) * threads;
      *reinterpret_cast<uint4*>(shared + rows.chunk(first + i / (D / 8), i % (D / 8))) = v[k];
    }
  }
}

/// Where the numbers of a row's part begin, and its state.
__device__ __forceinline__ int64_t partialRow(const PrefillArgs& a, const PrefillTile& t, int kvHead, int split, int tileRow) {
  const int row = t.firstRow + tileRow, token = row / a.group;
  return (int64_t(split) * a.tokens + t.start + token) * a.heads + kvHead * a.group + row - token * a.group;
}
/// Stores a row's part; this lane has columns 8 j + lane % 4 * 2 and the next: o[j * 4], o[j * 4 + 1].
template <int D> __device__ __forceinline__ void storePartial(const PrefillArgs& a, int64_t row, const float* o, float most, float total) {
  const int lane = threadIdx.x & 31;
  float* to = a.partial + row * D + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < D / 8; j++) *reinterpret_cast<float2*>(to + 8 * j) = make_float2(o[4 * j], o[4 * j + 1]);
  if (lane % 4 == 0) splitStates(a)[row] = {most, total};
}

/// Stores output rows [first, first + count) that lie there in the same way; by one warp.
template <class T, int D, int count>
__device__ __forceinline__ void storeRows(const PrefillArgs& a, const PrefillTile& t, int kvHead, const char* shared, int tileRow, int first) {
  constexpr PageRows rows(D, 2);
#pragma unroll 4
  for (int i = threadIdx.x & 31; i < count * (D / 8); i += 32) {
    const int r = first + i / (D / 8), c = i % (D / 8), row = t.firstRow + tileRow + r, token = row / a.group;
    if (tileRow + r >= t.rows || c * 8 >= a.cache.valueDim) continue;
    T* to = reinterpret_cast<T*>(a.out) + (t.start + token) * a.outStride + int64_t(kvHead * a.group + row - token * a.group) * a.cache.valueDim + c * 8;
    const uint4 v = *reinterpret_cast<const uint4*>(shared + rows.chunk(r, c));
    if (a.vectorOut) *reinterpret_cast<uint4*>(to) = v;
    else
      for (int d = 0; d < 8; d++)
        if (c * 8 + d < a.cache.valueDim) to[d] = reinterpret_cast<const T*>(&v)[d];
  }
}
