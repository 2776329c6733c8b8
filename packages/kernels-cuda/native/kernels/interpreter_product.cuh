// A product of the interpreter: weights come through the ring, are the left operand of mma.m16n8k16, and need no unpacking.
#pragma once
#include "interpreter_list.h"
#include "interpreter_words.cuh"
#include "ring.cuh"

namespace interpreter {

struct Ring {
  uint32_t data, full, empty;  // full, empty: barriers, eight bytes a slot
  int slots, slot;
  uint32_t phase;
  __device__ __forceinline__ void next() {
    if (++slot == slots) slot = 0, phase ^= 1;
  }
  __device__ __forceinline__ uint32_t here() const { return data + slot * kSlotBytes; }
};

/// This block's rows, or pairs of rows: an even number of these, since two results share a word. The blocks that attend are the
/// first ones, so what is left over goes to the last.
__device__ __forceinline__ void rowsOf(const Product& a, int& u0, int& u1) {
  const int step = a.epilogue == kEndGated ? 2 : 1, extra = int(blockIdx.x) - (int(gridDim.x) - a.left);
  u0 = (int(blockIdx.x) * a.each + max(extra, 0)) * step;
  u1 = u0 + (a.each + (extra >= 0 ? 1 : 0)) * step;
}

/// The feeding warp streams this block's rows. It knows nothing of x, so it runs ahead of every dependency.
__device__ __forceinline__ void feedProduct(Ring& q, const Product& a) {
  const bool pairs = a.epilogue == kEndGated;
  const int lane = threadIdx.x & 31, tile = pairs ? 8 : 16, row = pairs ? lane & 7 : lane;
  int u0, u1;
  rowsOf(a, u0, u1);
  const int k = a.k;
  const char* from = static_cast<const char*>(a.w) + (int64_t(u0) + row + (pairs && lane >= 8 ? a.n : 0)) * k * 2;
  for (int u = u0; u < u1; u += tile, from += int64_t(tile) * k * 2) {
    const int rows = min(tile, u1 - u);
    for (int column = 0; column < k; column += kColumns) {
      const uint32_t bytes = min(kColumns, k - column) * 2, full = q.full + q.slot * 8;
      barrierWait(q.empty + q.slot * 8, q.phase ^ 1);
      if (lane == 0) barrierExpect(full, (pairs ? 2 * rows : rows) * bytes);
      __syncwarp();
      if (lane < 16 && row < rows) bulkLoad(q.here() + lane * kRowBytes, from + column * 2, bytes, full);
      q.next();
    }
  }
}

__device__ __forceinline__ void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

struct Scratch {
  uint32_t x;     // shared address of x
  float* parts;   // [2][kTiles][kConsumers][16] sums of the warps
  float* squares; // [2][kConsumers]
  int turn = 0, half = 0;
};
constexpr int kPartFloats = 2 * kTiles * kConsumers * 16, kScratchFloats = kPartFloats + 2 * kConsumers;

/// Waits for x and leaves it in shared memory. The caller synchronises.
__device__ __forceinline__ void loadInput(const Product& a, uint32_t base, const Scratch& s) {
  const int tid = threadIdx.x, k = a.k;
  const uint32_t plane = (k * 2 + 127) / 128 * 128 + 64;
  auto nothing = [](int) { return 0u; };
  if (a.g) {
    float squares = 0;
    auto put = [&](int i, float u, float v, uint32_t g) {
      squares = fmaf(u, u, fmaf(v, v, squares));
      u *= lowOf(g) + a.offset, v *= highOf(g) + a.offset;
      const uint32_t high = pairOf(u, v);
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(s.x + i * 4), "r"(high) : "memory");
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(s.x + plane + i * 4), "r"(pairOf(u - lowOf(high), v - highOf(high))) : "memory");
    };
    const uint32_t* const g = static_cast<const uint32_t*>(a.g);
    if (a.xOp == 0) {
      const float2* const x = static_cast<const float2*>(a.x);
      for (int i = tid; i < k / 2; i += 256) {
        const float2 v = __ldcg(x + i);
        put(i, v.x, v.y, __ldg(g + i));
      }
    } else {
      auto weight = [&](int i) { return __ldg(g + i); };
      auto words = [&](int i, uint32_t u, uint32_t v, uint32_t w) { put(i, __uint_as_float(u), __uint_as_float(v), w); };
      const uint64_t* const x = static_cast<const uint64_t*>(a.x);
      if (k <= 2048) awaitWords<4>(x, k / 2, base + a.xOp, tid, weight, words);
      else awaitWords<8>(x, k / 2, base + a.xOp, tid, weight, words);
    }
    squares = warpSum(squares);
    if ((tid & 31) == 0) s.squares[s.turn * kConsumers + (tid >> 5)] = squares;
  } else if (a.xOp == 0) {
    const uint32_t* const x = static_cast<const uint32_t*>(a.x);
    for (int i = tid; i < k / 2; i += 256) asm volatile("st.shared.u32 [%0], %1;" ::"r"(s.x + i * 4), "r"(__ldcg(x + i)) : "memory");
  } else if (a.xPairs) {
    auto words = [&](int i, uint32_t u, uint32_t v, uint32_t) { asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(s.x + i * 8), "r"(u), "r"(v) : "memory"); };
    const uint64_t* const x = static_cast<const uint64_t*>(a.x);
    if (k <= 4096) awaitWords<4>(x, k / 4, base + a.xOp, tid, nothing, words);
    else awaitWords<8>(x, k / 4, base + a.xOp, tid, nothing, words);
  } else {
    awaitWords<8>(static_cast<const uint64_t*>(a.x), k / 2, base + a.xOp, tid, nothing, [&](int i, uint32_t u, uint32_t v, uint32_t) {
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(s.x + i * 4), "r"(pairOf(__uint_as_float(u), __uint_as_float(v))) : "memory");
    });
  }
}

/// Frees a slot. `sum` is of the last product of what lay in it: without such a dependence the compiler moves the arrival before the
/// products, while loads from the slot are still under way, and the copy engine overwrites what they read.
__device__ __forceinline__ void giveBack(Ring& q, float sum) {
  __syncwarp();
  if ((threadIdx.x & 31) == 0) barrierArrive(q.empty + q.slot * 8 + (__float_as_uint(sum) == 0x7fc12345u ? 8 : 0));
  q.next();
}

/// The eight consumer warps: one product, from its dependency to its stores.
template <class AfterWait> __device__ __forceinline__ void product(Ring& q, const Product& a, uint32_t base, Scratch& s, AfterWait afterWait) {
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, t = lane & 3;
  const bool pairs = a.epilogue == kEndGated, residual = a.epilogue == kEndResidual, norm = a.g != nullptr;
  const int tile = pairs ? 8 : 16, k = a.k;
  int u0, u1;
  rowsOf(a, u0, u1);
  if (u0 >= u1) {  // and so nothing is read that a later op could have written over
    afterWait();
    barSync(1, kConsumers * 32);
    return;
  }
  uint2 old = make_uint2(0, base);
  const int mine = u0 + warp * 16 + lane;  // the row of the residual that this lane will finish
  const bool finishes = residual && lane < 16 && mine < u1;
  auto loadOld = [&](int unit) {
    if (a.oldOp == 0) return make_uint2(__float_as_uint(__ldcg(static_cast<const float*>(a.old) + unit)), base);
    return loadWord(static_cast<const uint64_t*>(a.old) + unit);
  };
  if (finishes) old = loadOld(mine);
  loadInput(a, base, s);
  if (finishes && old.y != base + a.oldOp) old = loadOld(mine);
  afterWait();
  barSync(1, kConsumers * 32);

  const bool live = g < (norm ? 2 : 1);
  const uint32_t plane = (k * 2 + 127) / 128 * 128 + 64;
  const uint32_t x0 = s.x + (norm ? (g & 1) * plane : 0) + (warp * 32 + t * 8) * 2;
  const uint32_t w0 = g * kRowBytes + (warp * 32 + t * 8) * 2;
  int done = 0;  // tiles since the last barrier
  for (int v0 = u0; v0 < u1; v0 += tile) {
    float c[2][4] = {};
    for (int column = 0; column < k; column += kColumns) {
      const int units = (k - column - warp * 32 + 255) / 256;  // of 32 columns that are this warp's
      uint4 x[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        x[i] = make_uint4(0, 0, 0, 0);
        if (live && i < units) x[i] = loadShared16(x0 + column * 2 + i * 512);
      }
      barrierWait(q.full + q.slot * 8, q.phase);
      const uint32_t at = q.here() + w0;
      auto step = [&](int i) {
        const uint4 v = loadShared16(at + i * 512), w = loadShared16(at + 8 * kRowBytes + i * 512);
        multiply(c[0], v.x, w.x, v.y, w.y, x[i].x, x[i].y);
        multiply(c[1], v.z, w.z, v.w, w.w, x[i].z, x[i].w);
      };
      if (units >= 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) step(i);
      } else {
#pragma unroll
        for (int i = 0; i < 3; i++)
          if (i < units) step(i);
      }
      giveBack(q, c[1][0]);
    }
    float* parts = s.parts + s.half * (kPartFloats / 2);
    if (t == 0) {
      parts[(done * kConsumers + warp) * 16 + g] = c[0][0] + c[0][1] + c[1][0] + c[1][1];
      parts[(done * kConsumers + warp) * 16 + g + 8] = c[0][2] + c[0][3] + c[1][2] + c[1][3];
    }
    if (++done < kTiles && v0 + tile < u1) continue;
    barSync(1, kConsumers * 32);
    const int tiles = done, unit = v0 + tile - (tiles - warp) * tile + lane;  // a warp finishes the tile of its number
    done = 0, s.half ^= 1, parts += warp * kConsumers * 16;
    if (warp >= tiles) continue;
    float v = 0;
#pragma unroll
    for (int i = 0; i < kConsumers; i++) v += parts[i * 16 + (lane & 15)];
    if (norm) {
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kConsumers; i++) squares += s.squares[s.turn * kConsumers + i];
      v *= rsqrtf(squares / k + a.eps);
    }
    if (a.bias && lane < 16) {
      const int row = pairs ? unit - (lane & 8) + (lane >= 8 ? a.n : 0) : unit;
      if (unit - (pairs ? lane & 8 : 0) < u1) v += __bfloat162float(__ldg(static_cast<const bf16*>(a.bias) + row));
    }
    const uint32_t tag = base + a.op;
    if (pairs) {
      const float up = __shfl_down_sync(~0u, v, 8);
      v = v / (1.f + __expf(-v)) * up;
      const float odd = __shfl_down_sync(~0u, v, 1);
      if (lane < 8 && !(lane & 1) && unit < u1) {
        const uint32_t pair = pairOf(v, odd);
        if (a.words) storeWord(a.words + unit / 2, pair, tag);
        if (a.store) static_cast<uint32_t*>(a.store)[unit / 2] = pair;
      }
    } else if (lane < 16 && unit < u1) {
      if (residual) {
        if (unit != mine) old.y = base - 1;
        for (Patience patience; old.y != base + a.oldOp; patience()) old = loadOld(unit);
        v += __uint_as_float(old.x);
      }
      if (a.words) storeWord(a.words + unit, __float_as_uint(v), tag);
      if (a.store) {
        if (a.storeFloat) static_cast<float*>(a.store)[unit] = v;
        else static_cast<bf16*>(a.store)[unit] = __float2bfloat16_rn(v);
      }
    }
  }
  s.turn ^= 1;
}

}  // namespace interpreter
