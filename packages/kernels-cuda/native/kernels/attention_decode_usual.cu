// When decode attention is the usual case, and how that is started.
#include "attention_decode_usual.cuh"
#include "launch.h"

bool usualDecodeFits(const Context& c, const AttentionCall& call, const QkvCall& x, const DecodePlan& p) {
  const DType type = DType(call.cache.dtype);
  auto aligned = [](const void* at, int64_t strideBytes) { return uintptr_t(at) % 8 == 0 && strideBytes % 8 == 0; };
  auto rows = [&](const HeadRows& r) { return r.type == type && aligned(r.p, r.stride * 2) && r.stride <= INT32_MAX; };
  auto norm = [&](const HeadNorm& n) { return !n.weight || (n.type == type && aligned(n.weight, 0)); };
  if (c.capability < 90 || !p.fused || !p.settled || !p.exact || p.groups != 1 || p.headTiles != 1 || p.tileHeads != 8 || (p.dim != 64 && p.dim != 128)) return false;
  if ((type != DType::bf16 && type != DType::f16) || call.outType != type || !aligned(call.out, call.outStride * 2) || call.outStride > INT32_MAX) return false;
  if (!rows(x.q) || !rows(x.k) || !rows(x.v) || !norm(x.qNorm) || !norm(x.kNorm) || !x.qNorm.weight != !x.kNorm.weight || x.storeQ || x.storeK || !x.slots) return false;
  if (call.softCap > 0 || call.slopes || call.sinks || call.window > 0 || call.skipSingle) return false;
  const int64_t most = INT32_MAX / kPageTokens;
  if (call.tokens > most || call.cache.pages > most || call.maxPages > most || call.tableStride > most) return false;
  const RotaryTable& r = x.rotary;
  return r.p && !r.interleaved && !r.selector && 2 * r.half == p.dim && r.rows <= INT32_MAX && r.stride <= INT32_MAX;
}

void usualDecode(Context& c, const AttentionCall& call, const QkvCall& x, const DecodePlan& p) {
  const CacheLayout& k = call.cache;
  decode::UsualCall a{};
  a.cache = k.p, a.pages = int(k.pages), a.kvHeads = k.kvHeads, a.out = call.out, a.outStride = int(call.outStride);
  a.q = x.q.p, a.k = x.k.p, a.v = x.v.p, a.qStride = int(x.q.stride), a.kStride = int(x.k.stride), a.vStride = int(x.v.stride);
  a.tokens = int(call.tokens), a.group = int(call.group()), a.qNorm = x.qNorm.weight, a.kNorm = x.kNorm.weight, a.eps = x.eps, a.offset = x.offset;
  a.scale = call.scale * decode::kLog2e;
  a.angles = x.rotary.p, a.angleRows = int(x.rotary.rows), a.angleStride = int(x.rotary.stride), a.positions = x.rotary.positions, a.slots = x.slots;
  a.starts = call.queryStarts, a.lengths = call.contextLengths, a.tables = call.pageTables, a.tableStride = int(call.tableStride), a.maxPages = int(call.maxPages);
  while (1 << a.warpShift < p.warps) a.warpShift++;
  while (1 << a.clusterShift < p.cluster) a.clusterShift++;
  a.stages = p.stages, a.late = p.late;
  auto start = [&](auto kernel) {
    // Always the same: captured graphs rely on it.
    const int most = int(mostDecodeShared(c)) - 4096;  // less static shared memory
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, most), "fusedAttention");
    LaunchAttributes attributes(c.pdl, unsigned(p.cluster));
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(unsigned(p.cluster), unsigned(k.kvHeads), unsigned(call.sequences)), config.blockDim = dim3(unsigned(p.warps * 32));
    config.dynamicSmemBytes = size_t(p.ringBytes), config.stream = c.stream, config.attrs = attributes.list, config.numAttrs = attributes.count;
    check(cudaLaunchKernelEx(&config, kernel, a), "fusedAttention");
  };
  auto typed = [&](auto t) {
    using T = decltype(t);
    if (p.dim == 64) a.qNorm ? start(decode::usual<T, 64, true>) : start(decode::usual<T, 64, false>);
    else a.qNorm ? start(decode::usual<T, 128, true>) : start(decode::usual<T, 128, false>);
  };
  DType(k.dtype) == DType::bf16 ? typed(bf16{}) : typed(f16{});
}
