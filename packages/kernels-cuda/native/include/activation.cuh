// Activations behind a product, in f32; the same functions as activateAndMul's (elementwise.cu).
#pragma once

/// x / (1 + e^(-u)).
__device__ __forceinline__ float sigmoidGated(float x, float u) { return u < -88.5f ? 0.0f : x / (1.0f + expf(-u)); }

/// `activation`: ACTIVATION_CODE of @aphrodite/tensor. No 1 + erf or 1 + tanh, which cancel in the negative tail.
__device__ __forceinline__ float activated(int activation, float v) {
  switch (activation) {
    case 0: return sigmoidGated(v, v);
    case 1: return v < -16.0f ? -0.0f : 0.5f * v * erfcf(-0.70710678f * v);
    case 2: return sigmoidGated(v, 1.5957691216f * (v + 0.044715f * v * v * v));
    case 3: return v < 0 ? 0.0f : v;
    default: return v < 0 ? 0.0f : v * v;
  }
}
