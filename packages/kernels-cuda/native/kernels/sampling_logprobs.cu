// Log-probabilities of the chosen token and of the likeliest ones, and the chosen one's rank.
#include "sampling_slices.cuh"

namespace {

struct LogProbArgs {
  const float* logits;
  int64_t stride;
  float* values;
  int64_t valueStride;
  int32_t* ids;
  int64_t idStride;
  int32_t* ranks;
  const int32_t* chosen;
  RowScratch scratch;
  int n, count;
};

/// The natural logarithm of softmax; the greatest logit may be infinite.
__device__ __forceinline__ float logProb(float v, float max, double logTotal) {
  if (v == -INFINITY) return -INFINITY;
  return float((v == max ? 0 : double(v) - double(max)) - logTotal);
}

/// Sorted into s.list: the tokens of ranks from `above` (a key that comes before them, ~0 for none) on, at least `count` of them
/// where the row has so many, at most kListed; how many.
__device__ int likeliestBelow(RowShared& s, const Row& row, float max, float min, unsigned long long above, int count, int left) {
  const unsigned long long highest = above - (above != ~0ull);
  const float each = float(kBuckets) / (max - min);
  const Steps steps{max, each < INFINITY ? each : 0.0f};
  if (above == ~0ull) {
    const int step = stepOfGroups(s, row, steps, {}, {false, (unsigned long long)count, 0});
    const int n = step < 0 ? -1 : listDownTo(s, row, steps, step);
    if (n >= 0) return n;
  }
  unsigned long long lowest = 0;
  if (count < left) lowest = findToken(s, row, steps, {}, {false, (unsigned long long)count, 0}, 0, 0, highest);
  const int n = listTokens(s, row, lowest ? valueOf(lowest) : -INFINITY, [&](float x, int id) {
    const unsigned long long key = keyOf(x, id);
    return key >= lowest && key <= highest;
  });
  sortList(s, n);
  return n;
}

/// Grid [slices, rows].
__global__ void __launch_bounds__(kThreads) logProbSlices(const LogProbArgs p) {
  __shared__ RowShared s;
  __shared__ uint32_t parts[2][kThreads / 32];
  __shared__ double sums[kThreads / 32];
  __shared__ int last;
  __shared__ float rowMax, rowMin;
  __shared__ double rowLog;
  pdlTrigger();
  pdlWait();

  const int r = blockIdx.y, slice = blockIdx.x, group = slice * (kSlice / kGroup) + threadIdx.x / 4, first = tileStart(group);
  const float* logits = p.logits + r * p.stride;
  const bool aligned = uintptr_t(logits) % 16 == 0;
  const int chosen = p.chosen[r];
  const bool known = chosen >= 0 && chosen < p.n;
  float x[4][4];
  loadTile(x, logits, first, p.n, aligned);
  const float mine = known ? cleaned(logits[chosen]) : 0;
  float threadMax = -INFINITY, min = INFINITY;
  int before = 0;
#pragma unroll
  for (int j = 0; j < 4; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float v = x[j][i];
      const int id = first + 16 * j + i;
      threadMax = fmaxf(threadMax, v);
      min = fminf(min, v > -INFINITY ? v : INFINITY);
      before += v > mine || (v == mine && id < chosen);
    }
  const float max = blockMax(threadMax, parts[0]);
  min = -blockMax(-min + 0.0f, parts[1]);
  storeGroupMax(threadMax, p.scratch.groupMax + int64_t(r) * p.scratch.groups, group, p.scratch.groups);
  // Where the greatest is infinite the tokens that have it share all; the others have nothing.
  const bool finite = max > -INFINITY && max < INFINITY;
  const double weight = tileSum(x, sums, [&](float v) { return finite ? weightOf(v, max, 1) : float(v == max); });
  before = __reduce_add_sync(~0u, before);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[0][threadIdx.x / 32] = uint32_t(before);
  __syncthreads();
  Slice* slices = p.scratch.slices + int64_t(r) * p.scratch.count;
  if (threadIdx.x == 0) {
    unsigned int all = 0;
    for (int w = 0; w < kThreads / 32; w++) all += parts[0][w];
    slices[slice] = {keyOf(max, 0), weight, min, 0, all};
  }
  if (!lastOfRow(p.scratch.ended + r, 1, gridDim.x, &last)) return;

  float* values = p.values + r * p.valueStride;
  int32_t* ids = p.ids + r * p.idStride;
  if (threadIdx.x < 32) {
    const RowSummary all = summaryOf(slices, p.scratch.count);
    const bool weighed = all.max > -INFINITY && all.max < INFINITY;
    double total = 0;
    unsigned int rank = 0;
    for (int i = threadIdx.x; i < p.scratch.count; i += 32) {
      const float top = valueOf(__ldcg(&slices[i].likeliest));
      rank += __ldcg(&slices[i].before);
      if (!weighed) total += top == all.max ? __ldcg(&slices[i].weight) : 0;
    }
    rank = __reduce_add_sync(~0u, rank);
#pragma unroll
    for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(~0u, total, o);
    if (weighed) total = weightOfSlices(slices, p.scratch.count, all.max, 1);
    if (threadIdx.x == 0) {
      rowMax = all.max, rowMin = all.min, rowLog = log(total);
      p.ranks[r] = known ? int(rank) + 1 : 0;
      ids[0] = chosen;
      values[0] = known ? logProb(mine, all.max, rowLog) : -INFINITY;
    }
  }
  __syncthreads();
  const Row row{logits, p.scratch.groupMax + int64_t(r) * p.scratch.groups, p.n, p.scratch.groups, aligned};
  unsigned long long above = ~0ull;
  for (int done = 0; done < p.count;) {
    const int wanted = ::min(p.count - done, kListed / 2);
    const int n = ::min(likeliestBelow(s, row, rowMax, rowMin, above, wanted, p.n - done), p.count - done);
    for (int i = threadIdx.x; i < n; i += kThreads) {
      const unsigned long long key = s.list[i];
      ids[1 + done + i] = idOf(key), values[1 + done + i] = logProb(valueOf(key), rowMax, rowLog);
    }
    above = s.list[n - 1], done += n;
    __syncthreads();
  }
}

}  // namespace

void logProbRows(const Context& c, float* values, int64_t valueStride, int32_t* ids, int64_t idStride, int32_t* ranks, LogitRows logits,
                 const int32_t* chosen, int64_t count) {
  int64_t rowsAtOnce;
  const RowScratch scratch = rowScratch(c, logits.cols, false, rowsAtOnce);
  for (int64_t r = 0; r < logits.rows; r += rowsAtOnce) {
    const int64_t rows = logits.rows - r < rowsAtOnce ? logits.rows - r : rowsAtOnce;
    const LogProbArgs args{logits.p + r * logits.stride, logits.stride, values + r * valueStride, valueStride, ids + r * idStride, idStride, ranks + r,
                           chosen + r, scratch, int(logits.cols), int(count)};
    launch(c, "logProbs", logProbSlices, dim3(unsigned(scratch.count), unsigned(rows)), dim3(kThreads), 0, args);
  }
}
