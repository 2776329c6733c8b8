// What one block of 256 threads does with a row of logits that lies in memory: finds the token at which a count or a weight is
// reached, likeliest first, by histograms in shared memory; nothing of the row is moved or sorted but the few tokens that are left.
#pragma once
#include "sampling_math.cuh"

constexpr int kThreads = 256, kTile = 16;
constexpr int kBuckets = 2048, kListed = 2048;

/// A row: logits, and the greatest of each group of 64.
struct Row {
  const float* x;
  const float* groupMax;
  int n, groups;
  bool aligned;  // x lies at a multiple of 16 bytes
};

/// Shared memory of a block; `list` and the histogram take turns.
struct RowShared {
  union {
    struct {
      uint32_t count[kBuckets], low[kBuckets], high[kBuckets];
    };
    unsigned long long list[kListed];
  };
  unsigned long long sums[2][kThreads / 32];
  unsigned long long heldCount, heldWeight, bucketCount;
  unsigned long long least, most;
  int bucket, listed;
};

/// 16 tokens of a thread, as four quarters of a group hold them: x[j][i] is token first + 16 j + i. −infinity past the end. kClean:
/// NaN and −0 are replaced, so that keys can be made of them.
template <bool kClean = true> __device__ __forceinline__ void loadTile(float (&x)[4][4], const float* row, int first, int n, bool aligned) {
  if (aligned && first + 52 <= n) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float4 v = *reinterpret_cast<const float4*>(row + first + 16 * j);
      x[j][0] = v.x, x[j][1] = v.y, x[j][2] = v.z, x[j][3] = v.w;
    }
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) x[j][i] = first + 16 * j + i < n ? row[first + 16 * j + i] : -INFINITY;
  }
  if constexpr (kClean) {
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) x[j][i] = cleaned(x[j][i]);
  }
}
/// Where in its group a thread's tokens begin: four threads share a group.
__device__ __forceinline__ int tileStart(int group) { return group * kGroup + int(threadIdx.x % 4) * 4; }

/// Calls f(x, id) for all tokens of groups whose greatest is at least `least`.
template <class F> __device__ __forceinline__ void eachToken(const Row& row, float least, F f) {
  for (int g = threadIdx.x / 4; g < row.groups; g += kThreads / 4) {
    if (!(__ldcg(row.groupMax + g) >= least)) continue;
    float x[4][4];
    const int first = tileStart(g);
    loadTile(x, row.x, first, row.n, row.aligned);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (first + 16 * j + i < row.n) f(x[j][i], first + 16 * j + i);
  }
}

/// Sums of the numbers of earlier threads; `all` is that of all threads. The second of two scans at once may be the same.
__device__ __forceinline__ void scan(RowShared& s, unsigned long long& a, unsigned long long& b, unsigned long long& allA, unsigned long long& allB) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned long long ownA = a, ownB = b;
#pragma unroll
  for (int o = 1; o < 32; o *= 2) {
    const unsigned long long x = __shfl_up_sync(~0u, a, o), y = __shfl_up_sync(~0u, b, o);
    if (lane >= o) a += x, b += y;
  }
  if (lane == 31) s.sums[0][warp] = a, s.sums[1][warp] = b;
  __syncthreads();
  a -= ownA, b -= ownB, allA = 0, allB = 0;
#pragma unroll
  for (int w = 0; w < kThreads / 32; w++) {
    if (w == warp) a += allA, b += allB;
    allA += s.sums[0][w], allB += s.sums[1][w];
  }
  __syncthreads();
}

/// Weights as whole numbers, so that their sums do not depend on the order: the likeliest token has 2^bits.
struct Weigher {
  float max, temperature;
  int bits;
  __device__ unsigned long long of(float x) const { return __float2ull_rz(weightOf(x, max, temperature) * float(1ull << bits)); }
};

/// Either the count-th token, or the first at which the tokens down to it weigh `weight` or more.
struct Target {
  bool byWeight;
  unsigned long long count;
  double weight;
  __device__ bool reached(unsigned long long c, unsigned long long w) const { return byWeight ? double(w) >= weight : c >= count; }
};

__device__ __forceinline__ void clearHistogram(RowShared& s) {
  __syncthreads();
  for (int i = threadIdx.x; i < kBuckets; i += kThreads) s.count[i] = 0, s.low[i] = 0, s.high[i] = 0;
  __syncthreads();
}
__device__ __forceinline__ void addToBucket(RowShared& s, int bucket, unsigned long long weight) {
  atomicAdd(&s.count[bucket], 1u);
  const uint32_t low = uint32_t(weight), before = atomicAdd(&s.low[bucket], low);
  const uint32_t high = uint32_t(weight >> 32) + (before + low < low);
  if (high) atomicAdd(&s.high[bucket], high);
}

/// The bucket in which the target is reached, after what earlier calls held: s.bucket, with s.held… of those before it. False when
/// none does.
__device__ __forceinline__ bool findBucket(RowShared& s, const Target& target, unsigned long long heldCount, unsigned long long heldWeight) {
  constexpr int kEach = kBuckets / kThreads;
  __syncthreads();
  if (threadIdx.x == 0) s.bucket = -1;
  unsigned long long count = 0, weight = 0, allCount, allWeight;
  const int first = threadIdx.x * kEach;
  auto weightOfBucket = [&](int i) { return (unsigned long long)s.high[i] << 32 | s.low[i]; };
#pragma unroll
  for (int i = 0; i < kEach; i++) count += s.count[first + i], weight += weightOfBucket(first + i);
  const unsigned long long ownCount = count, ownWeight = weight;
  scan(s, count, weight, allCount, allWeight);
  count += heldCount, weight += heldWeight;
  if (!target.reached(count, weight) && target.reached(count + ownCount, weight + ownWeight)) {
    int i = first;
    while (!target.reached(count + s.count[i], weight + weightOfBucket(i))) count += s.count[i], weight += weightOfBucket(i), i++;
    s.bucket = i, s.heldCount = count, s.heldWeight = weight, s.bucketCount = s.count[i];
  }
  __syncthreads();
  return s.bucket >= 0;
}

/// Steps down from the greatest logit: a coarse order that agrees with that of keys.
struct Steps {
  float max, each;
  __device__ int of(float x) const {
    const uint32_t step = __float2uint_rz((max - x) * each);
    return int(step < kBuckets - 1 ? step : kBuckets - 1);
  }
};

/// Tokens that a search may end at.
struct Between {
  unsigned long long lowest, highest;
  int step;  // -1: any
  __device__ bool has(float x, int id, const Steps& steps) const {
    const unsigned long long key = keyOf(x, id);
    return key >= lowest && key <= highest && (step < 0 || steps.of(x) == step);
  }
};

/// Lists the keys that `has` names, at most kListed; returns how many there are. The histogram is gone.
template <class Has> __device__ __forceinline__ int listTokens(RowShared& s, const Row& row, float least, Has has) {
  __syncthreads();
  if (threadIdx.x == 0) s.listed = 0;
  __syncthreads();
  eachToken(row, least, [&](float x, int id) {
    if (!has(x, id)) return;
    const int at = atomicAdd(&s.listed, 1);
    if (at < kListed) s.list[at] = keyOf(x, id);
  });
  __syncthreads();
  return s.listed;
}

/// Sorts the first n listed keys, greatest first.
__device__ __forceinline__ void sortList(RowShared& s, int n) {
  int size = 2;
  while (size < n) size *= 2;
  for (int i = n + threadIdx.x; i < size; i += kThreads) s.list[i] = 0;
  for (int run = 2; run <= size; run *= 2)
    for (int step = run / 2; step; step /= 2) {
      __syncthreads();
      for (int p = threadIdx.x; p < size / 2; p += kThreads) {
        const int i = 2 * p - (p & (step - 1)), j = i + step;
        const unsigned long long a = s.list[i], b = s.list[j];
        if ((a < b) == ((i & run) == 0)) s.list[i] = b, s.list[j] = a;
      }
    }
  __syncthreads();
}

/// The place in the sorted list of n tokens where the target is reached, after what is held; n where it is not. All threads get it.
__device__ __forceinline__ int placeInList(RowShared& s, int n, const Target& target, const Weigher& weigher, unsigned long long heldCount,
                                           unsigned long long heldWeight) {
  constexpr int kEach = kListed / kThreads;
  unsigned long long weight = 0, count = 0, allCount, allWeight, each[kEach];
  const int first = threadIdx.x * kEach;
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    each[i] = target.byWeight && first + i < n ? weigher.of(valueOf(s.list[first + i])) : 0;
    weight += each[i], count += first + i < n;
  }
  if (threadIdx.x == 0) s.bucket = n;
  const unsigned long long ownWeight = weight, ownCount = count;
  scan(s, count, weight, allCount, allWeight);
  weight += heldWeight, count += heldCount;
  if (!target.reached(count, weight) && target.reached(count + ownCount, weight + ownWeight)) {
    int at = first;
#pragma unroll
    for (int i = 0; i < kEach; i++) {
      weight += each[i], count++;
      if (at == first + i && !target.reached(count, weight)) at++;
    }
    s.bucket = at;
  }
  __syncthreads();
  const int place = s.bucket;
  __syncthreads();
  return place;
}

/// The step that `target` is reached in when the greatest of each group alone is counted or weighed: all tokens down to it reach it all
/// the more. -1 where they do not.
__device__ __forceinline__ int stepOfGroups(RowShared& s, const Row& row, const Steps& steps, const Weigher& weigher, const Target& target) {
  clearHistogram(s);
#pragma unroll 4
  for (int g = threadIdx.x; g < row.groups; g += kThreads) {
    const float v = __ldcg(row.groupMax + g);
    if (target.byWeight) addToBucket(s, steps.of(v), weigher.of(v));
    else atomicAdd(&s.count[steps.of(v)], 1u);
  }
  return findBucket(s, target, 0, 0) ? s.bucket : -1;
}

/// Lists and sorts the keys of all tokens down to a step: how many, or -1 where they are more than the list holds.
__device__ __forceinline__ int listDownTo(RowShared& s, const Row& row, const Steps& steps, int step) {
  uint32_t* groups = s.high;  // beside the list
  __syncthreads();
  if (threadIdx.x == 0) s.listed = 0;
  __syncthreads();
#pragma unroll 4
  for (int g = threadIdx.x; g < row.groups; g += kThreads)
    if (steps.of(__ldcg(row.groupMax + g)) <= step) {
      const int at = atomicAdd(&s.listed, 1);
      if (at < kBuckets) groups[at] = uint32_t(g);
    }
  __syncthreads();
  const int n = s.listed;
  __syncthreads();
  if (n > kBuckets) return -1;
  if (threadIdx.x == 0) s.listed = 0;
  __syncthreads();
  for (int i = threadIdx.x / 4; i < n; i += kThreads / 4) {
    float x[4][4];
    const int first = tileStart(int(groups[i]));
    loadTile(x, row.x, first, row.n, row.aligned);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int k = 0; k < 4; k++)
        if (first + 16 * j + k < row.n && steps.of(x[j][k]) <= step) {
          const int at = atomicAdd(&s.listed, 1);
          if (at < kListed) s.list[at] = keyOf(x[j][k], first + 16 * j + k);
        }
  }
  __syncthreads();
  const int listed = s.listed;
  __syncthreads();
  if (listed > kListed) return -1;
  sortList(s, listed);
  return listed;
}

/// The key of the token among keys lowest … highest at which the target is reached; 0 where none does. `all`: what the tokens weigh
/// together (`fraction` > 0: the target's weight is this part of it).
__device__ __forceinline__ unsigned long long findToken(RowShared& s, const Row& row, const Steps& steps, const Weigher& weigher, Target target,
                                                        double fraction, unsigned long long lowest, unsigned long long highest) {
  Between range{lowest, highest, -1};
  clearHistogram(s);
  const float least = valueOf(lowest);
  eachToken(row, lowest ? least : -INFINITY, [&](float x, int id) {
    if (range.has(x, id, steps)) addToBucket(s, steps.of(x), target.byWeight ? weigher.of(x) : 0);
  });
  if (fraction > 0) {
    __syncthreads();
    unsigned long long count = 0, weight = 0, allCount, allWeight;
    for (int i = threadIdx.x; i < kBuckets; i += kThreads) weight += (unsigned long long)s.high[i] << 32 | s.low[i];
    scan(s, count, weight, allCount, allWeight);
    target.weight = fraction * double(allWeight);
  }
  if (!findBucket(s, target, 0, 0)) return 0;
  unsigned long long heldCount = s.heldCount, heldWeight = s.heldWeight;
  bool fits = s.bucketCount <= kListed;
  range.step = s.bucket;
  // Logits this far down have this step or a later one; in the last step there is no bound.
  const float bottom = range.step == kBuckets - 1 || !(steps.each > 0) ? -INFINITY : steps.max - (float(range.step) + 1.01f) / steps.each;
  if (!fits) {
    // Too many for the list: digits of the keys that are left, from the first bit in which they differ.
    __syncthreads();
    if (threadIdx.x == 0) s.least = ~0ull, s.most = 0;
    __syncthreads();
    eachToken(row, bottom, [&](float x, int id) {
      if (!range.has(x, id, steps)) return;
      const unsigned long long key = keyOf(x, id);
      if (key < s.least) atomicMin(&s.least, key);
      if (key > s.most) atomicMax(&s.most, key);
    });
    __syncthreads();
    range.lowest = s.least, range.highest = s.most;
  }
  while (!fits) {
    const int differ = 64 - __clzll((long long)(range.lowest ^ range.highest)), shift = differ > 11 ? differ - 11 : 0;
    clearHistogram(s);
    const unsigned long long top = range.highest >> shift;
    eachToken(row, bottom, [&](float x, int id) {
      if (range.has(x, id, steps)) addToBucket(s, int(top - (keyOf(x, id) >> shift)), target.byWeight ? weigher.of(x) : 0);
    });
    if (!findBucket(s, target, heldCount, heldWeight)) return 0;
    heldCount = s.heldCount, heldWeight = s.heldWeight, fits = s.bucketCount <= kListed;
    const unsigned long long digit = top - (unsigned long long)s.bucket, low = digit << shift, high = low | ((1ull << shift) - 1);
    range.lowest = low > range.lowest ? low : range.lowest, range.highest = high < range.highest ? high : range.highest;
    __syncthreads();
  }
  const int n = listTokens(s, row, bottom, [&](float x, int id) { return range.has(x, id, steps); });
  sortList(s, n);
  const int place = placeInList(s, n, target, weigher, heldCount, heldWeight);
  const unsigned long long found = s.list[place < n ? place : n - 1];
  __syncthreads();
  return found;
}
