// Chooses the prefill kernel.
#include "attention_prefill.cuh"

void prefillMmaBf16(const Context& c, const PrefillArgs& a, int64_t rows);
void prefillMmaF16(const Context& c, const PrefillArgs& a, int64_t rows);
bool prefillWgmmaBf16(const Context& c, const PrefillArgs& a, int64_t rows);
bool prefillWgmmaF16(const Context& c, const PrefillArgs& a, int64_t rows);

bool prefillAttentionFits(const Context&, const AttentionCall& call) {
  const CacheLayout& cache = call.cache;
  const DType type = call.qType;
  return (type == DType::bf16 || type == DType::f16) && call.outType == type && cache.dtype == int(type) && cache.keyDim <= 256 && cache.valueDim <= 256;
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
  if (call.softCap > 0) a.cap = call.softCap * kLog2e, a.capScale = call.scale / call.softCap;
  a.skipSingle = call.skipSingle;
  a.transform = call.softCap > 0 || call.slopes || !(call.scale > 0);
  a.vectorQ = vectors(call.q, call.qStride, a.cache.keyDim), a.vectorOut = vectors(call.out, call.outStride, a.cache.valueDim);
  const int64_t rows = call.tokens * call.group();
  constexpr bool kWgmma = false;
  if (kWgmma && c.capability == 90 && (call.qType == DType::bf16 ? prefillWgmmaBf16 : prefillWgmmaF16)(c, a, rows)) return;
  (call.qType == DType::bf16 ? prefillMmaBf16 : prefillMmaF16)(c, a, rows);
}
