// Which decode kernel, cut up how.
#include "attention_decode_plan.h"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern template void startDecode<__nv_bfloat16>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);
extern template void startDecode<__half>(Context&, const AttentionCall&, const QkvCall&, const DecodePlan&);

namespace {

/// Bytes that a block needs beside its ring, or for the merge of its warps, where the ring was.
size_t sharedOf(const DecodePlan& p) {
  const size_t heads = size_t(p.tileHeads), dim = size_t(p.dim), warps = size_t(p.warps);
  const size_t staged = heads * (dim + 8) * 2 + 2 * dim * 2 + warps * dim * 4;
  const size_t merge = (warps * heads * (dim + 4) + 2 * warps * heads + 2 * heads) * 4 + warps * 32 * 32;
  const size_t all = size_t(p.ringBytes) + staged;
  return all > merge ? all : merge;
}

/// Rows are read a lane's share at once.
bool rowsFit(const HeadRows& rows, DType type, int kernelDim) {
  const int share = kernelDim / 32;
  return rows.type == type && rows.dim % share == 0 && rows.stride % share == 0 && reinterpret_cast<uintptr_t>(rows.p) % size_t(2 * share) == 0;
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
  for (size(); p.sharedBytes > size_t(c.sharedBytes) && p.warps > 1; size()) p.warps /= 2;
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
  p.exact = call.cache.keyDim == p.dim && call.cache.valueDim == p.dim && !(p.dim == 256 && p.tileHeads == 16);
  p.warps = p.dim > 128 ? 4 : 8, p.stages = kMostDecodeStages, p.cluster = p.groups = 1;
  settleDecode(c, call, p);

  const int64_t work = call.sequences * call.cache.kvHeads * p.headTiles;
  int64_t pages = (call.maxContextLength + kPageTokens - 1) / kPageTokens;
  if (call.window > 0 && call.window / kPageTokens + 2 < pages) pages = call.window / kPageTokens + 2;
  // As many blocks as there are multiprocessors, with a few pages a warp. Clusters merge fastest, but they find room only while
  // half of the chip is free; groups merge through memory, which pays from a few thousand tokens on.
  int64_t splits = c.sms / work, most = pages / (2 * p.warps);
  splits = splits < most ? splits : most;
  const bool clusters = c.capability >= 90;
  const int64_t half = c.sms / 2 / work;
  if (splits > 1) {
    if (clusters && (splits <= half || pages <= 128)) {
      const int64_t fits = splits < half ? splits : half;
      while (p.cluster * 2 <= fits && p.cluster < kMostDecodeCluster) p.cluster *= 2;
    } else {
      // Much to merge: two blocks share it.
      p.cluster = clusters && p.tileHeads * p.dim >= 2048 ? 2 : 1;
      const int64_t fits = int64_t(Context::kScratchBytes) / (work * (p.tileHeads * p.dim / 4) * int64_t(sizeof(float4) + sizeof(float2)));
      int64_t groups = splits / p.cluster;
      groups = groups < fits ? groups : fits;
      if (groups > 1 && work * p.cluster <= int64_t(Context::kCounters)) p.groups = int(groups);
    }
  }
  const int64_t each = (pages + p.warps * p.cluster * p.groups - 1) / (p.warps * p.cluster * p.groups);  // pages of a warp
  if (each < p.stages) p.stages = int(each < 1 ? 1 : each);
  settleDecode(c, call, p);
  return p;
}

bool attentionDecodeFits(const Context& c, const AttentionCall& call) {
  const DType type = DType(call.cache.dtype);
  if (type != DType::bf16 && type != DType::f16) return false;
  if (call.cache.keyDim > 256 || call.cache.valueDim > 256) return false;
  return rowsFit(queriesOf(call), type, kernelDim(call)) && planDecode(c, call).sharedBytes <= size_t(c.sharedBytes);
}
void attentionDecode(Context& c, const AttentionCall& call, const DecodePlan& plan) {
  QkvCall qkv;
  qkv.q = queriesOf(call);
  if (DType(call.cache.dtype) == DType::bf16) startDecode<__nv_bfloat16>(c, call, qkv, plan);
  else startDecode<__half>(c, call, qkv, plan);
}
void attentionDecode(Context& c, const AttentionCall& call) { attentionDecode(c, call, planDecode(c, call)); }

bool fusedDecodeFits(const Context& c, const AttentionCall& call, const QkvCall& qkv) {
  const DType type = DType(call.cache.dtype);
  const int dim = kernelDim(call);
  return call.maxQueryLength == 1 && attentionDecodeFits(c, call) && rowsFit(qkv.k, type, dim) && rowsFit(qkv.v, type, dim);
}
void fusedDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan) {
  if (DType(call.cache.dtype) == DType::bf16) startDecode<__nv_bfloat16>(c, call, qkv, plan);
  else startDecode<__half>(c, call, qkv, plan);
}
void fusedDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, bool settled) {
  DecodePlan plan = planDecode(c, call);
  plan.fused = true, plan.settled = settled;
  fusedDecode(c, call, qkv, plan);
}
