// The passes of sampling.h, compiled once an instruction set.
#pragma once
#include "sampling.h"
#include "vec_math.h"

namespace KERNEL_NS {
namespace {

INLINE F never() { return splat(-__builtin_inff()); }
/// Logits [i, i + 16) of n; lanes past the end are -infinity.
INLINE F logitsAt(const float* x, int64_t i, int64_t n) {
  if (i + kLanes <= n) return F32::load(x + i);
  if (i >= n) return never();
  return select(laneNumbers() < splatI(int32_t(n - i)), loadFirst<F32>(x + i, n - i), never());
}

float blockMaxima(const float* x, int64_t n, float* maxima) {
  F all = never();
  for (int64_t i = 0; i < n; i += kBlock) {
    F m[4];
    UNROLL for (int j = 0; j < 4; j++) m[j] = greater(logitsAt(x, i + j * kLanes, n), never());
    F block = greater(greater(m[0], m[1]), greater(m[2], m[3]));
    maxima[i / kBlock] = greatest(block);
    all = greater(block, all);
  }
  return greatest(all);
}

INLINE F weightOf(F x, F max, F temperature) { return exp((x - max) / temperature); }

// Lanes in f32 over 1,024 logits, then one number in f64: neither loses what the other could keep.
double weightSum(const float* x, int64_t n, float max, float temperature) {
  F m = splat(max), t = splat(temperature);
  double total = 0;
  for (int64_t i = 0; i < n; i += 1024) {
    F s[4] = {splat(0), splat(0), splat(0), splat(0)};
    int64_t end = n < i + 1024 ? n : i + 1024;
    for (int64_t k = i; k < end; k += kBlock)
      UNROLL for (int j = 0; j < 4; j++) s[j] = s[j] + weightOf(logitsAt(x, k + j * kLanes, n), m, t);
    total += double(sum((s[0] + s[1]) + (s[2] + s[3])));
  }
  return total;
}

void weights(float* out, const float* x, int64_t n, float max, float temperature) {
  F m = splat(max), t = splat(temperature);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) F32::store(out + i, weightOf(F32::load(x + i), m, t));
  if (i < n) storeFirst<F32>(out + i, weightOf(logitsAt(x, i, n), m, t), n - i);
}

void buckets(int32_t* out, const float* x, int64_t n, float max, float steps, int32_t last) {
  F m = splat(max), f = splat(steps), most = splat(float(last));
  for (int64_t i = 0; i < n; i += kLanes) {
    I bucket = toInt(lesser((m - logitsAt(x, i, n)) * f, most));
    if (i + kLanes <= n) storeInts(out + i, bucket);
    else for (int64_t l = i; l < n; l++) out[l] = lane(bucket, int(l - i));
  }
}

int64_t countBefore(const float* x, int64_t n, float value, int64_t id) {
  F v = splat(value);
  I counts = splatI(0), before = splatI(int32_t(id)) - laneNumbers();
  for (int64_t i = 0; i < n; i += kLanes) {
    F a = logitsAt(x, i, n);
    counts = counts - ((a > v) | ((a == v) & (before > splatI(0))));
    before = before - splatI(kLanes);
  }
  int64_t total = 0;
  for (int l = 0; l < kLanes; l++) total += lane(counts, l);
  return total;
}

/// Philox4x32-10 (Salmon et al. 2011) at the counters (c, index, 0, 0).
INLINE void philox(U out[4], U c, const Race& race) {
  U c0 = c, c1 = splatU(race.index), c2 = splatU(0), c3 = splatU(0);
  uint32_t k0 = race.seed[0], k1 = race.seed[1];
  UNROLL for (int round = 0; round < 10; round++) {
    U high0 = mulHigh(c0, 0xd2511f53u), low0 = mulLow(c0, 0xd2511f53u);
    U high1 = mulHigh(c2, 0xcd9e8d57u), low1 = mulLow(c2, 0xcd9e8d57u);
    c0 = high1 ^ c1 ^ splatU(k0), c1 = low1;
    c2 = high0 ^ c3 ^ splatU(k1), c3 = low0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/// Both halves of a word are exact as floats; their sum is rounded once.
INLINE F waitingTime(U word) {
  F w = toFloat(asI(word >> 16)) * splat(65536.0f) + (toFloat(asI(word & splatU(0xffff))) + splat(0.5f));
  return negLog1m(lesser(w * splat(0x1p-32f), splat(0x1.fffffep-1f)));
}

struct Best {
  F rate = splat(-1.0f);
  I id = splatI(0x7fffffff);
  /// Lanes of `runs` take part. A lane meets its ids in any order.
  INLINE void meet(Best& b, F rate, I id, I runs) {
    I wins = runs & ((rate > b.rate) | ((rate == b.rate) & (id < b.id)));
    b.rate = select(wins, rate, b.rate), b.id = select(wins, id, b.id);
  }
  INLINE int32_t of(const Best& b) {
    float rate = lane(b.rate, 0);
    int32_t id = lane(b.id, 0);
    for (int l = 1; l < kLanes; l++) {
      float r = lane(b.rate, l);
      if (r > rate || (r == rate && lane(b.id, l) < id)) rate = r, id = lane(b.id, l);
    }
    return id;
  }
};

int32_t raceAll(const Race& race, const float* x, int64_t n, const float* maxima, Cut cut) {
  F max = splat(race.max), t = splat(race.temperature), least = splat(race.minWeight), value = splat(cut.value);
  Best best;
  for (int64_t i = 0; i < n; i += kBlock) {
    if (maxima[i / kBlock] < cut.value) continue;
    U words[4];
    philox(words, asU(laneNumbers() + splatI(int32_t(i / 4))), race);
    UNROLL for (int j = 0; j < 4; j++) {
      F a = logitsAt(x, i + j * kLanes, n);
      I id = laneNumbers() + splatI(int32_t(i) + j * kLanes);
      F weight = weightOf(a, max, t);
      I runs = ((a > value) | ((a == value) & (id < splatI(cut.id) + splatI(1)))) & (weight >= least);
      Best::meet(best, weight / waitingTime(words[j]), id, runs);
    }
  }
  return Best::of(best);
}

int32_t raceListed(const Race& race, const int32_t* ids, const float* weights, int64_t n) {
  F least = splat(race.minWeight);
  Best best;
  for (int64_t i = 0; i < n; i += kLanes) {
    int64_t count = n - i < kLanes ? n - i : int64_t(kLanes);
    int32_t some[kLanes] = {};
    for (int64_t l = 0; l < count; l++) some[l] = ids[i + l];
    I id = loadInts(some);
    U words[4];
    philox(words, asU(((id >> 6) << 4) | (id & splatI(15))), race);
    I which = (id >> 4) & splatI(3);
    U word = select(which == splatI(0), words[0], select(which == splatI(1), words[1], select(which == splatI(2), words[2], words[3])));
    F weight = count == kLanes ? F32::load(weights + i) : loadFirst<F32>(weights + i, count);
    I runs = (laneNumbers() < splatI(int32_t(count))) & (weight >= least);
    Best::meet(best, weight / waitingTime(word), id, runs);
  }
  return Best::of(best);
}

}  // namespace

extern const SamplingKernels kSampling;
const SamplingKernels kSampling = {blockMaxima, weightSum, weights, buckets, countBefore, raceAll, raceListed};

}  // namespace KERNEL_NS
