// The way of x into shared memory: as it is, or normalised. Done by the consumer warps after pdlWait(); the caller waits for the
// copies and synchronises.
#pragma once
#include <type_traits>
#include "linear_small_call.cuh"
#include "ring.cuh"

/// Weights of the norm and the bias are asked for early; they arrive in the second-level cache while x is waited for.
__device__ __forceinline__ void prefetchCached(const void* p, int64_t bytes, int tid) {
  for (int64_t i = int64_t(tid) * 128; i < bytes; i += kConsumerThreads * 128) asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const char*>(p) + i));
}
__device__ __forceinline__ void prefetchSmallWeights(const SmallCall& a, const Part& part, int tid) {
  const SmallLinear& op = a.op;
  if (op.g) prefetchCached(op.g, op.k * floatBytes(op.gType), tid);
  if (!op.bias) return;
  const int64_t size = floatBytes(op.biasType);
  for (int i = 0; i < a.pair; i++)
    prefetchCached(static_cast<const char*>(op.bias) + (int64_t(i) * a.rows + part.u0) * size, (part.u1 - part.u0) * size, tid);
}

__device__ __forceinline__ void storeShared8(uint32_t to, uint32_t a, uint32_t b) {
  asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(to), "r"(a), "r"(b) : "memory");
}
__device__ __forceinline__ void storeShared16(uint32_t to, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

/// x of the weight's type; zeros from column k on.
__device__ __forceinline__ void loadPlain(const SmallCall& a, uint32_t xs, int tid) {
  const SmallLinear& op = a.op;
  const int vectors = int(op.kp) / 8;
  const unsigned short* x = static_cast<const unsigned short*>(op.x);
  int row = tid / vectors, v = tid % vectors;
  while (row < op.tokens) {
    const int column = v * 8;
    const unsigned short* from = x + row * op.xStride + column;
    const uint32_t to = xs + row * a.xPitch + v * 16;
    if (a.xVectors && column + 8 <= op.k) copyAsync16(to, from);
    else {
      uint32_t w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const uint32_t low = column + 2 * i < op.k ? __ldcg(from + 2 * i) : 0, high = column + 2 * i + 1 < op.k ? __ldcg(from + 2 * i + 1) : 0;
        w[i] = low | high << 16;
      }
      storeShared16(to, make_uint4(w[0], w[1], w[2], w[3]));
    }
    for (v += kConsumerThreads; v >= vectors; v -= vectors) row++;
  }
}

template <bool fresh> __device__ __forceinline__ uint32_t load32(const void* p) {
  return fresh ? __ldcg(static_cast<const unsigned int*>(p)) : __ldg(static_cast<const unsigned int*>(p));
}
template <bool fresh> __device__ __forceinline__ float loadOne(DType type, const void* p, int64_t i) {
  return fresh ? loadFresh(type, p, i) : loadWeight(type, p, i);
}
/// Elements [i, i + 4) of a row whose element 0 has column 0 … k - 1 inside it; zeros outside.
template <bool fresh> __device__ __forceinline__ float4 loadFour(DType type, const void* row, int column, int k, bool vectors) {
  if (column >= k) return make_float4(0, 0, 0, 0);
  if (!vectors) {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = column + i < k ? loadOne<fresh>(type, row, column + i) : 0;
    return make_float4(v[0], v[1], v[2], v[3]);
  }
  if (type == DType::f32) {
    const float4* p = reinterpret_cast<const float4*>(static_cast<const float*>(row) + column);
    return fresh ? __ldcg(p) : __ldg(p);
  }
  const uint2* p = reinterpret_cast<const uint2*>(static_cast<const unsigned short*>(row) + column);
  const uint2 v = fresh ? __ldcg(p) : __ldg(p);
  if (type == DType::bf16)
    return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16), __uint_as_float(v.y & 0xffff0000u));
  const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&v.x)), b = __half22float2(*reinterpret_cast<const __half2*>(&v.y));
  return make_float4(a.x, a.y, b.x, b.y);
}

template <class T> constexpr DType kDType = std::is_same<T, bf16>::value ? DType::bf16 : DType::f16;

/// Two neighbours rounded to 16 bits, and what that took away.
template <class T> __device__ __forceinline__ void splitPair(float a, float b, uint32_t& high, uint32_t& low) {
  const T ha = fromFloat<T>(a), hb = fromFloat<T>(b);
  const T la = fromFloat<T>(a - toFloat(ha)), lb = fromFloat<T>(b - toFloat(hb));
  high = uint32_t(*reinterpret_cast<const unsigned short*>(&ha)) | uint32_t(*reinterpret_cast<const unsigned short*>(&hb)) << 16;
  low = uint32_t(*reinterpret_cast<const unsigned short*>(&la)) | uint32_t(*reinterpret_cast<const unsigned short*>(&lb)) << 16;
}

/// One pass over x: adds up squares, or writes x · (g + gOffset) · factor in two parts, or both. ROWS tokens, BATCH · 4 columns a
/// thread at once. usual: x is f32, g of the weight's type, both are read in whole vectors.
template <class T, int ROWS, int BATCH, bool usual, bool sum, bool write>
__device__ __forceinline__ void normPass(const SmallCall& a, uint32_t xs, int tid, float (&squares)[ROWS], const float (&factor)[ROWS]) {
  const SmallLinear& op = a.op;
  const int tokens = int(op.tokens), k = int(op.k), fours = int(op.kp) / 4;
  const int64_t rowBytes = op.xStride * (usual ? 4 : floatBytes(op.xType));
  const char* x = static_cast<const char*>(op.x);
  const DType xType = usual ? DType::f32 : op.xType, gType = usual ? kDType<T> : op.gType;
  const bool vectors = usual || a.normVectors;
  for (int v = tid; v < fours; v += kConsumerThreads * BATCH) {
    float4 xv[BATCH][ROWS], gv[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      const int column = (v + j * kConsumerThreads) * 4;
#pragma unroll
      for (int t = 0; t < ROWS; t++) xv[j][t] = t < tokens ? loadFour<true>(xType, x + t * rowBytes, column, k, vectors) : make_float4(0, 0, 0, 0);
      if (write) gv[j] = loadFour<false>(gType, op.g, column, k, vectors);
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      const int at = v + j * kConsumerThreads;
      if (at >= fours) break;
      const float o = op.gOffset;
      const float4 g = write ? make_float4(gv[j].x + o, gv[j].y + o, gv[j].z + o, gv[j].w + o) : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int t = 0; t < ROWS; t++) {
        const float4 u = xv[j][t];
        if (sum) squares[t] = fmaf(u.x, u.x, fmaf(u.y, u.y, fmaf(u.z, u.z, fmaf(u.w, u.w, squares[t]))));
        if (!write || t >= tokens) continue;
        uint32_t h0, h1, l0, l1;
        const float f = factor[t];
        splitPair<T>(u.x * f * g.x, u.y * f * g.y, h0, l0);
        splitPair<T>(u.z * f * g.z, u.w * f * g.w, h1, l1);
        storeShared8(xs + t * a.xPitch + at * 8, h0, h1);
        storeShared8(xs + (tokens + t) * a.xPitch + at * 8, l0, l1);
      }
    }
  }
}

/// 1 / sqrt(mean of squares + eps) of a token, from what each warp added up.
__device__ __forceinline__ float normFactor(const SmallCall& a, const float* sums, int token) {
  float s = 0;
#pragma unroll
  for (int i = 0; i < kConsumers; i++) s += sums[token * kConsumers + i];
  return rsqrtf(s / float(a.op.k) + a.op.eps);
}

/// x · (g + gOffset) in two parts, and the sums of squares by which the product is divided at the end: nothing waits for the norm.
/// Halves could overflow that way: they are normalised first, at the price of a barrier and a second look at x.
template <class T, int ROWS, int BATCH, bool usual> __device__ __forceinline__ void loadNormed(const SmallCall& a, uint32_t xs, float* sums, int tid) {
  constexpr bool early = sizeof(T) == 2 && !(std::is_same<T, bf16>::value);
  float squares[ROWS] = {}, factor[ROWS];
#pragma unroll
  for (int t = 0; t < ROWS; t++) factor[t] = 1;
  normPass<T, ROWS, BATCH, usual, true, !early>(a, xs, tid, squares, factor);
#pragma unroll
  for (int t = 0; t < ROWS; t++) {
    const float s = warpSum(squares[t]);
    if ((tid & 31) == 0 && t < a.op.tokens) sums[t * kConsumers + (tid >> 5)] = s;
  }
  if (!early) return;
  barSync(1, kConsumerThreads);
#pragma unroll
  for (int t = 0; t < ROWS; t++)
    if (t < a.op.tokens) factor[t] = normFactor(a, sums, t);
  normPass<T, ROWS, BATCH, usual, false, true>(a, xs, tid, squares, factor);
}

template <class T, bool split> __device__ __forceinline__ void loadInput(const SmallCall& a, uint32_t xs, float* sums, int tid) {
  if constexpr (split) {
    // Types that are looked up at run time make long code where loops are unrolled; the usual ones have short code of their own.
    const bool usual = a.normVectors && a.op.xType == DType::f32 && a.op.gType == kDType<T>;
    if (!usual) loadNormed<T, kMostNormed, 1, false>(a, xs, sums, tid);
    else if (a.op.tokens == 1) loadNormed<T, 1, 4, true>(a, xs, sums, tid);
    else loadNormed<T, kMostNormed, 2, true>(a, xs, sums, tid);
  } else {
    loadPlain(a, xs, tid);
    asm volatile("cp.async.wait_all;" ::: "memory");
  }
}
