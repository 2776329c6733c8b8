// Writing keys and values into their pages.
#include "attention.h"
#include <algorithm>

namespace {

/// `to`, in the cache's type: n numbers `stride` bytes apart, in runs of `run`, which are `next` bytes apart.
template <class To, class From> void scatter(char* to, const From* from, int64_t n, int64_t run, int64_t stride, int64_t next) {
  for (int64_t i = 0; i < n; i += run, to += next)
    for (int64_t j = 0, end = std::min(run, n - i); j < end; j++) {
      if constexpr (sizeof(To) == sizeof(From)) memcpy(to + j * stride, from + i + j, sizeof(To));
      else store(reinterpret_cast<To*>(to + j * stride), load(from + i + j));
    }
}
template <class From> void scatterFloats(DType type, char* to, const From* from, int64_t n, int64_t run, int64_t stride, int64_t next) {
  if (type == DType::f32) scatter<float>(to, from, n, run, stride, next);
  else if (type == DType::bf16) scatter<Bf16>(to, from, n, run, stride, next);
  else if (type == DType::f16) scatter<F16>(to, from, n, run, stride, next);
  else if (type == DType::f8e4m3) scatter<F8e4m3>(to, from, n, run, stride, next);
  else scatter<F8e5m2>(to, from, n, run, stride, next);
}
/// bf16 <-> f16 go through f32.
template <class To, class From> void scatterHalves(char* to, const From* from, int64_t n, int64_t run, int64_t stride, int64_t next) {
  for (int64_t i = 0; i < n; i += run, to += next)
    for (int64_t j = 0, end = std::min(run, n - i); j < end; j++) store(reinterpret_cast<To*>(to + j * stride), load(from + i + j));
}
void scatterAny(DType toType, char* to, DType fromType, const char* from, int64_t n, int64_t run, int64_t stride, int64_t next) {
  if (fromType == DType::f32) scatterFloats(toType, to, reinterpret_cast<const float*>(from), n, run, stride, next);
  else if (fromType == DType::bf16 && toType == DType::f16) scatterHalves<F16>(to, reinterpret_cast<const Bf16*>(from), n, run, stride, next);
  else if (fromType == DType::f16 && toType == DType::bf16) scatterHalves<Bf16>(to, reinterpret_cast<const F16*>(from), n, run, stride, next);
  else if (fromType == DType::bf16) scatterFloats(toType, to, reinterpret_cast<const Bf16*>(from), n, run, stride, next);
  else scatterFloats(toType, to, reinterpret_cast<const F16*>(from), n, run, stride, next);
}

void writeToken(const CacheWrite& w, int64_t token) {
  const CacheLayout& c = w.cache;
  const int64_t page = w.slots[token] / kPageTokens, place = w.slots[token] % kPageTokens, lane = c.perLane();
  // Where a token's place is within a line, and how far apart a key's (a value's) neighbouring numbers are.
  const bool paired = c.dtype == DType::bf16;  // neighbours share a lane's 4 bytes; else they are rows of 16 apart
  const int size = sizeOf(c.dtype);
  const int64_t keyPlace = place * (paired ? 4 : size), keyStep = paired ? 2 : 16 * size;
  const int64_t valuePlace = place % lane * (paired ? 2 : 16 * size), valueStep = paired ? 4 : size;
  for (int64_t h = 0; h < c.kvHeads; h++) {
    char* const head = c.head(page, h);
    const char* k = w.k + (token * w.kStride + h * c.keyDim) * sizeOf(w.kType);
    const char* v = w.v + (token * w.vStride + h * c.valueDim) * sizeOf(w.vType);
    scatterAny(c.dtype, head + keyPlace, w.kType, k, c.keyDim, lane, keyStep, kLine);
    for (int64_t part = 0, panels = c.valuePanels(); part * kPartPanels < panels; part++) {
      const int64_t J = std::min<int64_t>(kPartPanels, panels - part * kPartPanels), first = part * kPartPanels * 16;
      char* to = head + c.keyBytes() + part * c.partBytes() + place / lane * J * kLine + valuePlace;
      scatterAny(c.dtype, to, w.vType, v + first * sizeOf(w.vType), std::min(J * 16, c.valueDim - first), 16, valueStep, kLine);
    }
  }
}

}  // namespace

void writeCache(Context& context, const CacheWrite& w) {
  // A page that is begun anew loses what a former sequence left in its values: what no query weighs must be finite.
  for (int64_t t = 0; t < w.tokens; t++)
    if (w.slots[t] % kPageTokens == 0)
      for (int64_t h = 0; h < w.cache.kvHeads; h++)
        memset(w.cache.head(w.slots[t] / kPageTokens, h) + w.cache.keyBytes(), 0, size_t(w.cache.valueBytes()));
  constexpr int64_t kTokens = 16;  // a chunk's; fewer are not worth waking anybody
  context.pool.run(int((w.tokens + kTokens - 1) / kTokens), [&](int chunk, int) {
    for (int64_t t = chunk * kTokens, end = std::min(w.tokens, t + kTokens); t < end; t++) writeToken(w, t);
  });
}
