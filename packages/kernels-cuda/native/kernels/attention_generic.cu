// Attention for every type, size and option, in f32: the kernel that is always right, and the one for f32 and odd shapes.
//
// A block has a tile of M rows of one kv head; a row is a query of one head (queries outermost, the kv head's group of heads
// innermost). It walks the context N tokens at a time: keys and values to shared memory as f32, scores, a running softmax, and
// the weighted values in registers (4 rows times 8 dimensions a thread). Few tiles share a context between several blocks; the
// last of them to finish merges what they left in scratch memory.
#include "attention.h"
#include "attention_generic_elements.cuh"
#include "launch.h"

namespace {

constexpr int kThreads = 256, kThreadRows = 4;
constexpr float kLog2e = 1.4426950408889634f;

/// TC threads side by side own 8 dimensions each.
template <int TC> struct Shape {
  static constexpr int rows = kThreads / TC * kThreadRows, tokens = TC <= 32 ? 32 : 8;
};

struct Split {
  int count, tiles;  // of the context; tiles a sequence may have
  float *sums, *states;
  unsigned int* counters;
};

template <int TC> __host__ __device__ size_t sharedFloats(int keyDim, int valueDim) {
  using S = Shape<TC>;
  return size_t(S::rows + S::tokens) * (keyDim + 4) + size_t(S::tokens) * valueDim + S::rows * (S::tokens + 1) + 6 * S::rows;
}

template <int TC> __global__ void __launch_bounds__(kThreads) attentionTiles(AttentionCall c, Split split) {
  using S = Shape<TC>;
  constexpr int M = S::rows, N = S::tokens;
  pdlTrigger();
  pdlWait();
  extern __shared__ float4 shared4[];
  __shared__ bool last;
  const PageRows keyRows = c.cache.keys(), valueRows = c.cache.values();
  const int eb = c.cache.elementBytes, per = 16 / eb;
  const int keyDim = keyRows.rowBytes / eb, valueDim = valueRows.rowBytes / eb;  // padded
  const int KP = keyDim + 4, PP = N + 1;
  float* const q = reinterpret_cast<float*>(shared4);
  float* const k = q + M * KP;
  float* const v = k + N * KP;
  float* const p = v + N * valueDim;
  float* const most = p + M * PP;
  float* const total = most + M;
  float* const shrink = total + M;
  int* const positionOf = reinterpret_cast<int*>(shrink + M);  // of each row's query; the first position that it sees; its head
  int* const oldestOf = positionOf + M;
  int* const headOf = oldestOf + M;

  const int s = blockIdx.z, kvHead = blockIdx.y, tile = blockIdx.x / split.count, part = blockIdx.x % split.count;
  const int first = c.queryStarts[s];
  const int64_t queries = int64_t(c.queryStarts[s + 1]) - first;
  const int group = int(c.heads / c.cache.kvHeads);
  const int64_t row0 = int64_t(tile) * M;
  if (queries <= 0 || first < 0 || first + queries > c.tokens || row0 >= queries * group) return;
  if (c.skipSingle && queries == 1) return;
  const int rows = int(min(int64_t(M), queries * group - row0));
  const int length = int(min(int64_t(c.contextLengths[s]), c.maxPages * kPageTokens));
  const DType type = DType(c.cache.dtype);
  const int tid = threadIdx.x, tr = tid / TC, tc = tid % TC, warp = tid / 32, lane = tid % 32;
  if (tid < rows) {
    const int64_t row = row0 + tid;
    const int position = length - int(queries) + int(row / group);
    positionOf[tid] = position;
    oldestOf[tid] = c.window > 0 && position >= c.window ? position - int(c.window) + 1 : 0;
    headOf[tid] = kvHead * group + int(row % group);
  }
  if (tid < M) most[tid] = -INFINITY, total[tid] = 0.f;
  __syncthreads();
  // The row of q and out that a row's query is in.
  auto tokenOf = [&](int row) { return int64_t(first) + queries - length + positionOf[row]; };
  for (int e = tid; e < M * keyDim; e += kThreads) {
    const int row = e / keyDim, d = e % keyDim;
    const bool there = row < rows && d < c.cache.keyDim;
    q[row * KP + d] = there ? loadElement(c.qType, c.q, tokenOf(row) * c.qStride + int64_t(headOf[row]) * c.cache.keyDim + d) : 0.f;
  }
  float acc[kThreadRows][8];
#pragma unroll
  for (int i = 0; i < kThreadRows; i++)
#pragma unroll
    for (int j = 0; j < 8; j++) acc[i][j] = 0.f;

  // What this part of the tile's context is, in steps of N tokens.
  const int end = max(0, positionOf[rows - 1] + 1), begin = min(end, oldestOf[0]) / N;
  const int steps = (end + N - 1) / N - begin, each = (steps + split.count - 1) / split.count;
  const int from = begin + min(steps, part * each), to = begin + min(steps, (part + 1) * each);
  const int32_t* const table = c.pageTables + s * c.tableStride;
  const bool mine = tr * kThreadRows < rows;
  for (int step = from; step < to; step++) {
    const int t0 = step * N;
    const int keyChunks = keyDim / per, chunks = keyChunks + valueDim / per;
    for (int e = tid; e < N * chunks; e += kThreads) {
      const int token = e / chunks, chunk = e % chunks;
      const int t = t0 + token;
      const int page = t < end ? table[t / kPageTokens] : -1;
      uint4 data = make_uint4(0, 0, 0, 0);
      const bool isKey = chunk < keyChunks;
      const PageRows& r = isKey ? keyRows : valueRows;
      const int place = int(t % kPageTokens), at = isKey ? chunk : chunk - keyChunks;
      if (page >= 0 && page < c.cache.pages)
        data = *reinterpret_cast<const uint4*>(c.cache.head(page, kvHead) + (isKey ? 0 : keyRows.bytes()) + r.chunk(place, at));
      float f[16];
      unpackChunk(type, data, f);
      float4* const to4 = reinterpret_cast<float4*>(isKey ? k + token * KP + at * per : v + token * valueDim + at * per);
#pragma unroll
      for (int i = 0; i < 4; i++)
        if (i * 4 < per) to4[i] = make_float4(f[4 * i], f[4 * i + 1], f[4 * i + 2], f[4 * i + 3]);
    }
    __syncthreads();
    if (mine) {
      constexpr int kTokens = TC < N ? N / TC : 1;  // of a thread
#pragma unroll
      for (int n = 0; n < kTokens; n++) {
        const int token = tc + n * TC;
        if (token >= N) break;
        float sum[kThreadRows] = {};
        const float4* const key = reinterpret_cast<const float4*>(k + token * KP);
        for (int d = 0; d < keyDim / 4; d++) {
          const float4 b = key[d];
#pragma unroll
          for (int i = 0; i < kThreadRows; i++) {
            const float4 a = reinterpret_cast<const float4*>(q + (tr * kThreadRows + i) * KP)[d];
            sum[i] = fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum[i]))));
          }
        }
        const int t = t0 + token;
#pragma unroll
        for (int i = 0; i < kThreadRows; i++) {
          const int row = tr * kThreadRows + i;
          float score = -INFINITY;
          if (row < rows && t <= positionOf[row] && t >= oldestOf[row]) {
            const int page = table[t / kPageTokens];
            if (page >= 0 && page < c.cache.pages) {
              score = sum[i] * c.scale;
              if (c.softCap > 0) score = c.softCap * tanhf(score / c.softCap);
              if (c.slopes) score += c.slopes[headOf[row]] * float(t - positionOf[row]);
              score *= kLog2e;
            }
          }
          p[row * PP + token] = score;
        }
      }
    }
    __syncthreads();
    for (int row = warp; row < rows; row += kThreads / 32) {
      const float score = lane < N ? p[row * PP + lane] : -INFINITY;
      const float before = most[row], now = fmaxf(before, warpMax(score));
      const float w = now == -INFINITY ? 0.f : exp2f(score - now);
      const float sum = warpSum(w);
      if (lane < N) p[row * PP + lane] = w;
      __syncwarp();
      if (lane == 0) {
        const float c = now == -INFINITY ? 1.f : exp2f(before - now);
        most[row] = now, total[row] = total[row] * c + sum, shrink[row] = c;
      }
    }
    __syncthreads();
    if (mine) {
#pragma unroll
      for (int i = 0; i < kThreadRows; i++) {
        const float c = tr * kThreadRows + i < rows ? shrink[tr * kThreadRows + i] : 0.f;
#pragma unroll
        for (int j = 0; j < 8; j++) acc[i][j] *= c;
      }
      for (int token = 0; token < N; token++) {
        float w[kThreadRows];
#pragma unroll
        for (int i = 0; i < kThreadRows; i++) w[i] = tr * kThreadRows + i < rows ? p[(tr * kThreadRows + i) * PP + token] : 0.f;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int d = h * TC * 4 + tc * 4;
          if (d >= valueDim) break;
          const float4 b = *reinterpret_cast<const float4*>(v + token * valueDim + d);
#pragma unroll
          for (int i = 0; i < kThreadRows; i++) {
            acc[i][4 * h] = fmaf(w[i], b.x, acc[i][4 * h]), acc[i][4 * h + 1] = fmaf(w[i], b.y, acc[i][4 * h + 1]);
            acc[i][4 * h + 2] = fmaf(w[i], b.z, acc[i][4 * h + 2]), acc[i][4 * h + 3] = fmaf(w[i], b.w, acc[i][4 * h + 3]);
          }
        }
      }
    }
    __syncthreads();
  }
  __syncthreads();

  /// Ends a row: the sink takes part in the total.
  auto weight = [&](int row, float most, float total) {
    if (c.sinks && most != -INFINITY) total += exp2f(c.sinks[headOf[row]] * kLog2e - most);
    return total > 0 ? 1.f / total : 0.f;
  };
  auto store = [&](int row, int d, float value) {
    if (d < c.cache.valueDim) storeElement(c.outType, c.out, tokenOf(row) * c.outStride + int64_t(headOf[row]) * c.cache.valueDim + d, value);
  };
  if (split.count == 1) {
    if (!mine) return;
#pragma unroll
    for (int i = 0; i < kThreadRows; i++) {
      const int row = tr * kThreadRows + i;
      if (row >= rows) break;
      const float w = weight(row, most[row], total[row]);
#pragma unroll
      for (int j = 0; j < 8; j++) store(row, j / 4 * TC * 4 + tc * 4 + j % 4, acc[i][j] * w);
    }
    return;
  }
  const int64_t unit = (int64_t(s) * gridDim.y + kvHead) * split.tiles + tile;
  float* const sums = split.sums + unit * split.count * M * valueDim;
  float* const states = split.states + unit * split.count * M * 2;
  if (mine) {
#pragma unroll
    for (int i = 0; i < kThreadRows; i++) {
      const int row = tr * kThreadRows + i;
      if (row >= rows) break;
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int d = h * TC * 4 + tc * 4;
        if (d < valueDim)
          *reinterpret_cast<float4*>(sums + (int64_t(part) * M + row) * valueDim + d) = make_float4(acc[i][4 * h], acc[i][4 * h + 1], acc[i][4 * h + 2], acc[i][4 * h + 3]);
      }
    }
  }
  if (tid < rows) states[(part * M + tid) * 2] = most[tid], states[(part * M + tid) * 2 + 1] = total[tid];
  __threadfence();
  __syncthreads();
  if (tid == 0) {
    last = atomicAdd(split.counters + unit, 1) == unsigned(split.count - 1);
    if (last) split.counters[unit] = 0;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int e = tid; e < rows * valueDim; e += kThreads) {
    const int row = e / valueDim, d = e % valueDim;
    float all = -INFINITY, sum = 0.f, value = 0.f;
    for (int i = 0; i < split.count; i++) all = fmaxf(all, __ldcg(states + (i * M + row) * 2));
    for (int i = 0; i < split.count && all != -INFINITY; i++) {
      const float w = exp2f(__ldcg(states + (i * M + row) * 2) - all);
      sum += w * __ldcg(states + (i * M + row) * 2 + 1);
      value += w * __ldcg(sums + (int64_t(i) * M + row) * valueDim + d);
    }
    store(row, d, value * weight(row, all, sum));
  }
}

template <int TC> void start(Context& c, const AttentionCall& call) {
  using S = Shape<TC>;
  const int padded = call.cache.values().rowBytes / call.cache.elementBytes, keys = call.cache.keys().rowBytes / call.cache.elementBytes;
  const int64_t tiles = (call.maxQueryLength * call.group() + S::rows - 1) / S::rows;
  const int64_t units = tiles * call.cache.kvHeads * call.sequences;
  // Enough blocks for the chip, but no part shorter than a few steps, and room for what they leave behind.
  const int64_t steps = (call.maxContextLength + S::tokens - 1) / S::tokens;
  const int64_t unitFloats = int64_t(S::rows) * (padded + 2);
  int64_t splits = min(int64_t(4) * c.sms / units, (steps + 3) / 4);
  splits = min(splits, int64_t(Context::kScratchBytes / sizeof(float)) / (units * unitFloats));
  if (units > int64_t(Context::kCounters) || splits < 1) splits = 1;
  Split split{int(splits), int(tiles), reinterpret_cast<float*>(c.scratch), nullptr, c.counters};
  split.states = split.sums + units * splits * S::rows * padded;
  launch(c, "attention", attentionTiles<TC>, dim3(unsigned(tiles * splits), unsigned(call.cache.kvHeads), unsigned(call.sequences)), dim3(kThreads),
         sharedFloats<TC>(keys, padded) * sizeof(float), call, split);
}

}  // namespace

void attentionGeneric(Context& c, const AttentionCall& call) {
  const int dim = call.cache.keyDim > call.cache.valueDim ? call.cache.keyDim : call.cache.valueDim;
  if (dim <= 128) start<16>(c, call);
  else if (dim <= 256) start<32>(c, call);
  else if (dim <= 512) start<64>(c, call);
  else start<128>(c, call);
}
