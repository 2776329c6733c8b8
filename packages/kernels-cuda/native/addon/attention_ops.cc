// rotary, writeCache, pagedAttention, and the fused calls that do several of them in one kernel.
//
//   heads   6 numbers   matrix [tokens, heads · dim], heads
//   cache   6 numbers   address, dtype, pages, kv heads, key dim, value dim
//
// What the batch's tensors hold is on the device, so only their places are checked here; the kernels stay in bounds by themselves.
#include "attention.h"
#include <cmath>
#include "attention_decode.h"
#include "attention_prefill.h"
#include "fused_calls.h"
#include "op.h"
#include "rotary.h"

namespace {

constexpr int64_t kMostHeads = 1 << 14;

struct Heads {
  Matrix m;
  int64_t heads, dim;
  HeadRows rows() const {
    HeadRows r;
    r.p = m.p, r.type = m.dtype, r.stride = m.stride, r.heads = int(heads), r.dim = int(dim);
    return r;
  }
};
Heads headsOf(Args& a, const char* name) {
  Heads h;
  h.m = a.floats(name);
  h.heads = a.integer(name, 1, kMostHeads);
  if (h.m.cols == 0 || h.m.cols % h.heads) a.fail(name, "should have heads of one size");
  h.dim = h.m.cols / h.heads;
  if (h.dim > kMostHeadDim) a.fail(name, "has heads of more than 1,024 dimensions");
  return h;
}

CacheLayout cacheOf(Args& a) {
  CacheLayout c;
  double p = a.number("cache");
  const DType type = a.dtype("cache");
  if (!isFloat(type) && type != DType::f8e4m3 && type != DType::f8e5m2) a.fail("cache", "should be f32, f16, bf16 or an 8-bit float");
  c.dtype = int(type), c.elementBytes = sizeOf(type);
  c.pages = a.integer("cache", 1, int64_t(1) << 27);
  c.kvHeads = int(a.integer("cache", 1, kMostHeads));
  c.keyDim = int(a.integer("cache", 1, kMostHeadDim)), c.valueDim = int(a.integer("cache", 1, kMostHeadDim));
  int64_t bytes;
  if (__builtin_mul_overflow(c.pages, c.pageBytes(), &bytes)) a.fail("cache", "is larger than any memory");
  c.p = a.address("cache", p, DType::u8, bytes);
  if (uintptr_t(c.p) % 64) a.fail("cache", "is not aligned to 64 bytes");
  return c;
}

/// positions: vector, cosSin: matrix, interleaved, selector: optional vector, bound
RotaryTable rotaryOf(Args& a, int64_t tokens, int64_t leastDim) {
  RotaryTable t;
  Vector positions = a.vectorOf("positions", DType::i32);
  Matrix table = a.matrixOf("cosSin", DType::f32);
  t.interleaved = a.flag("interleaved");
  Vector selector = a.optional("selector");
  t.bound = a.integer("bound", -(int64_t(1) << 52), int64_t(1) << 52);
  a.require(positions.length == tokens, "q, k and positions should have as many tokens");
  a.require(table.cols > 0 && table.cols % 2 == 0 && table.cols <= leastDim,
            "cosSin should have an even number of columns, no more than a head of q and of k has dimensions");
  a.require(!selector.p || (selector.dtype == DType::i32 && selector.length == tokens), "selector should be i32, one for each token");
  t.p = table.as<float>(), t.rows = table.rows, t.stride = table.stride, t.half = int(table.cols / 2);
  t.positions = positions.as<int32_t>(), t.selector = selector.as<int32_t>();
  return t;
}

/// q: heads, k: heads, rotary
void Rotary(Args& a) {
  Heads q = headsOf(a, "q"), k = headsOf(a, "k");
  QkvCall call;
  call.tokens = q.m.rows;
  a.require(k.m.rows == call.tokens, "q, k and positions should have as many tokens");
  call.rotary = rotaryOf(a, call.tokens, q.dim < k.dim ? q.dim : k.dim);
  call.q = q.rows(), call.k = k.rows();
  call.storeQ = call.storeK = true;
  if (call.tokens) qkvRows(a.context(), call);
}

/// k and v of a cache: matrices [tokens, kvHeads · dim]
void cacheRows(Args& a, const CacheLayout& cache, const Matrix& k, const Matrix& v, const Vector& slots, QkvCall& call) {
  a.require(k.rows == slots.length && v.rows == slots.length, "k, v and slots should have as many tokens");
  a.require(k.cols == int64_t(cache.kvHeads) * cache.keyDim, "k should have the cache's kv heads times its key dimensions");
  a.require(v.cols == int64_t(cache.kvHeads) * cache.valueDim, "v should have the cache's kv heads times its value dimensions");
  auto rows = [&](const Matrix& m, int dim) {
    HeadRows r;
    r.p = m.p, r.type = m.dtype, r.stride = m.stride, r.heads = cache.kvHeads, r.dim = dim;
    return r;
  };
  call.k = rows(k, cache.keyDim), call.v = rows(v, cache.valueDim);
  call.cache = cache, call.slots = slots.as<int32_t>(), call.tokens = slots.length;
}

/// cache, k: matrix [tokens, kvHeads · keyDim], v: matrix, slots: vector
void WriteCache(Args& a) {
  const CacheLayout cache = cacheOf(a);
  Matrix k = a.floats("k"), v = a.floats("v");
  Vector slots = a.vectorOf("slots", DType::i32);
  QkvCall call;
  cacheRows(a, cache, k, v, slots, call);
  if (call.tokens) qkvRows(a.context(), call);
}

/// out: matrix, q: heads, cache, queryStarts: vector, contextLengths: vector, pageTables: matrix, scale, window, softCap,
/// alibiSlopes: optional vector, sinks: optional vector, maxQueryLength, maxContextLength
AttentionCall attentionOf(Args& a, Heads& q) {
  AttentionCall c{};
  Matrix out = a.floats("out");
  q = headsOf(a, "q");
  c.cache = cacheOf(a);
  Vector starts = a.vectorOf("queryStarts", DType::i32), lengths = a.vectorOf("contextLengths", DType::i32);
  Matrix tables = a.matrixOf("pageTables", DType::i32);
  c.scale = a.real("scale");
  c.window = a.integer("window", 0, int64_t(1) << 52);
  c.softCap = a.real("softCap");
  Vector slopes = a.optional("alibiSlopes"), sinks = a.optional("sinks");
  c.maxQueryLength = a.size("maxQueryLength"), c.maxContextLength = a.size("maxContextLength");
  a.require(std::isfinite(c.scale), "scale should be finite");
  a.require(std::isfinite(c.softCap) && c.softCap >= 0, "softCap should be 0 (off) or greater");
  a.require(q.dim == c.cache.keyDim, "q should have heads of the cache's key dimensions");
  a.require(q.heads % c.cache.kvHeads == 0, "the heads of q should be a multiple of the cache's kv heads");
  a.require(out.rows == q.m.rows && out.cols == q.heads * c.cache.valueDim, "out should have q's tokens, and its heads times the cache's value dimensions");
  a.require(lengths.length > 0 || starts.length <= 1, "queryStarts should have one entry more than contextLengths");
  if (lengths.length == 0 || q.m.rows == 0) return c;
  a.require(starts.length == lengths.length + 1, "queryStarts should have one entry more than contextLengths");
  a.require(tables.rows == lengths.length, "pageTables should have a row for each sequence");
  a.require(lengths.length <= 65535, "a batch has 65,535 sequences at most");
  for (const Vector* v : {&slopes, &sinks})
    a.require(!v->p || (v->dtype == DType::f32 && v->length == q.heads), "alibiSlopes and sinks should be f32, one for each head");
  a.require(out.p != q.m.p, "out and q should not be the same memory");
  a.require(tables.cols <= (int64_t(1) << 31) / kPageTokens - 1, "pageTables has more columns than a context can have pages");
  // Shorter bounds than what is there could leave tokens out; longer ones only cost time.
  if (c.maxQueryLength > q.m.rows) c.maxQueryLength = q.m.rows;
  if (c.maxContextLength > tables.cols * kPageTokens) c.maxContextLength = tables.cols * kPageTokens;
  c.out = out.p, c.outType = out.dtype, c.outStride = out.stride;
  c.q = q.m.p, c.qType = q.m.dtype, c.qStride = q.m.stride;
  c.heads = q.heads, c.sequences = lengths.length, c.tokens = q.m.rows, c.maxPages = tables.cols;
  c.queryStarts = starts.as<int32_t>(), c.contextLengths = lengths.as<int32_t>();
  c.pageTables = tables.as<int32_t>(), c.tableStride = tables.stride;
  c.slopes = slopes.as<float>(), c.sinks = sinks.as<float>();
  return c;
}

bool isEmpty(const AttentionCall& c) { return c.sequences == 0 || c.tokens == 0 || c.maxQueryLength == 0 || c.maxContextLength == 0; }

void PagedAttention(Args& a) {
  Heads q;
  AttentionCall call = attentionOf(a, q);
  if (isEmpty(call)) return;
  Context& c = a.context();
  // A single sequence with several queries leaves nothing to the kernel of single queries.
  if ((call.maxQueryLength == 1 || call.sequences > 1) && attentionDecodeFits(c, call)) {
    attentionDecode(c, call);
    if (call.maxQueryLength == 1) return;
    call.skipSingle = true;
  }
  if (prefillAttentionFits(c, call)) prefillAttention(c, call);
  else attentionGeneric(c, call);
}

/// qNorm: optional vector, kNorm: optional vector, eps, offset
void normsOf(Args& a, int64_t dim, QkvCall& call) {
  const Vector q = a.optional("qNorm"), k = a.optional("kNorm");
  call.eps = a.real("eps"), call.offset = a.real("offset");
  for (const Vector* v : {&q, &k})
    a.require(!v->p || (isFloat(v->dtype) && v->length == dim), "qNorm and kNorm should be float vectors, one number for each of a head's dimensions");
  call.qNorm.weight = q.p, call.qNorm.type = q.dtype, call.kNorm.weight = k.p, call.kNorm.type = k.dtype;
}

struct FusedCall {
  AttentionCall attention;
  QkvCall qkv;
  bool settled;
};
/// pagedAttention's numbers, k: heads, rotary, v: matrix, slots: vector, norms, settled
FusedCall fusedOf(Args& a) {
  FusedCall f;
  Heads q;
  f.attention = attentionOf(a, q);
  Heads k = headsOf(a, "k");
  const RotaryTable rotary = rotaryOf(a, q.m.rows, q.dim < k.dim ? q.dim : k.dim);
  Matrix v = a.floats("v");
  Vector slots = a.vectorOf("slots", DType::i32);
  cacheRows(a, f.attention.cache, k.m, v, slots, f.qkv);
  a.require(slots.length == q.m.rows, "q and slots should have as many tokens");
  f.qkv.rotary = rotary, f.qkv.q = q.rows();
  normsOf(a, q.dim, f.qkv);
  f.settled = a.flag("settled");
  return f;
}

void FusedAttention(Args& a) {
  const FusedCall f = fusedOf(a);
  if (isEmpty(f.attention)) return;
  a.require(fusedDecodeFits(a.context(), f.attention, f.qkv), "there is no fused kernel for these types and sizes");
  fusedDecode(a.context(), f.attention, f.qkv, f.settled);
}
Napi::Value FusedAttentionFits(Args& a) {
  const FusedCall f = fusedOf(a);
  return Napi::Boolean::New(a.env(), !isEmpty(f.attention) && fusedDecodeFits(a.context(), f.attention, f.qkv));
}

/// cache, q: heads, k: heads, rotary, v: matrix, slots: vector, norms
void FusedRotaryWrite(Args& a) {
  const CacheLayout cache = cacheOf(a);
  Heads q = headsOf(a, "q"), k = headsOf(a, "k");
  QkvCall call;
  const RotaryTable rotary = rotaryOf(a, q.m.rows, q.dim < k.dim ? q.dim : k.dim);
  Matrix v = a.floats("v");
  Vector slots = a.vectorOf("slots", DType::i32);
  cacheRows(a, cache, k.m, v, slots, call);
  a.require(q.m.rows == call.tokens, "q and slots should have as many tokens");
  a.require(q.dim == cache.keyDim, "q should have heads of the cache's key dimensions");
  call.rotary = rotary, call.q = q.rows(), call.storeQ = true;
  normsOf(a, q.dim, call);
  if (call.tokens) qkvRows(a.context(), call);
}

}  // namespace

FusedAttentionCall fusedAttentionCall(Args& a) {
  const FusedCall f = fusedOf(a);
  return {f.attention, f.qkv};
}

void InitAttention(Napi::Env env, Napi::Object exports) {
  add<Rotary>(env, exports, "rotary");
  add<WriteCache>(env, exports, "writeCache");
  add<PagedAttention>(env, exports, "pagedAttention");
  add<FusedAttention>(env, exports, "fusedAttention");
  addValue<FusedAttentionFits>(env, exports, "fusedAttentionFits");
  add<FusedRotaryWrite>(env, exports, "fusedRotaryWrite");
}
