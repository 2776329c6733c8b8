// Which decode kernel, cut up how.
#include "attention_decode_plan.h"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace decode {
struct E4m3;
struct E5m2;
}  // namespace decode
extern template void startDecode<__nv_bfloat16, __nv_bfloat16>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
extern template void startDecode<__half, __half>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
extern template void startDecode<__half, decode::E4m3>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
extern template void startDecode<__half, decode::E5m2>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);

namespace {

/// Bytes that a block needs beside its ring, or for the merge of its warps, where the ring was.
size_t sharedOf(const DecodePlan& p) {
  const size_t heads = size_t(p.tileHeads), dim = size_t(p.dim), warps = size_t(p.warps);
  const size_t staged = heads * (dim + 8) * 2 + 2 * dim * 2 + warps * dim * 4;
  const size_t merge = (warps * heads * (dim + 4) + 2 * warps * heads + 2 * heads) * 4 + warps * 32 * 32;
  const size_t all = size_t(p.ringBytes) + staged;
  return all > merge ? all : merge;
}

/// Rows of 16-bit floats, of which a lane's share is read at once.
bool rowsFit(const HeadRows& rows, int kernelDim) {
  const int share = kernelDim / 32;
  return (rows.type == DType::bf16 || rows.type == DType::f16) && rows.dim % share == 0 && rows.stride % share == 0 &&
         reinterpret_cast<uintptr_t>(rows.p) % size_t(2 * share) == 0;
}

HeadRows queriesOf(const AttentionCall& call) {
  HeadRows q;
  q.p = const_cast<char*>(call.q), q.type = call.qType, q.stride = call.qStride, q.heads = int(call.heads), q.dim = call.cache.keyDim;
  return q;
}

int kernelDim(const AttentionCall& call) {
  const int most = call.cache.keyDim > call.cache.valueDim ? call.cache.keyDim : call.cache.valueDim;
  return most <= 64 && call.cache.keyDim == 64 && call.cache.valueDim == 64 ? 64 : most <= 128 ? 128 : 256;
}

}  // namespace

void settleDecode(const Context& c, const AttentionCall& call, DecodePlan& p) {
  const int page = int(call.cache.headBytes());
  auto size = [&] { p.ringBytes = p.warps * p.stages * page, p.sharedBytes = sharedOf(p); };
  for (size(); p.sharedBytes > mostDecodeShared(c) && p.warps > 1; size()) p.warps /= 2;
  const int64_t work = call.sequences * call.cache.kvHeads * p.headTiles;
  p.values = reinterpret_cast<float4*>(c.scratch);
  p.states = reinterpret_cast<float2*>(p.values + work * p.groups * (p.tileHeads * p.dim / 4));
  p.counters = c.counters;
}

DecodePlan planDecode(const Context& c, const AttentionCall& call) {
  DecodePlan p{};
  const int64_t group = call.group();
  p.dim = kernelDim(call);
  p.tileHeads = group <= 8 ? 8 : 16;
  p.headTiles = int((group + p.tileHeads - 1) / p.tileHeads);
  p.exact = call.cache.keyDim == p.dim && call.cache.valueDim == p.dim && (p.dim <= 128 || (p.tileHeads == 8 && call.cache.elementBytes == 2));
  const int64_t work = call.sequences * call.cache.kvHeads * p.headTiles;
  int64_t pages = (call.maxContextLength + kPageTokens - 1) / kPageTokens;
  if (call.window > 0 && call.window / kPageTokens + 2 < pages) pages = call.window / kPageTokens + 2;
  // Two small blocks of a multiprocessor fill each other's pauses, where there are enough of them.
  p.warps = p.dim > 128 || work >= 2 * c.sms ? 4 : 8;
  p.stages = kMostDecodeStages, p.cluster = p.groups = 1;

  // As many blocks as there are multiprocessors, each with a page a warp at least; two pages a warp take less than a merge.
  const bool clusters = c.capability >= 90, far = pages > 128;
  int64_t splits = c.sms / work;
  if (splits > 1 && pages > 2 * p.warps) {
    // Clusters merge fastest, but find room only while half of the chip is free (pairs always do). Groups merge through memory,
    // which pays from a few thousand tokens on.
    const int64_t most = pages / (p.warps * (far ? 4 : 1)), half = c.sms / 2 / work;
    splits = splits < most ? splits : most;
    if (clusters && !far) {
      const int64_t room = splits < 2 ? 1 : half < 2 ? 2 : half < splits ? half : splits;
      while (p.cluster * 2 <= room && p.cluster < kMostDecodeCluster) p.cluster *= 2;
    } else {
      p.cluster = clusters && splits > 1 && p.tileHeads * p.dim >= 2048 ? 2 : 1;  // much to merge: two blocks share it
      const int64_t room = int64_t(Context::kScratchBytes) / (work * (p.tileHeads * p.dim / 4) * int64_t(sizeof(float4) + sizeof(float2)));
      int64_t groups = splits / p.cluster;
      groups = groups < room ? groups : room;
      if (groups > 1 && work * p.cluster <= int64_t(Context::kCounters)) p.groups = int(groups);
    }
  }
  p.late = p.cluster * p.groups > 1;
  // A short context needs no deep ring; a small block starts beside the kernel before it.
  const int64_t each = (pages + p.warps * p.cluster * p.groups - 1) / (p.warps * p.cluster * p.groups);  // pages of a warp
  if (each <= 2 && p.cluster > 1) p.stages = 1;
  else if (each < p.stages) p.stages = int(each < 1 ? 1 : each);
  settleDecode(c, call, p);
  return p;
}

bool attentionDecodeFits(const Context& c, const AttentionCall& call) {
  if (call.cache.keyDim > 256 || call.cache.valueDim > 256 || call.cache.valueDim % 4) return false;  // results are stored by fours
  const DType type = DType(call.cache.dtype);
  const bool bytes = type == DType::f8e4m3 || type == DType::f8e5m2;
  if (!bytes && call.qType != type) return false;  // f32 has no place here
  const DecodePlan plan = planDecode(c, call);
  return rowsFit(queriesOf(call), plan.dim) && (plan.exact || !bytes) && plan.sharedBytes <= mostDecodeShared(c);
}
bool fusedDecodeFits(const Context& c, const AttentionCall& call, const QkvCall& qkv) {
  const int dim = kernelDim(call);
  return call.maxQueryLength == 1 && attentionDecodeFits(c, call) && rowsFit(qkv.k, dim) && rowsFit(qkv.v, dim);
}

void fusedDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan) {
  if (usualDecodeFits(c, call, qkv, plan)) return usualDecode(c, call, qkv, plan);
  switch (DType(call.cache.dtype)) {
    case DType::bf16: return startDecode<__nv_bfloat16, __nv_bfloat16>(c, call, qkv, plan);
    case DType::f16: return startDecode<__half, __half>(c, call, qkv, plan);
    case DType::f8e4m3: return startDecode<__half, decode::E4m3>(c, call, qkv, plan);
    default: return startDecode<__half, decode::E5m2>(c, call, qkv, plan);
  }
}
void fusedDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, bool settled) {
  DecodePlan plan = planDecode(c, call);
  plan.fused = true, plan.settled = settled;
  fusedDecode(c, call, qkv, plan);
}
void attentionDecode(Context& c, const AttentionCall& call, const DecodePlan& plan) {
  QkvCall qkv;
  qkv.q = queriesOf(call);
  fusedDecode(c, call, qkv, plan);
}
void attentionDecode(Context& c, const AttentionCall& call) { attentionDecode(c, call, planDecode(c, call)); }
