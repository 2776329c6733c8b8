// rotary, writeCache, pagedAttention.
//
//   heads   6 numbers   matrix [tokens, heads · dim], heads
//   cache   6 numbers   address, dtype, pages, kv heads, key dim, value dim
#include "attention.h"
#include <cmath>
#include "op.h"
#include "rotary.h"

namespace {

constexpr int64_t kMostHeads = 1 << 14, kMostDim = 1 << 14;

struct Heads {
  Matrix m;
  int64_t heads, dim;
};
Heads headsOf(Args& a, const char* name) {
  Heads h;
  h.m = a.floats(name);
  h.heads = a.integer(name, 1, kMostHeads);
  if (h.m.cols == 0 || h.m.cols % h.heads) a.fail(name, "should have heads of one size");
  h.dim = h.m.cols / h.heads;
  return h;
}

CacheLayout cacheOf(Args& a) {
  CacheLayout c;
  double p = a.number("cache");
  c.dtype = a.dtype("cache");
  if (!isFloat(c.dtype) && c.dtype != DType::f8e4m3 && c.dtype != DType::f8e5m2) a.fail("cache", "should be f32, f16, bf16 or an 8-bit float");
  c.pages = a.integer("cache", 1, int64_t(1) << 27);
  c.kvHeads = a.integer("cache", 1, kMostHeads);
  c.keyDim = a.integer("cache", 1, kMostDim), c.valueDim = a.integer("cache", 1, kMostDim);
  int64_t bytes;
  if (__builtin_mul_overflow(c.pages, c.pageBytes(), &bytes)) a.fail("cache", "is larger than any memory");
  c.p = a.address("cache", p, DType::u8, bytes);
  if (uintptr_t(c.p) % kLine) a.fail("cache", "is not aligned to 64 bytes");
  return c;
}

/// q: heads, k: heads, positions: vector, cosSin: matrix, interleaved, selector: optional vector, bound
void Rotary(Args& a) {
  Heads q = headsOf(a, "q"), k = headsOf(a, "k");
  Vector positions = a.vectorOf("positions", DType::i32);
  Matrix table = a.matrixOf("cosSin", DType::f32);
  RotaryCall call;
  call.interleaved = a.flag("interleaved");
  Vector selector = a.optional("selector");
  call.bound = a.integer("bound", -(int64_t(1) << 52), int64_t(1) << 52);
  call.tokens = positions.length;
  a.require(q.m.rows == call.tokens && k.m.rows == call.tokens, "q, k and positions should have as many tokens");
  a.require(table.cols > 0 && table.cols % 2 == 0 && table.cols <= q.dim && table.cols <= k.dim,
            "cosSin should have an even number of columns, no more than a head of q and of k has dimensions");
  a.require(!selector.p || (selector.dtype == DType::i32 && selector.length == call.tokens), "selector should be i32, one for each token");
  call.sides[0] = {q.m.p, q.m.dtype, q.m.stride, q.heads, q.dim};
  call.sides[1] = {k.m.p, k.m.dtype, k.m.stride, k.heads, k.dim};
  call.positions = positions.as<int32_t>();
  call.table = table.as<float>(), call.tableStride = table.stride, call.half = table.cols / 2;
  call.selector = selector.as<int32_t>(), call.secondHalf = table.rows / 2;
  for (int64_t t = 0; t < call.tokens; t++)
    if (call.positions[t] < 0 || call.row(t) >= table.rows)
      a.fail("positions", ("has " + std::to_string(call.positions[t]) + ", which is outside the table of " + std::to_string(table.rows) + " rows").c_str());
  if (call.tokens) rotary(a.context(), call);
}

/// cache, k: matrix [tokens, kvHeads · keyDim], v: matrix, slots: vector
void WriteCache(Args& a) {
  CacheWrite w;
  w.cache = cacheOf(a);
  Matrix k = a.floats("k"), v = a.floats("v");
  Vector slots = a.vectorOf("slots", DType::i32);
  w.tokens = slots.length;
  a.require(k.rows == w.tokens && v.rows == w.tokens, "k, v and slots should have as many tokens");
  a.require(k.cols == w.cache.kvHeads * w.cache.keyDim, "k should have the cache's kv heads times its key dimensions");
  a.require(v.cols == w.cache.kvHeads * w.cache.valueDim, "v should have the cache's kv heads times its value dimensions");
  w.k = k.p, w.kType = k.dtype, w.kStride = k.stride;
  w.v = v.p, w.vType = v.dtype, w.vStride = v.stride;
  w.slots = slots.as<int32_t>();
  for (int64_t t = 0; t < w.tokens; t++)
    if (w.slots[t] < 0 || w.slots[t] >= w.cache.pages * kPageTokens)
      a.fail("slots", ("has " + std::to_string(w.slots[t]) + ", which is outside the cache of " + std::to_string(w.cache.pages) + " pages").c_str());
  if (w.tokens) writeCache(a.context(), w);
}

/// Everything of the batch that the loops rely on.
void checkBatch(Args& a, const AttentionCall& c, int64_t tokens) {
  a.require(c.queryStarts[0] >= 0 && c.queryStarts[c.sequences] <= tokens, "queryStarts should be places in q");
  for (int64_t s = 0; s < c.sequences; s++) {
    const int64_t queries = int64_t(c.queryStarts[s + 1]) - c.queryStarts[s], length = c.contextLengths[s];
    auto fail = [&](const char* name, const std::string& what) { a.fail(name, ("of sequence " + std::to_string(s) + " " + what).c_str()); };
    if (queries < 0) fail("queryStarts", "fall");
    if (queries == 0) continue;
    if (length < queries) fail("contextLengths", "is " + std::to_string(length) + ", fewer than its " + std::to_string(queries) + " queries");
    if (length > c.maxPages * kPageTokens)
      fail("contextLengths", "is " + std::to_string(length) + ", but pageTables has only " + std::to_string(c.maxPages) + " columns");
    const int64_t first = c.window > 0 ? std::max<int64_t>(0, length - queries - c.window + 1) : 0;
    const int32_t* table = c.pageTables + s * c.tableStride;
    for (int64_t n = first / kPageTokens; n * kPageTokens < length; n++)
      if (table[n] < 0 || table[n] >= c.cache.pages)
        fail("pageTables", "has page " + std::to_string(table[n]) + ", which is outside the cache of " + std::to_string(c.cache.pages) + " pages");
  }
}

/// out: matrix, q: heads, cache, queryStarts: vector, contextLengths: vector, pageTables: matrix, scale, window, softCap,
/// alibiSlopes: optional vector, sinks: optional vector, maxQueryLength, maxContextLength
void PagedAttention(Args& a) {
  AttentionCall c;
  Matrix out = a.floats("out");
  Heads q = headsOf(a, "q");
  c.cache = cacheOf(a);
  Vector starts = a.vectorOf("queryStarts", DType::i32), lengths = a.vectorOf("contextLengths", DType::i32);
  Matrix tables = a.matrixOf("pageTables", DType::i32);
  c.scale = a.real("scale");
  c.window = a.integer("window", 0, int64_t(1) << 52);
  c.softCap = a.real("softCap");
  Vector slopes = a.optional("alibiSlopes"), sinks = a.optional("sinks");
  a.number("maxQueryLength"), a.number("maxContextLength");  // the batch itself is here to look at
  a.require(std::isfinite(c.scale), "scale should be finite");
  a.require(std::isfinite(c.softCap) && c.softCap >= 0, "softCap should be 0 (off) or greater");
  a.require(q.dim == c.cache.keyDim, "q should have heads of the cache's key dimensions");
  a.require(q.heads % c.cache.kvHeads == 0, "the heads of q should be a multiple of the cache's kv heads");
  a.require(out.rows == q.m.rows && out.cols == q.heads * c.cache.valueDim, "out should have q's tokens, and its heads times the cache's value dimensions");
  a.require(lengths.length > 0 || starts.length <= 1, "queryStarts should have one entry more than contextLengths");
  if (lengths.length == 0 || q.m.rows == 0) return;
  a.require(starts.length == lengths.length + 1, "queryStarts should have one entry more than contextLengths");
  a.require(tables.rows == lengths.length, "pageTables should have a row for each sequence");
  for (const Vector* v : {&slopes, &sinks})
    a.require(!v->p || (v->dtype == DType::f32 && v->length == q.heads), "alibiSlopes and sinks should be f32, one for each head");
  a.require(out.p != q.m.p, "out and q should not be the same memory");
  c.out = out.p, c.outType = out.dtype, c.outStride = out.stride;
  c.q = q.m.p, c.qType = q.m.dtype, c.qStride = q.m.stride;
  c.heads = q.heads, c.sequences = lengths.length, c.maxPages = tables.cols;
  c.queryStarts = starts.as<int32_t>(), c.contextLengths = lengths.as<int32_t>();
  c.pageTables = tables.as<int32_t>(), c.tableStride = tables.stride;
  c.slopes = slopes.as<float>(), c.sinks = sinks.as<float>();
  checkBatch(a, c, q.m.rows);
  pagedAttention(a.context(), c);
}

}  // namespace

void InitAttention(Napi::Env env, Napi::Object exports) {
  add<Rotary>(env, exports, "rotary");
  add<WriteCache>(env, exports, "writeCache");
  add<PagedAttention>(env, exports, "pagedAttention");
}
