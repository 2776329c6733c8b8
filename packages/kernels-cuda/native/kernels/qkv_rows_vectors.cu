// The usual types and sizes of qkvRows: 16-bit heads and cache, whole vectors of 16 bytes. A few lanes share a head, one vector
// each, and go through several heads of a token with the same angles; all of them are asked for at once.
#include "device.cuh"
#include "launch.h"
#include "rotary.h"

namespace {

constexpr int kThreads = 256, kHeads = 4, kN = 8;  // heads of a group of lanes; elements of a vector

template <class T> __device__ __forceinline__ void unpack(const uint4& raw, float (&f)[kN]) {
  const Vec<T, kN> v = *reinterpret_cast<const Vec<T, kN>*>(&raw);
#pragma unroll
  for (int i = 0; i < kN; i++) f[i] = toFloat(v.v[i]);
}
template <class T> __device__ __forceinline__ uint4 pack(const float (&f)[kN]) {
  Vec<T, kN> v;
#pragma unroll
  for (int i = 0; i < kN; i++) v.v[i] = fromFloat<T>(f[i]);
  return *reinterpret_cast<const uint4*>(&v);
}
__device__ __forceinline__ void loadAngles(const float* from, float (&to)[kN], int n) {
#pragma unroll
  for (int i = 0; i < kN; i += 4)
    if (i < n) *reinterpret_cast<float4*>(to + i) = *reinterpret_cast<const float4*>(from + i);
}

/// A group of lanes: kHeads heads of a token, number `part` of them. Lanes: vectors of a head, rounded up to a power of two.
template <class T, bool kNorm> __global__ void __launch_bounds__(kThreads) qkvVectorsKernel(QkvCall c, int lanes, unsigned parts) {
  pdlTrigger();
  const int lane = int(threadIdx.x) & (lanes - 1);
  float wq[kN] = {}, wk[kN] = {};
  if (kNorm) {
    if (c.qNorm.weight && lane * kN < c.q.dim) unpack<T>(reinterpret_cast<const uint4*>(c.qNorm.weight)[lane], wq);
    if (c.kNorm.weight && lane * kN < c.k.dim) unpack<T>(reinterpret_cast<const uint4*>(c.kNorm.weight)[lane], wk);
  }
  pdlWait();
  const unsigned group = (blockIdx.x * unsigned(kThreads) + threadIdx.x) / unsigned(lanes);
  const bool here = group < unsigned(c.tokens) * parts;  // nobody leaves: lanes shuffle
  const unsigned token = here ? group / parts : 0;
  const int first = int(here ? group % parts : 0) * kHeads, heads = c.q.heads + c.k.heads + c.v.heads;

  uint4 raw[kHeads];
  char* place[kHeads];
#pragma unroll
  for (int i = 0; i < kHeads; i++) {
    const int head = first + i;
    const HeadRows& rows = head < c.q.heads ? c.q : head < c.q.heads + c.k.heads ? c.k : c.v;
    const int at = head < c.q.heads ? head : head < c.q.heads + c.k.heads ? head - c.q.heads : head - c.q.heads - c.k.heads;
    place[i] = here && head < heads && lane * kN < rows.dim ? rows.p + (int64_t(token) * rows.stride + at * rows.dim + lane * kN) * 2 : nullptr;
    raw[i] = place[i] ? *reinterpret_cast<const uint4*>(place[i]) : uint4{};
  }
  const int half = c.rotary.half, partner = half / kN;
  const float* const angles = c.rotary.p && here && lane * kN < 2 * half ? c.rotary.row(token) : nullptr;
  float cosine[kN], sine[kN];
  if (angles) {
    const int i = c.rotary.interleaved ? lane * kN / 2 : lane < partner ? lane * kN : lane * kN - half, n = c.rotary.interleaved ? kN / 2 : kN;
    loadAngles(angles + i, cosine, n), loadAngles(angles + half + i, sine, n);
  }
  const int64_t slot = c.slots && here ? c.slots[token] : -1;
  const bool cached = slot >= 0 && slot < c.cache.pages * kPageTokens;

#pragma unroll
  for (int i = 0; i < kHeads; i++) {
    const int head = first + i;
    const bool isQ = head < c.q.heads, isV = head >= c.q.heads + c.k.heads;
    float f[kN];
    unpack<T>(raw[i], f);
    if (kNorm) {
      float squares = 0;
#pragma unroll
      for (int j = 0; j < kN; j++) squares = fmaf(f[j], f[j], squares);
      for (int o = lanes / 2; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
      if (!isV && (isQ ? c.qNorm : c.kNorm).weight) {
        const float factor = rsqrtf(squares / (isQ ? c.q.dim : c.k.dim) + c.eps);
#pragma unroll
        for (int j = 0; j < kN; j++) f[j] *= factor * ((isQ ? wq[j] : wk[j]) + c.offset);
      }
    }
    if (c.rotary.p && !c.rotary.interleaved) {
      const bool low = lane < partner;
#pragma unroll
      for (int j = 0; j < kN; j++) {
        const float other = __shfl_sync(~0u, f[j], low ? lane + partner : lane - partner, lanes);
        if (angles && !isV) f[j] = fmaf(f[j], cosine[j], low ? -other * sine[j] : other * sine[j]);
      }
    } else if (angles && !isV) {
#pragma unroll
      for (int j = 0; j < kN; j += 2) {
        const float a = f[j], b = f[j + 1], cos = cosine[j / 2], sin = sine[j / 2];
        f[j] = fmaf(a, cos, -b * sin), f[j + 1] = fmaf(b, cos, a * sin);
      }
    }
    const uint4 out = pack<T>(f);
    if (place[i] && !isV && (isQ ? c.storeQ : c.storeK)) *reinterpret_cast<uint4*>(place[i]) = out;
    if (!cached || isQ || head >= heads) continue;
    const PageRows keys = c.cache.keys(), side = isV ? c.cache.values() : keys;
    if (lane * 16 >= side.rowBytes) continue;  // what is behind the last dimension is zero
    const int at = isV ? head - c.q.heads - c.k.heads : head - c.q.heads;
    char* const to = c.cache.head(slot / kPageTokens, at) + (isV ? keys.bytes() : 0);
    *reinterpret_cast<uint4*>(to + side.chunk(int(slot % kPageTokens), lane)) = out;
  }
}

bool aligned(const void* p) { return uintptr_t(p) % 16 == 0; }

}  // namespace

bool qkvRowsVectors(Context& c, const QkvCall& call) {
  const DType type = call.k.type;
  if (type != DType::bf16 && type != DType::f16) return false;
  int vectors = 1;
  for (const HeadRows* rows : {&call.q, &call.k, &call.v}) {
    if (!rows->heads) continue;
    if (rows->type != type || rows->dim % kN || rows->stride % kN || !aligned(rows->p)) return false;
    vectors = rows->dim / kN > vectors ? rows->dim / kN : vectors;
  }
  if (call.slots) {
    if (DType(call.cache.dtype) != type) return false;
    for (const PageRows& side : {call.cache.keys(), call.cache.values()}) vectors = side.rowBytes / 16 > vectors ? side.rowBytes / 16 : vectors;
  }
  const RotaryTable& r = call.rotary;
  if (r.p && (r.half % (r.interleaved ? kN / 2 : kN) || r.stride % 4 || !aligned(r.p))) return false;
  for (const HeadNorm* norm : {&call.qNorm, &call.kNorm})
    if (norm->weight && (norm->type != type || !aligned(norm->weight))) return false;
  if (vectors > 32) return false;
  int lanes = 1;
  while (lanes < vectors) lanes *= 2;
  const unsigned parts = unsigned(call.q.heads + call.k.heads + call.v.heads + kHeads - 1) / kHeads;
  const int64_t threads = call.tokens * parts * lanes;
  if (threads >= int64_t(1) << 31) return false;
  const bool norm = call.qNorm.weight || call.kNorm.weight;
  auto kernel = type == DType::bf16 ? norm ? qkvVectorsKernel<bf16, true> : qkvVectorsKernel<bf16, false>
                                    : norm ? qkvVectorsKernel<f16, true> : qkvVectorsKernel<f16, false>;
  launch(c, "qkvRows", kernel, dim3(unsigned((threads + kThreads - 1) / kThreads)), dim3(kThreads), 0, call, lanes, parts);
  return true;
}
