// The numbers of a draw. Every operation is rounded once and none is fused, in the order in which the CPU backend has them: the
// weights and waiting times of both have the same bits.
#pragma once
#include "device.cuh"

constexpr int kGroup = 64;  // tokens that share 16 counters; also the grain in which maxima are kept

struct Race {
  uint32_t seed[2], index;
  float max, temperature;
};

/// Unsigned integers in the order of floats. −0 must have been made 0.
__device__ __forceinline__ uint32_t orderOf(float x) {
  const uint32_t u = __float_as_uint(x);
  return u ^ (uint32_t(int32_t(u) >> 31) | 0x80000000u);
}
__device__ __forceinline__ float floatOf(uint32_t order) { return __uint_as_float(order ^ (order >> 31 ? 0x80000000u : 0xffffffffu)); }
/// NaN to −infinity, −0 to 0.
__device__ __forceinline__ float cleaned(float x) { return fmaxf(x + 0.0f, -INFINITY); }

/// Likelier first, then the lower id: greater keys come earlier. No two tokens have one key.
__device__ __forceinline__ uint64_t keyOf(float x, int id) { return uint64_t(orderOf(x)) << 32 | (0xffffffffu - uint32_t(id)); }
__device__ __forceinline__ int idOf(uint64_t key) { return int(0xffffffffu - uint32_t(key)); }
__device__ __forceinline__ float valueOf(uint64_t key) { return floatOf(uint32_t(key >> 32)); }

/// e^x for x ≤ 0, 1 ulp: 2^n e^r with x = n ln 2 + r; 0 below e^-87.3 and for NaN.
__device__ __forceinline__ float expNegative(float x) {
  const float sum = __fadd_rn(__fmul_rn(x, 0x1.715476p0f), 0x1.8p23f), n = __fsub_rn(sum, 0x1.8p23f);
  const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, 0x1.62e4p-1f)), __fmul_rn(n, 0x1.7f7d1cp-20f));
  float q = 0x1.a157b2p-13f;
  q = __fadd_rn(__fmul_rn(q, r), 0x1.6d4926p-10f);
  q = __fadd_rn(__fmul_rn(q, r), 0x1.1110c4p-7f);
  q = __fadd_rn(__fmul_rn(q, r), 0x1.5554e4p-5f);
  q = __fadd_rn(__fmul_rn(q, r), 0x1.555556p-3f);
  q = __fadd_rn(__fmul_rn(q, r), 0.5f);
  const float e = __fadd_rn(1.0f, __fadd_rn(r, __fmul_rn(__fmul_rn(r, r), q)));
  return x > -87.3f ? __int_as_float(__float_as_int(e) + (__float_as_int(sum) << 23)) : 0.0f;
}
__device__ __forceinline__ float weightOf(float x, float max, float temperature) {
  return expNegative(__fdiv_rn(__fsub_rn(x, max), temperature));
}

/// −log(1 − v) for 0 < v < 1, 2 ulp: log(m) = 2 artanh((m − 1) / (m + 1)) for m in [1/√2, √2).
__device__ __forceinline__ float negLog1m(float v) {
  const float y = __fsub_rn(1.0f, v);
  const int k = (__float_as_int(y) - 0x3f3504f3) >> 23;
  const float m = __int_as_float(int(uint32_t(__float_as_int(y)) - (uint32_t(k) << 23)));
  const float f = k == 0 ? -v : __fsub_rn(m, 1.0f);
  const float s = __fdiv_rn(f, __fadd_rn(2.0f, f)), z = __fmul_rn(s, s);
  float series = __fmul_rn(2.0f / 11, z);
  series = __fmul_rn(__fadd_rn(series, 2.0f / 9), z);
  series = __fmul_rn(__fadd_rn(series, 2.0f / 7), z);
  series = __fmul_rn(__fadd_rn(series, 2.0f / 5), z);
  series = __fmul_rn(__fadd_rn(series, 2.0f / 3), z);
  const float log = __fsub_rn(f, __fmul_rn(s, __fsub_rn(f, series)));
  return -__fadd_rn(__fmul_rn(float(k), 0.6931472f), log);
}
__device__ __forceinline__ float waitingTime(uint32_t word) {
  const float w = __fadd_rn(__fmul_rn(float(word >> 16), 65536.0f), __fadd_rn(float(word & 0xffff), 0.5f));
  return negLog1m(fminf(__fmul_rn(w, 0x1p-32f), 0x1.fffffep-1f));
}

/// Philox4x32-10 (Salmon et al. 2011) at the counter (c, index, 0, 0).
__device__ __forceinline__ uint4 philox(uint32_t c, const Race& race) {
  uint32_t c0 = c, c1 = race.index, c2 = 0, c3 = 0, k0 = race.seed[0], k1 = race.seed[1];
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(c0) * 0xd2511f53u, b = uint64_t(c2) * 0xcd9e8d57u;
    c0 = uint32_t(b >> 32) ^ c1 ^ k0, c1 = uint32_t(b);
    c2 = uint32_t(a >> 32) ^ c3 ^ k1, c3 = uint32_t(a);
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  return {c0, c1, c2, c3};
}
/// Of the token `id`, and those 16, 32 and 48 behind it in its group: words x, y, z, w.
__device__ __forceinline__ uint32_t counterOf(int id) { return (uint32_t(id) >> 6) << 4 | (uint32_t(id) & 15); }

/// Greater is sooner; of tokens that arrive together the lower id is greater. 0: it does not run, its weight is below the least.
__device__ __forceinline__ uint64_t arrivalOf(float x, int id, uint32_t word, const Race& race, float leastWeight) {
  const float weight = weightOf(x, race.max, race.temperature);
  if (!(weight >= leastWeight)) return 0;
  return uint64_t(__float_as_uint(__fdiv_rn(weight, waitingTime(word)))) << 32 | (0xffffffffu - uint32_t(id));
}
static __device__ __noinline__ uint64_t arrival(float x, int id, const Race race, float leastWeight) {
  const uint4 words = philox(counterOf(id), race);
  const int which = id >> 4 & 3;
  return arrivalOf(x, id, which == 0 ? words.x : which == 1 ? words.y : which == 2 ? words.z : words.w, race, leastWeight);
}

/// The logarithm to base 2 of what a token's rate, weight / waiting time, cannot exceed: its time is at least u. `slope` = log2(e) /
/// temperature.
__device__ __forceinline__ float rateBound(float belowMax, uint32_t word, float slope) {
  float log;
  asm("lg2.approx.f32 %0, %1;" : "=f"(log) : "f"(float(word) + 0.5f));
  return belowMax * slope - (log - 32.0f);
}
/// How far below that bound the rate may lie: the time is at most 1.3863 u where u ≤ 1/2, and never above 16.64.
__device__ __forceinline__ float boundWidth(uint32_t word) { return int32_t(word) >= 0 ? 0.4714f : 5.06f; }
/// What approximation and rounding may make of the bounds.
constexpr float kBoundSlack = 1e-3f;
/// A token whose weight is 2^-37.5 of the greatest cannot win: times lie between 2^-33 and 2^4.06.
constexpr float kHopeless = -37.5f;
__device__ __forceinline__ float slopeOf(float temperature) { return fminf(__fdiv_rn(1.442695041f, temperature), 3e38f); }
