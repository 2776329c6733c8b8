// The usual case of a product of 1 or 2 tokens, by short code: a kernel of a decode step runs most of its code for the first time
// since another kernel's was there, so what is not needed costs time even where it is jumped over. bf16, whole lines, and either a
// norm of an f32 residual in front and nothing or silu behind, or the sum into an f32 residual behind.
//
// The weight is the left operand, 16 rows a tile (or 8 gates and the 8 rows they multiply); x is the right one, a column a token,
// behind a norm two: what x · g is rounded to, and what that took away. Every warp multiplies the same lines of all rows, so it
// fetches its own part of x and waits for no other warp before the last reduction.
#pragma once
#include "linear_small_ring.cuh"

struct TilesCall {
  const char *w, *x, *g, *bias;
  char* out;
  int k, rows, base, extra;  // rows: of pairs or rows to divide; a block has base of them, the first `extra` one more
  int lines, slotLines, stages, slotBytes, pitch, xPitch, xAt, partsAt;
  int xStride, outStride;
  int whole;     // a slot holds whole rows, as they lie in memory
  int half;      // no block has more than 8 rows: the upper half of its one tile repeats the lower one
  int outFloat;  // f32 out
  float eps, gOffset;
};
constexpr int kTileFlush = 8;  // tiles between two reductions

/// What a block's warps leave for its reductions; with two, one barrier a reduction is enough.
template <int TOKENS> constexpr int kTileParts = 2 * kConsumers * kTileFlush * 16 * TOKENS;

/// The feeding warp: sets up the barriers, fills the ring, lets the other warps on, refills.
template <bool PAIR> __device__ __forceinline__ void feedTiles(Ring& q, const TilesCall& a, int u0, int count) {
  constexpr int kPer = PAIR ? 8 : 16;
  const int lane = threadIdx.x & 31;
  const int64_t rowBytes = int64_t(a.k) * 2;
  if (lane < a.stages) barrierInit(q.full + lane * 8, 1), barrierInit(q.empty + lane * 8, kConsumers);
  barrierInitFence();
  __syncwarp();
  int filled = 0;
  for (int u = 0; u < count; u += kPer) {
    const int n = min(kPer, count - u), row = u0 + u;
    for (int line = 0; line < a.lines; line += a.slotLines) {
      if (filled >= a.stages) {
        if (filled == a.stages) __syncthreads();
        barrierWait(q.empty + q.slot * 8, q.phase ^ 1);
      }
      filled++;
      const int bytes = min(a.slotLines, a.lines - line) * 128;
      const uint32_t bar = q.full + q.slot * 8, to = q.data + q.slot * a.slotBytes;
      if (lane == 0) barrierExpect(bar, (PAIR ? 2 : 1) * n * bytes);
      __syncwarp();
      if (a.whole) {
        if (lane < (PAIR ? 2 : 1)) bulkLoad(to + lane * 8 * a.pitch, a.w + (row + lane * a.rows) * rowBytes, n * bytes, bar);
      } else if (lane < 16 && (PAIR ? lane & 7 : lane) < n) {
        const int r = row + (PAIR ? (lane & 7) + (lane >> 3) * a.rows : lane);
        bulkLoad(to + lane * a.pitch, a.w + r * rowBytes + line * 128, bytes, bar);
      }
      q.next();
    }
  }
  if (filled <= a.stages) __syncthreads();
}

/// A warp's lines of x · (g + gOffset), in two parts, and its share of the squares. gv: weights of the first lines, asked for
/// before x was there.
template <int TOKENS, int BATCH>
__device__ __forceinline__ void loadNormedLines(const TilesCall& a, uint32_t xs, int line, int column, uint2 (&gv)[BATCH], float (&squares)[TOKENS]) {
  for (int l0 = line; l0 < a.lines; l0 += 16 * BATCH) {
    float4 xv[BATCH][TOKENS];
#pragma unroll
    for (int j = 0; j < BATCH; j++)
#pragma unroll
      for (int i = 0; i < TOKENS; i++)
        if (l0 + 16 * j < a.lines) xv[j][i] = __ldcg(reinterpret_cast<const float4*>(a.x + (i * int64_t(a.xStride) + (l0 + 16 * j) * kLine + column) * 4));
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
      const int l = l0 + 16 * j;
      if (l >= a.lines) break;
      const float o = a.gOffset;
      const float4 w = make_float4(__uint_as_float(gv[j].x << 16) + o, __uint_as_float(gv[j].x & 0xffff0000u) + o, __uint_as_float(gv[j].y << 16) + o,
                                   __uint_as_float(gv[j].y & 0xffff0000u) + o);
#pragma unroll
      for (int i = 0; i < TOKENS; i++) {
        const float4 u = xv[j][i];
        squares[i] = fmaf(u.x, u.x, fmaf(u.y, u.y, fmaf(u.z, u.z, fmaf(u.w, u.w, squares[i]))));
        uint32_t h0, h1, l0, l1;
        splitPair<bf16>(u.x * w.x, u.y * w.y, h0, l0);
        splitPair<bf16>(u.z * w.z, u.w * w.w, h1, l1);
        storeShared8(xs + 2 * i * a.xPitch + l * 128 + column * 2, h0, h1);
        storeShared8(xs + (2 * i + 1) * a.xPitch + l * 128 + column * 2, l0, l1);
      }
      if (l + 16 * BATCH < a.lines) gv[j] = __ldg(reinterpret_cast<const uint2*>(a.g + ((l + 16 * BATCH) * kLine + column) * 2));
    }
  }
}

template <int TOKENS, bool NORM, int EPILOGUE> __global__ __launch_bounds__(kConsumerThreads + 32, 2) void smallLinearTiles(const __grid_constant__ TilesCall a) {
#if __CUDA_ARCH__ >= 900
  constexpr bool PAIR = EPILOGUE == kGated;
  constexpr int kPer = PAIR ? 8 : 16;  // results of a tile
  constexpr int kTileFloats = 16 * TOKENS, kWarpFloats = kTileFlush * kTileFloats, kBufferFloats = kConsumers * kWarpFloats;
  constexpr int kColumns = NORM ? 2 * TOKENS : TOKENS, kRows = kTileFlush * kPer, kBatch = TOKENS == 1 ? 4 : 2;
  extern __shared__ __align__(128) char shared[];
  __shared__ SmallBars bars;
  __shared__ float sums[TOKENS * kConsumers];
  pdlTrigger();
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, block = blockIdx.x, g = lane >> 2, t = lane & 3;
  const int u0 = block * a.base + min(block, a.extra), count = a.base + (block < a.extra);
  Ring q{sharedAddress(shared), sharedAddress(bars.full), sharedAddress(bars.empty), a.stages, 0, 0};
  if (warp == kConsumers) {
    feedTiles<PAIR>(q, a, u0, count);
    pdlWait();
    return;
  }
  const int line = warp + 8 * (lane >> 4), column = (lane & 15) * 4;  // NORM: a lane's first line and its columns there
  uint2 gv[kBatch];
  if (NORM)
#pragma unroll
    for (int j = 0; j < kBatch; j++)
      if (line + 16 * j < a.lines) gv[j] = __ldg(reinterpret_cast<const uint2*>(a.g + ((line + 16 * j) * kLine + column) * 2));
  __syncthreads();
  // The thread's result: row of a flush, of token `token`.
  const int token = tid / kRows, row = tid % kRows, place = row / kPer * kTileFloats + token * 16 + row % kPer;
  const int64_t outAt = int64_t(token) * a.outStride + u0 + row;
  const bool mine = token < TOKENS;
  const uint32_t xs = q.data + a.xAt;
  pdlWait();

  float other = 0, squares[TOKENS] = {};
  if (EPILOGUE == kResidual && mine && row < count) other = __ldcg(reinterpret_cast<const float*>(a.out) + outAt);
  if (NORM) loadNormedLines<TOKENS, kBatch>(a, xs, line, column, gv, squares);
  else {
    for (int l = warp + 8 * (lane >> 3); l < a.lines; l += 32)
#pragma unroll
      for (int i = 0; i < TOKENS; i++) {
        const int at = l * 128 + (lane & 7) * 16;
        copyAsync16(xs + i * a.xPitch + at, a.x + i * int64_t(a.xStride) * 2 + at);
      }
    asm volatile("cp.async.wait_all;" ::: "memory");
  }
  __syncwarp();

  // Columns of the right operand that are no token's repeat one that is.
  const uint32_t xLane = xs + g % kColumns * a.xPitch + t * 16;
  const bool swap = a.whole && (g & 1);  // rows without padding start in the same bank: odd ones read their halves in the other order
  const uint32_t early = swap ? 64 : 0, late = 64 - early, wLane = q.data + g * a.pitch + t * 16, high = a.half ? 0 : 8 * a.pitch;
  float* const parts = reinterpret_cast<float*>(shared + a.partsAt);
  int buffer = 0, held = 0, first = 0;
  float factor = 1;
  for (int u = 0; u < count; u += kPer) {
    float c[2][4] = {};
    for (int line0 = 0; line0 < a.lines; line0 += a.slotLines) {
      const int lines = min(a.slotLines, a.lines - line0);
      const uint32_t at = wLane + q.slot * a.slotBytes;
      barrierWait(q.full + q.slot * 8, q.phase);
#pragma unroll 2
      for (int l = warp; l < lines; l += kConsumers) {
        const uint32_t xl = xLane + (line0 + l) * 128, wl = at + l * 128;
        const uint4 x0 = loadShared16(xl), x1 = loadShared16(xl + 64);
        const uint4 v0 = loadShared16(wl + early), v1 = loadShared16(wl + late);
        const uint4 h0 = loadShared16(wl + high + early), h1 = loadShared16(wl + high + late);
        const uint4 p0 = swap ? v1 : v0, p1 = swap ? v0 : v1, q0 = swap ? h1 : h0, q1 = swap ? h0 : h1;
        mma<bf16>(c[0], p0.x, q0.x, p0.y, q0.y, x0.x, x0.y);
        mma<bf16>(c[1], p0.z, q0.z, p0.w, q0.w, x0.z, x0.w);
        mma<bf16>(c[0], p1.x, q1.x, p1.y, q1.y, x1.x, x1.y);
        mma<bf16>(c[1], p1.z, q1.z, p1.w, q1.w, x1.z, x1.w);
      }
      release(q.empty + q.slot * 8, c[0][0] + c[1][0]);
      q.next();
    }
    // Lane (g, t) has columns 2t and 2t + 1 of rows g and g + 8.
    float* const to = parts + buffer * kBufferFloats + warp * kWarpFloats + held * kTileFloats + g;
    const float v0 = c[0][0] + c[1][0], v1 = c[0][1] + c[1][1], h0 = c[0][2] + c[1][2], h1 = c[0][3] + c[1][3];
    if (NORM) {
      if (t < TOKENS) to[t * 16] = v0 + v1, to[t * 16 + 8] = h0 + h1;
    } else {
      if (2 * t < TOKENS) to[2 * t * 16] = v0, to[2 * t * 16 + 8] = h0;
      if (2 * t + 1 < TOKENS) to[(2 * t + 1) * 16] = v1, to[(2 * t + 1) * 16 + 8] = h1;
    }
    const bool last = u + kPer >= count;
    if (++held < kTileFlush && !last) continue;

    if (NORM && first == 0)
#pragma unroll
      for (int i = 0; i < TOKENS; i++) {
        const float s = warpSum(squares[i]);
        if (lane == 0) sums[i * kConsumers + warp] = s;
      }
    barSync(1, kConsumerThreads);
    if (mine && first + row < count) {
      const float* const from = parts + buffer * kBufferFloats + place;
      float v = 0, up = 0;
#pragma unroll
      for (int i = 0; i < kConsumers; i++) {
        v += from[i * kWarpFloats];
        if (PAIR) up += from[i * kWarpFloats + 8];
      }
      if (NORM) {
        if (first == 0) {
          float s = 0;
#pragma unroll
          for (int i = 0; i < kConsumers; i++) s += sums[token * kConsumers + i];
          factor = rsqrtf(s / float(a.k) + a.eps);
        }
        v *= factor, up *= factor;
      }
      if (!PAIR && a.bias) v += toFloat(reinterpret_cast<const bf16*>(a.bias)[u0 + first + row]);
      if (PAIR) v = sigmoidGated(v, v) * up;
      if (EPILOGUE == kResidual || (EPILOGUE == kStore && a.outFloat)) reinterpret_cast<float*>(a.out)[outAt + first] = v + other;
      else reinterpret_cast<bf16*>(a.out)[outAt + first] = fromFloat<bf16>(v);
    }
    buffer ^= 1, held = 0, first += kRows;
    if (EPILOGUE == kResidual && !last && mine && first + row < count) other = __ldcg(reinterpret_cast<const float*>(a.out) + outAt + first);
  }
#endif
}
