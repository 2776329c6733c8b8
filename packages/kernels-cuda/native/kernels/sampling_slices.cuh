// The first pass over rows of logits: a block takes 4,096 tokens of a row, and the last block of a row to end does what is left.
#pragma once
#include "launch.h"
#include "sampling.h"
#include "sampling_select.cuh"

constexpr int kSlice = kThreads * kTile;

/// What is known of a slice: the key of its likeliest token, the winner of its race, its least finite logit, the weight of its
/// tokens relative to its greatest, how many of its tokens come before a given one.
struct Slice {
  unsigned long long likeliest;
  double weight;
  float min;
  int winner;
  unsigned int before;
};

/// What the first pass leaves of a row that it cannot decide; the passes after it fill in the rest.
struct Wide {
  float max, min;
  int step;  // where the last kept token is, if only that is known yet; −1: it is `lowest`
  unsigned int listed;
  unsigned long long lowest;  // key of the last token that is kept; 0: all are
  unsigned long long heldCount, heldWeight;
  double target;
  unsigned long long best;  // the first arrival of those before that step
  unsigned long long weight[kBuckets];
  unsigned int count[kBuckets];
  unsigned long long list[kListed];
};

/// Scratch memory of rows: slices [rows, slices], group maxima [rows, groups], wide rows.
struct RowScratch {
  Slice* slices;
  float* groupMax;
  Wide* wide;           // [rows], or null
  int* wideRows;        // which rows those are
  unsigned int* ended;  // [rows] slices that are done; zeros before and after
  int count, groups;    // of a row
};
/// How many rows have room at once, too. The counters behind `ended`: of wide rows, of blocks that are through with them.
inline RowScratch rowScratch(const Context& c, int64_t cols, bool wide, int64_t& rowsAtOnce) {
  RowScratch r{};
  r.count = int((cols + kSlice - 1) / kSlice), r.groups = int((cols + kGroup - 1) / kGroup);
  const size_t slices = size_t(r.count) * sizeof(Slice), groups = size_t(r.groups + 1) / 2 * 2 * sizeof(float);
  rowsAtOnce = int64_t(Context::kScratchBytes / (slices + groups + (wide ? sizeof(Wide) + 2 * sizeof(int) : 0)));
  if (rowsAtOnce > int64_t(Context::kCounters) / 2) rowsAtOnce = int64_t(Context::kCounters) / 2;
  const size_t rows = size_t(rowsAtOnce);
  char* at = c.scratch;
  r.slices = reinterpret_cast<Slice*>(at), at += rows * slices;
  r.wide = wide ? reinterpret_cast<Wide*>(at) : nullptr, at += wide ? rows * sizeof(Wide) : 0;
  r.groupMax = reinterpret_cast<float*>(at), at += rows * groups;
  r.wideRows = reinterpret_cast<int*>(at);
  r.ended = c.counters;
  return r;
}
/// Bits of a weight's fraction such that the weights of n tokens can be added in 63.
inline int weightBits(int64_t n) {
  int bits = 62;
  while (bits > 0 && (n >> (62 - bits)) > 0) bits--;
  return bits;
}

/// The greatest over a block's threads, in the order of floats. `parts`: a word of shared memory for each warp.
__device__ __forceinline__ float blockMax(float v, uint32_t* parts) {
  const uint32_t order = __reduce_max_sync(~0u, orderOf(v));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = order;
  __syncthreads();
  uint32_t most = parts[0];
#pragma unroll
  for (int w = 1; w < kThreads / 32; w++) most = parts[w] > most ? parts[w] : most;
  return floatOf(most);
}

/// Whether the calling block, which has done `slices` of the row's, is the last one of the row; what the others wrote is visible
/// then. Every thread gets the answer.
__device__ __forceinline__ bool lastOfRow(unsigned int* ended, unsigned int slices, unsigned int all, int* flag) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    *flag = atomicAdd(ended, slices) + slices == all;
    if (*flag) *ended = 0;
    __threadfence();
  }
  __syncthreads();
  return *flag != 0;
}

__device__ __forceinline__ unsigned long long warpBest(unsigned long long v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    const unsigned long long other = __shfl_xor_sync(~0u, v, o);
    v = other > v ? other : v;
  }
  return v;
}

/// Over all slices of a row, for every thread of a warp.
struct RowSummary {
  float max, min;
  int likeliest;
};
__device__ __forceinline__ RowSummary summaryOf(const Slice* slices, int count) {
  unsigned long long first = 0;
  uint32_t least = ~0u;
  for (int i = threadIdx.x % 32; i < count; i += 32) {
    const unsigned long long key = __ldcg(&slices[i].likeliest);
    const uint32_t min = orderOf(__ldcg(&slices[i].min));
    first = key > first ? key : first, least = min < least ? min : least;
  }
  first = warpBest(first);
  return {valueOf(first), floatOf(__reduce_min_sync(~0u, least)), idOf(first)};
}
/// The weight of all tokens at a temperature, relative to the row's greatest logit.
__device__ __forceinline__ double weightOfSlices(const Slice* slices, int count, float max, float temperature) {
  double sum = 0;
  for (int i = threadIdx.x % 32; i < count; i += 32) sum += __ldcg(&slices[i].weight) * double(weightOf(valueOf(__ldcg(&slices[i].likeliest)), max, temperature));
#pragma unroll
  for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
  return sum;
}

/// The sum of f over the tiles of a block's threads. `parts`: a number for each warp.
template <class F> __device__ __forceinline__ double tileSum(const float (&x)[4][4], double* parts, F f) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < 4; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) sum += f(x[j][i]);
  double all = double(sum);
#pragma unroll
  for (int o = 16; o; o >>= 1) all += __shfl_xor_sync(~0u, all, o);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = all;
  __syncthreads();
  all = 0;
  for (int w = 0; w < kThreads / 32; w++) all += parts[w];
  return all;
}

/// Stores the greatest of each group of a slice.
__device__ __forceinline__ void storeGroupMax(float threadMax, float* groupMax, int group, int groups) {
  threadMax = fmaxf(threadMax, __shfl_xor_sync(~0u, threadMax, 1));
  threadMax = fmaxf(threadMax, __shfl_xor_sync(~0u, threadMax, 2));
  if (threadIdx.x % 4 == 0 && group < groups) groupMax[group] = threadMax;
}

/// The greatest over a block, for every thread.
__device__ __forceinline__ unsigned long long blockBest(unsigned long long v, RowShared& s) {
  v = warpBest(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.sums[0][threadIdx.x / 32] = v;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; w++) v = s.sums[0][w] > v ? s.sums[0][w] : v;
  return v;
}
