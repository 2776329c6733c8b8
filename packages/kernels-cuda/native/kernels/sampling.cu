// Sampling. Greedy rows and rows without a filter are decided in the one pass over their logits; rows with top-k, top-p or min-p
// are finished by the last of their blocks, which finds the last token that may be drawn and holds the race of those up to it.
#include "sampling_slices.cuh"

namespace {

struct SampleArgs {
  const float* logits;
  int64_t stride;
  int32_t* tokens;
  SamplingRows options;
  RowScratch scratch;
  int n, weightBits;
};

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

/// The upper bounds of the rates of a tile, and the greatest lower bound.
__device__ __forceinline__ float tileBounds(float (&upper)[4][4], const float (&x)[4][4], int first, const Race& race, float slope) {
  float lower = -INFINITY;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const uint4 words = philox(counterOf(first + i), race);
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const RateBounds b = rateBounds(x[j][i] - race.max, word[j], slope);
      upper[j][i] = b.upper, lower = fmaxf(lower, b.lower);
    }
  }
  return lower;
}

/// The race of the tokens down to the key `lowest` and of at least `minP` of the greatest weight; for all threads.
__device__ __forceinline__ int raceOfRow(RowShared& s, const Row& row, const Race& race, unsigned long long lowest, float minP) {
  const float slope = slopeOf(race.temperature), least = lowest ? valueOf(lowest) : -INFINITY;
  unsigned long long best = 0;
  float reached = -INFINITY;  // by some token of this warp
  for (int g0 = 0; g0 < row.groups; g0 += kThreads / 4) {
    const int g = g0 + threadIdx.x / 4;
    const float groupMax = g < row.groups ? __ldcg(row.groupMax + g) : -INFINITY;
    const bool mayWin = groupMax >= least && (groupMax - race.max) * slope > kHopeless && weightOf(groupMax, race.max, race.temperature) >= minP;
    if (!__any_sync(~0u, mayWin)) continue;
    float x[4][4], upper[4][4];
    const int first = tileStart(g);
    if (mayWin) {
      loadTile(x, row.x, first, row.n, row.aligned);
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = -INFINITY;
    }
    if (lowest || minP > 0) {
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (keyOf(x[j][i], first + 16 * j + i) < lowest || (minP > 0 && !(weightOf(x[j][i], race.max, race.temperature) >= minP))) x[j][i] = -INFINITY;
    }
    const float lower = tileBounds(upper, x, first, race, slope);
    reached = fmaxf(reached, floatOf(__reduce_max_sync(~0u, orderOf(lower + 0.0f))));
    const float bar = reached - kBoundSlack;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (x[j][i] > -INFINITY && upper[j][i] >= bar) {
          const unsigned long long a = arrival(x[j][i], first + 16 * j + i, race, 0);
          best = a > best ? a : best;
        }
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    const unsigned long long other = __shfl_xor_sync(~0u, best, o);
    best = other > best ? other : best;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.sums[0][threadIdx.x / 32] = best;
  __syncthreads();
  best = 0;
  for (int w = 0; w < kThreads / 32; w++) best = s.sums[0][w] > best ? s.sums[0][w] : best;
  return idOf(best);
}

/// The key of the last token that top-k and top-p leave; 0: they leave all.
__device__ __forceinline__ unsigned long long lastKept(RowShared& s, const Row& row, const Options& o, const Race& race, float least, double weight,
                                                       int bits) {
  const Weigher weigher{race.max, race.temperature, bits};
  const double unit = double(1ull << bits);
  const bool byCount = o.topK < row.n;
  float bottom = least;
  // The greatest of the groups often say enough: as many of them as are wanted reach some logit; what reaches it is a short list.
  const int rank = byCount ? o.topK : min(256, row.groups);
  if (rank <= row.groups) {
    const float reached = groupMaxOfRank(s, row, rank);
    bool enough = byCount;
    if (byCount) {
      bottom = fmaxf(bottom, reached);
    } else {
      unsigned long long held = 0, none = 0, all, zero;
      for (int g = threadIdx.x; g < row.groups; g += kThreads) {
        const float v = __ldcg(row.groupMax + g);
        if (v >= reached) held += weigher.of(v);
      }
      scan(s, held, none, all, zero);
      enough = double(all) >= double(o.topP) * weight * unit * (1 + 1e-6);
    }
    if (enough) {
      int n = listTokens(s, row, reached, [&](float x, int) { return x >= reached; });
      if (n <= kListed) {
        sortList(s, n);
        double target = double(o.topP) * weight * unit;
        if (byCount) {
          n = min(n, o.topK);
          if (o.topP < 1) {
            unsigned long long sum = 0, none = 0, all, zero;
            for (int i = threadIdx.x; i < n; i += kThreads) sum += weigher.of(valueOf(s.list[i]));
            scan(s, sum, none, all, zero);
            target = double(o.topP) * double(all);
          }
        }
        int place = n - 1;
        if (o.topP < 1) place = min(place, placeInList(s, n, {true, 0, target}, weigher, 0, 0));
        return s.list[place];
      }
    }
  }
  unsigned long long lowest = 0;
  auto steps = [&](float range) {
    const float each = float(kBuckets) / range;
    return Steps{race.max, each < INFINITY ? each : 0.0f};
  };
  if (byCount) lowest = findToken(s, row, steps(race.max - bottom), weigher, {false, (unsigned long long)o.topK, 0}, 0, 0, ~0ull);
  if (o.topP < 1) {
    const float range = fminf(race.max - least, 30.0f * race.temperature);
    const unsigned long long found = findToken(s, row, steps(range), weigher, {true, 0, 0}, double(o.topP), lowest, ~0ull);
    lowest = found > lowest ? found : lowest;
  }
  return lowest;
}

/// Grid [slices, rows].
__global__ void __launch_bounds__(kThreads) sampleSlices(const SampleArgs p) {
  __shared__ RowShared s;
  __shared__ uint32_t parts[2][kThreads / 32];
  __shared__ double sums[kThreads / 32];
  __shared__ unsigned long long best;
  __shared__ int likeliest, last, filtered;
  __shared__ float rowMax, rowMin;
  __shared__ double rowWeight;
  pdlTrigger();
  if (threadIdx.x == 0) best = 0, likeliest = 0x7fffffff;
  pdlWait();

  const int r = blockIdx.y, slice = blockIdx.x, group = slice * (kSlice / kGroup) + threadIdx.x / 4, first = tileStart(group);
  const float* logits = p.logits + r * p.stride;
  const bool aligned = uintptr_t(logits) % 16 == 0;
  float x[4][4];
  loadTile(x, logits, first, p.n, aligned);
  const Options o = optionsOf(p, r);
  Race race{{uint32_t(p.options.seeds[3 * r]), uint32_t(p.options.seeds[3 * r + 1])}, uint32_t(p.options.seeds[3 * r + 2]), 0, o.temperature};
  float threadMax = -INFINITY;
#pragma unroll
  for (int j = 0; j < 4; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) threadMax = fmaxf(threadMax, x[j][i]);
  const float max = blockMax(threadMax, parts[0]);
  race.max = max;
  if (threadMax == max) {
    int id = 0x7fffffff;
#pragma unroll
    for (int j = 3; j >= 0; j--)
#pragma unroll
      for (int i = 3; i >= 0; i--)
        if (x[j][i] == max) id = first + 16 * j + i;
    atomicMin(&likeliest, id);
  }
  const bool finite = max > -INFINITY && max < INFINITY;
  float least = INFINITY;
  double weight = 0;
  if (o.way == Way::race && finite) {
    const float slope = slopeOf(o.temperature);
    float upper[4][4], lower = -INFINITY;
    const bool mayWin = __any_sync(~0u, (threadMax - max) * slope > kHopeless);
    if (mayWin) lower = tileBounds(upper, x, first, race, slope);
    const float bar = blockMax(lower + 0.0f, parts[1]) - kBoundSlack;
    if (mayWin) {
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (upper[j][i] >= bar && x[j][i] > -INFINITY) atomicMax(&best, (unsigned long long)arrival(x[j][i], first + 16 * j + i, race, 0));
    }
  } else if (o.way == Way::filtered) {
    storeGroupMax(threadMax, p.scratch.groupMax + int64_t(r) * p.scratch.groups, group, p.scratch.groups);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) least = fminf(least, x[j][i] > -INFINITY ? x[j][i] : INFINITY);
    least = -blockMax(-least + 0.0f, parts[1]);
    if (o.topP < 1 && finite) weight = tileSum(x, sums, [&](float v) { return weightOf(v, max, o.temperature); });
  }
  __syncthreads();
  Slice* slices = p.scratch.slices + int64_t(r) * p.scratch.count;
  if (threadIdx.x == 0) slices[slice] = {max, least, likeliest, idOf(best), weight, 0};
  if (!lastOfRow(p.scratch.ended + r, gridDim.x, &last)) return;

  if (threadIdx.x < 32) {
    const RowSummary all = summaryOf(slices, p.scratch.count);
    const bool greedy = o.way == Way::greedy || !(all.max > -INFINITY && all.max < INFINITY);
    if (greedy && threadIdx.x == 0) p.tokens[r] = all.likeliest;
    if (!greedy && o.way == Way::race) {
      race.max = all.max;
      unsigned long long winner = 0;
      for (int i = threadIdx.x; i < p.scratch.count; i += 32) {
        const float top = __ldcg(&slices[i].max);
        if (!(top > -INFINITY)) continue;
        const int id = __ldcg(&slices[i].winner);
        const unsigned long long a = arrival(cleaned(logits[id]), id, race, 0);
        winner = a > winner ? a : winner;
      }
#pragma unroll
      for (int step = 16; step; step >>= 1) {
        const unsigned long long other = __shfl_xor_sync(~0u, winner, step);
        winner = other > winner ? other : winner;
      }
      if (threadIdx.x == 0) p.tokens[r] = idOf(winner);
    }
    const double sum = !greedy && o.topP < 1 ? weightOfSlices(slices, p.scratch.count, all.max, o.temperature) : 0;
    if (threadIdx.x == 0) filtered = !greedy && o.way == Way::filtered, rowMax = all.max, rowMin = all.min, rowWeight = sum;
  }
  __syncthreads();
  if (!filtered) return;
  race.max = rowMax;
  const Row row{logits, p.scratch.groupMax + int64_t(r) * p.scratch.groups, p.n, p.scratch.groups, aligned};
  unsigned long long lowest = 0;
  if (o.topK < p.n || o.topP < 1) lowest = lastKept(s, row, o, race, rowMin, rowWeight, p.weightBits);
  __syncthreads();
  const int token = raceOfRow(s, row, race, lowest, o.minP);
  if (threadIdx.x == 0) p.tokens[r] = token;
}

}  // namespace

void sampleRows(const Context& c, int32_t* tokens, LogitRows logits, SamplingRows o) {
  int64_t rowsAtOnce;
  const RowScratch scratch = rowScratch(c, logits.cols, rowsAtOnce);
  for (int64_t r = 0; r < logits.rows; r += rowsAtOnce) {
    const int64_t rows = logits.rows - r < rowsAtOnce ? logits.rows - r : rowsAtOnce;
    const SampleArgs args{logits.p + r * logits.stride, logits.stride, tokens + r,
                          {o.temperature + r, o.topK + r, o.topP + r, o.minP + r, o.seeds + 3 * r}, scratch, int(logits.cols), weightBits(logits.cols)};
    launch(c, "sample", sampleSlices, dim3(unsigned(scratch.count), unsigned(rows)), dim3(kThreads), 0, args);
  }
}
