// The options of a row, and its race.
#pragma once
#include "sampling_slices.cuh"

struct SampleArgs {
  const float* logits;
  int64_t stride;
  int32_t* tokens;
  SamplingRows options;
  RowScratch scratch;
  int n, weightBits;
};
/// Counters of a call, behind those of rows: of wide rows, and of blocks that are through with them.
__device__ __forceinline__ unsigned int* wideCount(const SampleArgs& p) { return p.scratch.ended + Context::kCounters - 2; }
__device__ __forceinline__ unsigned int* wideBlocks(const SampleArgs& p) { return p.scratch.ended + Context::kCounters - 1; }

enum class Way { greedy, race, filtered };
struct Options {
  float temperature, topP, minP;
  int topK;
  Way way;
};
__device__ __forceinline__ Options optionsOf(const SampleArgs& p, int row) {
  Options o{p.options.temperature[row], p.options.topP[row], p.options.minP[row], p.options.topK[row], Way::filtered};
  if (!(o.temperature > 0) || o.topK == 1 || o.topP <= 0 || o.minP > 1) o.way = Way::greedy;
  if (o.topK <= 0 || o.topK > p.n) o.topK = p.n;
  if (!(o.topP < 1)) o.topP = 1;
  if (!(o.minP > 0)) o.minP = 0;
  if (o.way == Way::filtered && o.topK == p.n && o.topP == 1 && o.minP == 0) o.way = Way::race;
  return o;
}
__device__ __forceinline__ Race raceOf(const SampleArgs& p, int row, float max, float temperature) {
  const int32_t* seeds = p.options.seeds + 3 * row;
  return {{uint32_t(seeds[0]), uint32_t(seeds[1])}, uint32_t(seeds[2]), max, temperature};
}
/// Steps in which a row's histogram is made: of all logits for a count; of those that have weight for a weight.
__device__ __forceinline__ Steps stepsOf(float max, float range) {
  const float each = float(kBuckets) / range;
  return {max, each < INFINITY ? each : 0.0f};
}

/// Logarithms to base 2: what no rate of a tile exceeds, and what one reaches.
struct TileBounds {
  float upper, lower;
};
/// Of those x that are not −infinity.
__device__ __forceinline__ TileBounds tileBounds(const float (&x)[4][4], int first, const Race& race, float slope) {
  float upper = -INFINITY;
  uint32_t of = 0;  // the word of that token
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const uint4 words = philox(counterOf(first + i), race);
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float bound = rateBound(x[j][i] - race.max, word[j], slope);
      if (bound > upper) upper = bound, of = word[j];
    }
  }
  return {upper, upper - boundWidth(of)};
}

/// The first arrival of those tokens of a tile that `runs(x, id)` lets run and whose rate may reach the bar. Few tiles come to this.
template <class Runs>
static __device__ __noinline__ unsigned long long tileArrival(const float* logits, int first, int n, const Race race, float bar, const Runs runs) {
  const float slope = slopeOf(race.temperature);
  float tile[4][4];  // one wait for all of them
  loadTile(tile, logits, first, n, uintptr_t(logits) % 16 == 0);
  unsigned long long best = 0;
#pragma unroll 1
  for (int i = 0; i < 4; i++) {
    const uint4 words = philox(counterOf(first + i), race);
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int id = first + 16 * j + i;
      const float x = i < 2 ? i == 0 ? tile[j][0] : tile[j][1] : i == 2 ? tile[j][2] : tile[j][3];
      if (!(x > -INFINITY) || !(rateBound(x - race.max, word[j], slope) >= bar) || !runs(x, id)) continue;
      const unsigned long long a = arrivalOf(x, id, word[j], race, 0);
      best = a > best ? a : best;
    }
  }
  return best;
}
struct AllRun {
  __device__ bool operator()(float, int) const { return true; }
};
