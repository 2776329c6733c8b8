// From the sums of eight warps (and of the blocks of a cluster) to the result: bias, norm, activation, residual.
#pragma once
#include "linear_small_input.cuh"

/// Not inlined: the code of all five would lie in the way of every kernel's last instructions.
static __device__ __noinline__ float activated(int activation, float v) {
  switch (activation) {
    case 0: return v / (1 + expf(-v));
    case 1: return 0.5f * v * (1 + erff(v * 0.70710678118654752f));
    case 2: return 0.5f * v * (1 + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
    case 3: return v > 0 || v != v ? v : 0;
    default: return v > 0 || v != v ? v * v : 0;
  }
}

// Shared memory of another block of the cluster.
__device__ __forceinline__ uint32_t remoteAddress(uint32_t local, int rank) {
  uint32_t r = local;
#if __CUDA_ARCH__ >= 900
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(local), "r"(rank));
#endif
  return r;
}
__device__ __forceinline__ void storeRemote(uint32_t to, float v) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(to), "f"(v) : "memory");
#endif
}
__device__ __forceinline__ void arriveRemote(uint32_t barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
#endif
}
__device__ __forceinline__ void waitCluster(uint32_t b, uint32_t parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n.reg .pred p;\nWAIT_%=:\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n@p bra DONE_%=;\nbra WAIT_%=;\nDONE_%=:\n}" ::"r"(b),
      "r"(parity)
      : "memory");
#endif
}

/// The results of `flush` units at a time. They are numbered token by token, rows first; block `rank` of a cluster owns `owned` of
/// them, a thread of it J at most.
template <class F, int J> struct Finish {
  static constexpr bool kLateNorm = F::split && std::is_same<typename F::Weight, bf16>::value;
  const SmallCall& a;
  const Part& part;
  float* parts;        // [buffers][warps][flush][tokens · 8 + 8]
  float* received;     // [2][cluster][owned][pair]
  uint32_t receivedBar;
  const float* sums;
  const int tid;
  int rowShift, all, owned, done = 0, buffer = 0, first = 0;
  float bias[J], other[J];  // the up projection's bias, or the residual
  float factor[J];          // 1 / rms of the token, where that is left for the end

  __device__ Finish(const SmallCall& a, const Part& part, float* parts, float* received, uint32_t receivedBar, const float* sums, int tid)
      : a(a), part(part), parts(parts), received(received), receivedBar(receivedBar), sums(sums), tid(tid) {
    rowShift = 31 - __clz(a.flush / a.pair * kUnit);
    all = int(a.op.tokens) << rowShift;
    owned = (all + a.cluster - 1) / a.cluster;
  }
  __device__ __forceinline__ int unitFloats() const { return int(a.op.tokens) * kUnit + kUnit; }
  /// Token and row of the thread's result number j; false where there is none.
  __device__ __forceinline__ bool mine(int j, int& token, int& row) const {
    const int local = tid + j * kConsumerThreads, e = part.rank * owned + local;
    token = e >> rowShift;
    row = part.u0 + first / a.pair * kUnit + (e & ((1 << rowShift) - 1));
    return local < owned && e < all && row < part.u1;
  }
  /// Asks for what the results of the units from `unit` on need.
  __device__ __forceinline__ void prepare(int unit) {
    first = unit;
#pragma unroll
    for (int j = 0; j < J; j++) {
      int token, row;
      bias[j] = other[j] = 0;
      if (!mine(j, token, row)) continue;
      if (a.op.bias) {
        bias[j] = loadWeight(a.op.biasType, a.op.bias, row);
        if (a.pair == 2) other[j] = loadWeight(a.op.biasType, a.op.bias, a.rows + row);
      }
      if (a.op.epilogue == kResidual) other[j] = loadFresh(a.op.outType, a.op.out, token * a.op.outStride + row);
    }
  }
  /// What the sums have to be multiplied by; once, when the sums of squares are there.
  __device__ __forceinline__ void normalise() {
#pragma unroll
    for (int j = 0; j < J; j++) {
      const int token = (part.rank * owned + tid + j * kConsumerThreads) >> rowShift;
      factor[j] = kLateNorm && token < a.op.tokens ? normFactor(a, sums, token) : 1;
    }
  }
  /// A warp's sums of one unit: lane (g, t) has rows 2t, 2t + 1 of tokens g and g + 8.
  __device__ __forceinline__ void put(int unit, const float (&c)[F::P][2][4]) {
    const int warp = tid >> 5, g = (tid & 31) >> 2, t = tid & 3, tokens = int(a.op.tokens);
    float* to = parts + ((buffer * kConsumers + warp) * a.flush + unit) * unitFloats() + 2 * t;
#pragma unroll
    for (int p = 0; p < F::P; p++) {
      float v0 = c[p][0][0] + c[p][1][0], v1 = c[p][0][1] + c[p][1][1];
      const float w0 = c[p][0][2] + c[p][1][2], w1 = c[p][0][3] + c[p][1][3];
      if (F::split) v0 += w0, v1 += w1;
      const int token = p * 16 + g;
      if (token < tokens) *reinterpret_cast<float2*>(to + token * kUnit) = make_float2(v0, v1);
      if (F::upper && !F::split && token + 8 < tokens) *reinterpret_cast<float2*>(to + (token + 8) * kUnit) = make_float2(w0, w1);
    }
  }
  /// The sum over warps of result e's row; `second`: of the up projection.
  __device__ __forceinline__ float sumOf(int e, int second) const {
    const int token = e >> rowShift, r = e & ((1 << rowShift) - 1), unit = (r >> 3) * a.pair + second;
    const float* from = parts + (buffer * kConsumers * a.flush + unit) * unitFloats() + token * kUnit + (r & 7);
    float s = 0;
#pragma unroll
    for (int w = 0; w < kConsumers; w++) s += from[w * a.flush * unitFloats()];
    return s;
  }
  /// The results of the units since `prepare`; `last`: no more will come.
  __device__ __forceinline__ void flush(bool last) {
    barSync(1, kConsumerThreads);
    if (a.cluster > 1) exchange();
#pragma unroll
    for (int j = 0; j < J; j++) {
      int token, row;
      if (!mine(j, token, row)) continue;
      float v, u = 0;
      if (a.cluster > 1) {
        const float* from = received + (((done & 1) * a.cluster) * owned + tid + j * kConsumerThreads) * a.pair;
        v = 0;
        for (int i = 0; i < a.cluster; i++, from += owned * a.pair) {
          v += from[0];
          if (a.pair == 2) u += from[1];
        }
      } else {
        v = sumOf(tid + j * kConsumerThreads, 0);
        if (a.pair == 2) u = sumOf(tid + j * kConsumerThreads, 1);
      }
      if (kLateNorm) v *= factor[j], u *= factor[j];
      v += bias[j];
      if (a.op.epilogue == kGated) v = activated(a.op.activation, v) * (u + other[j]);
      if (a.op.epilogue == kResidual) v += other[j];
      storeAsType(a.op.outType, a.op.out, token * a.op.outStride + row, v);
    }
    done++;
    if (a.buffers == 2) buffer ^= 1;
    else if (!last) barSync(1, kConsumerThreads);
  }
  /// Gives each block of the cluster this block's share of the sums it owns, and waits for theirs. Two buffers are enough: a block
  /// that has all of flush f has read all of flush f - 1, and so has whoever sent it.
  __device__ __forceinline__ void exchange() {
    const uint32_t to = sharedAddress(received + (((done & 1) * a.cluster + part.rank) * owned) * a.pair);
    for (int e = tid; e < all; e += kConsumerThreads) {
      const int rank = e / owned;
      const uint32_t at = remoteAddress(to, rank) + (e - rank * owned) * a.pair * 4;
      storeRemote(at, sumOf(e, 0));
      if (a.pair == 2) storeRemote(at + 4, sumOf(e, 1));
    }
    __syncwarp();
    if ((tid & 31) < a.cluster) arriveRemote(remoteAddress(receivedBar, tid & 31));
    waitCluster(receivedBar, done & 1);
  }
};
