// Chooses the prefill kernel and its splits, and adds splits up.
#include <algorithm>
#include "attention_prefill.cuh"
#include "attention_prefill_launch.h"
#include "launch.h"

namespace {

constexpr int kMostSplits = 32, kMergeWarps = 4;

/// One warp a row of out; rows that no sequence with several queries owns stay as they are.
template <class T> __global__ void __launch_bounds__(32 * kMergeWarps) merge(PrefillArgs a) {
  pdlTrigger();
  pdlWait();
  const int64_t row = int64_t(blockIdx.x) * kMergeWarps + threadIdx.x / 32, rows = int64_t(a.tokens) * a.heads;
  if (row >= rows) return;
  const int lane = threadIdx.x & 31, token = int(row / a.heads), head = int(row % a.heads);
  const int s = sequenceOf(a.sequences, [&](int i) { return a.queryStarts[i] <= token; });
  if (token < a.queryStarts[s] || token >= a.queryStarts[s + 1] || (a.skipSingle && a.queryStarts[s + 1] - a.queryStarts[s] == 1)) return;
  SplitState state = {-INFINITY, 0.f};
  if (lane < a.splits) state = splitStates(a)[lane * rows + row];
  const float most = warpMax(state.most), shrink = state.most == -INFINITY ? 0.f : exp2Approx(state.most - most), total = warpSum(state.total * shrink);
  const float weight = shrink * outputScale(most, total, a.sinks ? a.sinks + head : nullptr);
  T* out = reinterpret_cast<T*>(a.out) + token * a.outStride + int64_t(head) * a.cache.valueDim;
  for (int first = 0; first < a.cache.valueDim; first += 32) {
    const bool mine = first + lane < a.cache.valueDim;
    float sum = 0.f;
    for (int i = 0; i < a.splits; i++) {
      const float w = __shfl_sync(~0u, weight, i);
      // A part without keys has no numbers worth reading.
      if (w != 0.f && mine) sum += w * a.partial[(i * rows + row) * a.partialDim + first + lane];
    }
    if (mine) out[first + lane] = fromFloat<T>(sum);
  }
}

}  // namespace

void mergeSplits(Context& c, const PrefillArgs& a, DType type) {
  const int64_t rows = int64_t(a.tokens) * a.heads;
  launch(c, "attention prefill merge", type == DType::bf16 ? merge<bf16> : merge<f16>, dim3(unsigned((rows + kMergeWarps - 1) / kMergeWarps)), dim3(32 * kMergeWarps), 0, a);
}

void splitKeys(const Context& c, PrefillArgs& a, const PrefillShape& shape, int tileRows, int dim, int tileKeys, int slots) {
  a.splits = 1, a.partialDim = dim, a.partial = reinterpret_cast<float*>(c.scratch);
  const int64_t tiles = (shape.rows + tileRows - 1) / tileRows * a.cache.kvHeads, steps = (shape.context + tileKeys - 1) / tileKeys;
  if (tiles >= 2 * slots) return;
  const int64_t bytes = int64_t(a.tokens) * a.heads * (dim * sizeof(float) + sizeof(SplitState));
  // In steps over a tile of keys: a block's start and end cost about 3, adding up about 4.
  int64_t best = (tiles + slots - 1) / slots * (steps + 3);
  for (int splits = 2; splits <= kMostSplits && splits * bytes <= int64_t(Context::kScratchBytes) && splits <= steps; splits++) {
    const int64_t cost = (tiles * splits + slots - 1) / slots * ((steps + splits - 1) / splits + 3) + 4;
    if (cost < best) best = cost, a.splits = splits;
  }
}

bool prefillAttentionFits(const Context&, const AttentionCall& call) {
  const CacheLayout& cache = call.cache;
  const DType type = call.qType;
  return (type == DType::bf16 || type == DType::f16) && call.outType == type && (cache.dtype == int(type) || cache.elementBytes == 1) && cache.keyDim <= 256 && cache.valueDim <= 256;
}

void prefillAttention(Context& c, const AttentionCall& call) {
  if (call.tokens == 0 || call.sequences == 0) return;
  auto vectors = [](const char* p, int64_t stride, int dim) { return uintptr_t(p) % 16 == 0 && stride % 8 == 0 && dim % 8 == 0; };
  PrefillArgs a{};
  a.cache = call.cache;
  a.out = call.out, a.q = call.q;
  a.outStride = call.outStride, a.qStride = call.qStride, a.tableStride = call.tableStride;
  a.queryStarts = call.queryStarts, a.contextLengths = call.contextLengths, a.pageTables = call.pageTables;
  a.slopes = call.slopes, a.sinks = call.sinks;
  a.tokens = int(call.tokens), a.heads = int(call.heads), a.group = int(call.group()), a.sequences = int(call.sequences);
  a.maxPages = int(call.maxPages);
  a.window = call.window > 0 && call.window < (int64_t(1) << 30) ? int(call.window) : 0;
  a.scale = call.scale * kLog2e;
  if (call.softCap > 0) a.cap = call.softCap * kLog2e, a.capScale = call.scale / call.softCap * 2 * kLog2e;
  a.skipSingle = call.skipSingle;
  a.transform = call.softCap > 0 || call.slopes || !(call.scale > 0);
  a.vectorQ = vectors(call.q, call.qStride, a.cache.keyDim), a.vectorOut = vectors(call.out, call.outStride, a.cache.valueDim);
  const int64_t context = std::max<int64_t>(call.maxContextLength, 1);
  const PrefillShape shape{call.qType, call.tokens * call.group(), a.window ? std::min(context, int64_t(a.window) + call.maxQueryLength) : context};
  if (a.cache.elementBytes == 1) {
    if (c.capability == 90 && (call.qType == DType::bf16 ? prefillWgmmaBf16Bytes : prefillWgmmaF16Bytes)(c, a, shape)) return;
    return (call.qType == DType::bf16 ? prefillMmaBf16Bytes : prefillMmaF16Bytes)(c, a, shape);
  }
  if (c.capability == 90 && (call.qType == DType::bf16 ? prefillWgmmaBf16 : prefillWgmmaF16)(c, a, shape)) return;
  (call.qType == DType::bf16 ? prefillMmaBf16 : prefillMmaF16)(c, a, shape);
}
