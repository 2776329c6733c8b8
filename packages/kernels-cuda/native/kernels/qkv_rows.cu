// A warp takes one head of one token: its numbers to shared memory as f32, norm, rotation, and out again 16 bytes at a time.
#include "attention_generic_elements.cuh"
#include "launch.h"
#include "rotary.h"

namespace {

constexpr int kWarps = 4;

/// Whether 16 bytes of a row may be read or written at once.
__device__ __forceinline__ bool whole(const HeadRows& rows, const char* p, int d, int n) {
  return d + n <= rows.dim && (reinterpret_cast<uintptr_t>(p) & 15) == 0;
}

__global__ void __launch_bounds__(kWarps * 32) qkvRowsKernel(QkvCall c, int width) {
  extern __shared__ float shared[];
  pdlTrigger();
  pdlWait();
  const int lane = threadIdx.x % 32;
  float* const x = shared + threadIdx.x / 32 * width;
  const int heads = c.q.heads + c.k.heads + c.v.heads;
  const int64_t item = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (item >= c.tokens * heads) return;
  const int64_t token = item / heads;
  int head = int(item % heads);
  const bool isQ = head < c.q.heads, isV = head >= c.q.heads + c.k.heads;
  const HeadRows& rows = isQ ? c.q : isV ? c.v : c.k;
  head -= isQ ? 0 : isV ? c.q.heads + c.k.heads : c.q.heads;
  const int size = rows.type == DType::f32 ? 4 : 2, per = 16 / size, dim = rows.dim;
  char* const row = rows.p + (token * rows.stride + int64_t(head) * dim) * size;

  float squares = 0;
  for (int d = lane * per; d < dim; d += 32 * per) {
    float f[16];
    if (whole(rows, row + d * size, d, per)) {
      unpackChunk(rows.type, *reinterpret_cast<const uint4*>(row + d * size), f);
    } else {
      for (int i = 0; i < 8; i++) f[i] = i < per && d + i < dim ? loadElement(rows.type, row, d + i) : 0.f;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (i < per && d + i < dim) x[d + i] = f[i], squares = fmaf(f[i], f[i], squares);
  }
  const HeadNorm norm = isQ ? c.qNorm : c.kNorm;
  if (norm.weight && !isV) {
    const float factor = rsqrtf(warpSum(squares) / dim + c.eps);
    __syncwarp();
    for (int d = lane; d < dim; d += 32) x[d] *= factor * (loadElement(norm.type, norm.weight, d) + c.offset);
  }
  __syncwarp();
  const float* const angles = c.rotary.p && !isV ? c.rotary.row(token) : nullptr;
  const int half = c.rotary.half;
  auto value = [&](int d) {
    if (d >= dim) return 0.f;
    const float a = x[d];
    if (!angles || d >= 2 * half) return a;
    if (c.rotary.interleaved) {
      const float cosine = angles[d / 2], sine = angles[half + d / 2];
      return d % 2 ? fmaf(a, cosine, x[d - 1] * sine) : fmaf(a, cosine, -x[d + 1] * sine);
    }
    const int i = d < half ? d : d - half;
    const float cosine = angles[i], sine = angles[half + i];
    return d < half ? fmaf(a, cosine, -x[d + half] * sine) : fmaf(a, cosine, x[i] * sine);
  };

  if ((isQ && c.storeQ) || (!isQ && !isV && c.storeK))
    for (int d = lane * per; d < dim; d += 32 * per) {
      float f[16];
#pragma unroll
      for (int i = 0; i < 8; i++) f[i] = i < per ? value(d + i) : 0.f;
      if (whole(rows, row + d * size, d, per)) {
        *reinterpret_cast<uint4*>(row + d * size) = packChunk(rows.type, f);
      } else {
        for (int i = 0; i < per && d + i < dim; i++) storeElement(rows.type, row, d + i, f[i]);
      }
    }
  if (isQ || !c.slots) return;
  const int64_t slot = c.slots[token];
  if (slot < 0 || slot >= c.cache.pages * kPageTokens) return;
  const PageRows keys = c.cache.keys(), side = isV ? c.cache.values() : keys;
  char* const to = c.cache.head(slot / kPageTokens, head) + (isV ? keys.bytes() : 0);
  const int cachePer = 16 / c.cache.elementBytes;
  for (int chunk = lane; chunk < side.rowBytes / 16; chunk += 32) {
    float f[16];
#pragma unroll
    for (int i = 0; i < 16; i++) f[i] = i < cachePer ? value(chunk * cachePer + i) : 0.f;  // with zeros behind the last dimension
    *reinterpret_cast<uint4*>(to + side.chunk(int(slot % kPageTokens), chunk)) = packChunk(DType(c.cache.dtype), f);
  }
}

}  // namespace

void qkvRows(Context& c, const QkvCall& call) {
  if (qkvRowsVectors(c, call)) return;
  int width = call.q.dim > call.k.dim ? call.q.dim : call.k.dim;
  width = width > call.v.dim ? width : call.v.dim;
  const int64_t items = call.tokens * (call.q.heads + call.k.heads + call.v.heads);
  launch(c, "qkvRows", qkvRowsKernel, dim3(unsigned((items + kWarps - 1) / kWarps)), dim3(kWarps * 32), size_t(kWarps) * width * sizeof(float), call, width);
}
