#include "sampling_rows.h"
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace {

using Candidate = RowScratch::Candidate;
constexpr float kNever = -std::numeric_limits<float>::infinity();

int64_t blocksOf(int64_t n) { return (n + kBlock - 1) / kBlock; }
float logit(const float* x, int64_t i) { return x[i] == x[i] ? x[i] : kNever; }
bool before(const Candidate& a, const Candidate& b) { return a.value > b.value || (a.value == b.value && a.id < b.id); }

int32_t firstOf(const float* x, int64_t n, const float* maxima, float max) {
  for (int64_t b = 0; b < blocksOf(n); b++)
    if (maxima[b] == max)
      for (int64_t i = b * kBlock; i < std::min(n, (b + 1) * kBlock); i++)
        if (x[i] == max) return int32_t(i);
  return 0;
}

/// The count-th greatest of m numbers, which are reordered.
float greatestOf(float* numbers, int64_t m, int64_t count) {
  std::nth_element(numbers, numbers + count - 1, numbers + m, std::greater<float>());
  return numbers[count - 1];
}

/// A logit that at least `count` tokens reach: the count-th greatest block maximum.
float reachedBy(int64_t count, int64_t n, RowScratch& s) {
  int64_t blocks = blocksOf(n);
  if (count > blocks) return kNever;
  std::copy(s.maxima, s.maxima + blocks, s.order);
  return greatestOf(s.order, blocks, count);
}

/// Lists the tokens whose logit reaches `least`.
int64_t collect(const float* x, int64_t n, float least, RowScratch& s) {
  int64_t count = 0;
  for (int64_t b = 0; b < blocksOf(n); b++) {
    if (s.maxima[b] < least) continue;
    for (int64_t i = b * kBlock; i < std::min(n, (b + 1) * kBlock); i++)
      if (logit(x, i) >= least) s.list[count++] = {logit(x, i), 0, int32_t(i)};
  }
  return count;
}

/// Lists at least the `count` likeliest tokens. More of them than there are blocks: by a guess from every 16th logit.
int64_t collectLikeliest(const float* x, int64_t n, int64_t count, RowScratch& s) {
  if (count <= blocksOf(n)) return collect(x, n, reachedBy(count, n, s), s);
  int64_t sampled = 0;
  for (int64_t i = 0; i < n; i += 16) s.weights[sampled++] = logit(x, i);
  for (int64_t rank = count / 16 + 4 * int64_t(std::sqrt(double(count) / 16)) + 4; rank <= sampled; rank *= 2) {
    int64_t found = collect(x, n, greatestOf(s.weights, sampled, rank), s);
    if (found >= count) return found;
  }
  return collect(x, n, kNever, s);
}

/// Fills in the weights of the list and returns their sum.
double weigh(const SamplingKernels& k, int64_t count, float max, float temperature, RowScratch& s) {
  for (int64_t i = 0; i < count; i++) s.weights[i] = s.list[i].value;
  k.weights(s.weights, s.weights, count, max, temperature);
  double total = 0;
  for (int64_t i = 0; i < count; i++) total += double(s.list[i].weight = s.weights[i]);
  return total;
}

/// Brings the candidates that are kept to the front: in falling order, each while those before it weigh less than `target`.
int64_t nucleus(Candidate* list, int64_t count, double target) {
  int64_t low = 0, high = count;
  double held = 0;
  while (high - low > 24) {
    Candidate &a = list[low], &m = list[low + (high - low) / 2], &z = list[high - 1];
    if (before(m, a)) std::swap(m, a);
    if (before(z, a)) std::swap(z, a);
    if (before(m, z)) std::swap(m, z);  // the middle one of the three is last now
    Candidate pivot = z;
    int64_t middle = low;
    double mass = 0;
    for (int64_t i = low; i < high - 1; i++)
      if (before(list[i], pivot)) mass += double(list[i].weight), std::swap(list[i], list[middle++]);
    std::swap(list[middle], z);
    if (held + mass >= target) {
      high = middle;
    } else {
      held += mass + double(pivot.weight);
      low = middle + 1;
    }
  }
  std::sort(list + low, list + high, before);
  while (low < high && held < target) held += double(list[low++].weight);
  return low;
}

int32_t race(const SamplingKernels& k, const Race& r, const float* x, int64_t n, int64_t kept, RowScratch& s) {
  if (kept <= RowScratch::kListed) {
    for (int64_t i = 0; i < kept; i++) s.listedIds[i] = s.list[i].id, s.listedWeights[i] = s.list[i].weight;
    return k.raceListed(r, s.listedIds, s.listedWeights, kept);
  }
  const Candidate& last = *std::max_element(s.list, s.list + kept, before);
  return k.raceAll(r, x, n, s.maxima, {last.value, last.id});
}

/// Top-p over the whole vocabulary: of the likeliest few where those suffice, else by a histogram of the weights.
int32_t raceInNucleus(const SamplingKernels& k, const Race& r, const float* x, int64_t n, double topP, RowScratch& s) {
  double target = topP * k.weightSum(x, n, r.max, r.temperature);
  for (int64_t guess = 64; guess <= blocksOf(n) / 4; guess *= 8) {
    int64_t count = collect(x, n, reachedBy(guess, n, s), s);
    if (weigh(k, count, r.max, r.temperature, s) >= target) return race(k, r, x, n, nucleus(s.list, count, target), s);
  }
  // Equal steps of (max - logit) / temperature, which float arithmetic keeps in order; the last bucket has all the rest.
  k.weights(s.weights, x, n, r.max, r.temperature);
  k.buckets(s.buckets, x, n, r.max, float(RowScratch::kBuckets) / 30 / r.temperature, RowScratch::kBuckets - 1);
  // Four histograms in turn: additions to one bucket need not wait for each other.
  std::fill(s.mass, s.mass + 4 * RowScratch::kBuckets, 0.0);
  for (int64_t i = 0; i < n; i++) s.mass[4 * s.buckets[i] + (i & 3)] += double(s.weights[i]);
  int32_t bucket = 0;
  double held = 0;
  for (; bucket < RowScratch::kBuckets - 1; bucket++) {
    const double* m = s.mass + 4 * bucket;
    double mass = (m[0] + m[1]) + (m[2] + m[3]);
    if (held + mass >= target) break;
    held += mass;
  }
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++)
    if (s.buckets[i] == bucket && s.weights[i] > 0) s.list[count++] = {x[i], s.weights[i], int32_t(i)};
  int64_t kept = nucleus(s.list, count, target - held);
  if (kept == 0) return k.raceAll(r, x, n, s.maxima, {kNever, int32_t(n)});  // rounding put the target past the last token
  const Candidate& last = *std::max_element(s.list, s.list + kept, before);
  return k.raceAll(r, x, n, s.maxima, {last.value, last.id});
}

}  // namespace

size_t RowScratch::bytes(int64_t n) {
  size_t blocks = size_t(blocksOf(n)) + 16;
  return (blocks * 2 + 2 * (size_t(n) + 16)) * sizeof(float) + 4 * kBuckets * sizeof(double) + (size_t(n) + 16) * sizeof(Candidate) +
         kListed * (sizeof(int32_t) + sizeof(float)) + 64;
}

RowScratch::RowScratch(void* memory, int64_t n) {
  char* at = static_cast<char*>(memory);
  auto take = [&](size_t bytes) { return at += bytes, at - bytes; };
  size_t blocks = size_t(blocksOf(n)) + 16;
  mass = reinterpret_cast<double*>(take(4 * kBuckets * sizeof(double)));
  maxima = reinterpret_cast<float*>(take(blocks * sizeof(float)));
  order = reinterpret_cast<float*>(take(blocks * sizeof(float)));
  weights = reinterpret_cast<float*>(take((size_t(n) + 16) * sizeof(float)));
  buckets = reinterpret_cast<int32_t*>(take((size_t(n) + 16) * sizeof(int32_t)));
  list = reinterpret_cast<Candidate*>(take((size_t(n) + 16) * sizeof(Candidate)));
  listedIds = reinterpret_cast<int32_t*>(take(kListed * sizeof(int32_t)));
  listedWeights = reinterpret_cast<float*>(take(kListed * sizeof(float)));
}

int32_t sampleRow(const SamplingKernels& k, const float* x, int64_t n, Filter f, const int32_t seeds[3], RowScratch& s) {
  float max = k.blockMaxima(x, n, s.maxima);
  if (!(f.temperature > 0) || !std::isfinite(max) || f.topK == 1 || f.topP <= 0 || f.minP > 1)
    return max == kNever ? 0 : firstOf(x, n, s.maxima, max);
  Race r{{uint32_t(seeds[0]), uint32_t(seeds[1])}, uint32_t(seeds[2]), max, f.temperature, f.minP > 0 ? f.minP : 0};
  bool nucleusOnly = f.topP < 1;
  if (f.topK <= 0 || f.topK >= n)
    return nucleusOnly ? raceInNucleus(k, r, x, n, f.topP, s) : k.raceAll(r, x, n, s.maxima, {kNever, int32_t(n)});
  int64_t count = collectLikeliest(x, n, f.topK, s);
  int64_t kept = std::min<int64_t>(f.topK, count);
  if (kept < count) std::nth_element(s.list, s.list + kept - 1, s.list + count, before);
  double total = weigh(k, kept, max, f.temperature, s);
  if (nucleusOnly) kept = nucleus(s.list, kept, double(f.topP) * total);
  return race(k, r, x, n, kept, s);
}

int32_t logProbsRow(const SamplingKernels& k, const float* x, int64_t n, int32_t chosen, int64_t count, float* values, int32_t* ids,
                    RowScratch& s) {
  float max = k.blockMaxima(x, n, s.maxima);
  double total;
  if (std::isfinite(max)) total = k.weightSum(x, n, max, 1);
  else total = double(std::count(x, x + n, max));
  auto logProb = [&](float v) {
    if (v == kNever) return kNever;
    return float((v == max ? 0 : double(v) - double(max)) - std::log(total));
  };
  ids[0] = chosen;
  bool known = chosen >= 0 && chosen < n;
  values[0] = known ? logProb(logit(x, chosen)) : kNever;
  if (count > 0) {
    int64_t found = collectLikeliest(x, n, count, s);
    std::partial_sort(s.list, s.list + count, s.list + found, before);
    for (int64_t i = 0; i < count; i++) ids[i + 1] = s.list[i].id, values[i + 1] = logProb(s.list[i].value);
  }
  if (!known) return 0;
  float v = logit(x, chosen);
  if (v > kNever) return int32_t(k.countBefore(x, n, v, chosen)) + 1;
  int64_t rank = 1;  // -infinity and NaN are equal here, which no comparison of vectors knows
  for (int64_t i = 0; i < n; i++) rank += logit(x, i) > kNever || i < chosen;
  return int32_t(rank);
}
