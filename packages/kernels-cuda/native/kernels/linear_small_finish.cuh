// From the sums of eight warps to the result: norm, bias, activation, residual.
#pragma once
#include "activation.cuh"
#include "linear_small_input.cuh"

/// The results of `flush` units at a time, one a thread: numbered token by token, rows first.
template <class F> struct Finish {
  static constexpr bool kLateNorm = F::split && std::is_same<typename F::Weight, bf16>::value;
  const SmallCall& a;
  const Part& part;
  float* parts;  // [buffers][warps][flush][tokens · 8 + 8]
  const float* sums;
  const int tid;
  int token, row, place;  // of the thread's result: row among those of a flush, float in a warp's sums
  int buffer = 0, first = 0;
  float bias, other;  // other: the up projection's bias, or the residual
  float factor = 1;   // 1 / rms of the token, where that is left for the end

  __device__ Finish(const SmallCall& a, const Part& part, float* parts, const float* sums, int tid) : a(a), part(part), parts(parts), sums(sums), tid(tid) {
    const int rows = a.flush / a.pair * kUnit;  // a power of two
    token = tid >> (31 - __clz(rows)), row = tid & (rows - 1);
    place = (row >> 3) * a.pair * unitFloats() + token * kUnit + (row & 7);
  }
  __device__ __forceinline__ int unitFloats() const { return int(a.op.tokens) * kUnit + kUnit; }
  /// The result's column; at least part.u1 where there is none.
  __device__ __forceinline__ int column() const { return token < a.op.tokens ? part.u0 + first / a.pair * kUnit + row : part.u1; }
  /// Asks for what the results of the units from `unit` on need.
  __device__ __forceinline__ void prepare(int unit) {
    first = unit;
    bias = other = 0;
    const int at = column();
    if (at >= part.u1) return;
    if (a.op.bias) {
      bias = loadWeight(a.op.biasType, a.op.bias, at);
      if (a.pair == 2) other = loadWeight(a.op.biasType, a.op.bias, a.rows + at);
    }
    if (a.op.epilogue == kResidual) other = loadFresh(a.op.outType, a.op.out, token * a.op.outStride + at);
  }
  /// Once, when the sums of squares are there.
  __device__ __forceinline__ void normalise() {
    if (kLateNorm && token < a.op.tokens) factor = normFactor(a, sums, token);
  }
  /// A warp's sums of one unit: lane (g, t) has rows 2t, 2t + 1 of token g, and of row g + 8 of the left operand.
  __device__ __forceinline__ void put(int unit, const float (&c)[2][4]) {
    const int warp = tid >> 5, g = (tid & 31) >> 2, t = tid & 3;
    float v0 = c[0][0] + c[1][0], v1 = c[0][1] + c[1][1];
    if (F::split) v0 += c[0][2] + c[1][2], v1 += c[0][3] + c[1][3];
    if (g >= a.op.tokens) return;
    float* to = parts + ((buffer * kConsumers + warp) * a.flush + unit) * unitFloats() + g * kUnit + 2 * t;
    *reinterpret_cast<float2*>(to) = make_float2(v0, v1);
  }
  __device__ __forceinline__ float sumOf(int at) const {
    const float* from = parts + buffer * kConsumers * a.flush * unitFloats() + at;
    float s = 0;
#pragma unroll
    for (int w = 0; w < kConsumers; w++) s += from[w * a.flush * unitFloats()];
    return s;
  }
  /// The results of the units since `prepare`; `last`: no more will come.
  __device__ __forceinline__ void flush(bool last) {
    barSync(1, kConsumerThreads);
    const int at = column();
    if (at < part.u1) {
      float v = sumOf(place) * factor + bias;
      if (a.op.epilogue == kGated) v = activated(a.op.activation, v) * (sumOf(place + unitFloats()) * factor + other);
      if (a.op.epilogue == kResidual) v += other;
      storeAsType(a.op.outType, a.op.out, token * a.op.outStride + at, v);
    }
    if (a.buffers == 2) buffer ^= 1;
    else if (!last) barSync(1, kConsumerThreads);
  }
};
