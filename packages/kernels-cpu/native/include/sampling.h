// The passes over a row of logits. NaN counts as -infinity everywhere: its weight is 0.
//
// The draw is an exponential race, defined so that any device can hold it: token i of weight w_i = e^((x_i - max) / temperature)
// has the waiting time -log(1 - u_i), and the greatest w_i / time wins (ties: the lower id), which is token i with probability
// w_i / (sum of w). u_i = min((word + 0.5) / 2^32, 1 - 2^-24), where word is number (i / 16) mod 4 of Philox4x32-10 at the
// counter (16 (i / 64) + i mod 16, token index, 0, 0) under the key (seed word 0, seed word 1).
#pragma once
#include <stdint.h>
#include "context.h"

constexpr int64_t kBlock = 64;  // tokens that share 16 counters; also the grain in which maxima are kept

struct Race {
  uint32_t seed[2], index;
  float max, temperature;
  float minWeight;  // a token of less weight does not run
};
/// Only tokens of a greater logit than `value`, and of those of just this logit the ones up to `id`.
struct Cut { float value; int32_t id; };

struct SamplingKernels {
  /// The greatest of n logits, and that of each block.
  float (*blockMaxima)(const float* x, int64_t n, float* maxima);
  /// The sum of e^((x - max) / temperature); max is finite.
  double (*weightSum)(const float* x, int64_t n, float max, float temperature);
  void (*weights)(float* out, const float* x, int64_t n, float max, float temperature);
  /// How many steps a logit lies below max, at most `last`.
  void (*buckets)(int32_t* out, const float* x, int64_t n, float max, float steps, int32_t last);
  /// Tokens before (value, id) in falling order, ties by rising id.
  int64_t (*countBefore)(const float* x, int64_t n, float value, int64_t id);
  /// maxima are those of blockMaxima.
  int32_t (*raceAll)(const Race& race, const float* x, int64_t n, const float* maxima, Cut cut);
  int32_t (*raceListed)(const Race& race, const int32_t* ids, const float* weights, int64_t n);
};
const SamplingKernels& samplingKernels(Isa isa);
