// What a small product's kernel is told, and how its rows and columns are divided.
#pragma once
#include "device.cuh"
#include "linear_small.h"

constexpr int kConsumers = 8, kConsumerThreads = kConsumers * 32;
constexpr int kUnit = 8;          // rows of the weight in one mma: its N
constexpr int kLine = 64;         // columns of a line: 128 bytes, all banks of shared memory
constexpr int kMostTokens = 8;
constexpr int kMostNormed = 2;    // tokens that the norm prologue takes
constexpr int kMostStages = 24;
/// More than half of a multiprocessor's shared memory: two blocks of one kernel would otherwise share one and leave another idle.
constexpr int kAlone = 118 << 10;

struct SmallCall {
  SmallLinear op;
  int rows;        // rows to divide: n, or n / 2 pairs of rows
  int pair;        // 2 for pairs of a gate's and an up projection's row, else 1
  int lines;       // a slot's
  int stages, slotBytes, pitch;  // of the ring; pitch: bytes from row to row in a slot
  int whole;       // a slot holds whole rows, as they lie in memory: one copy fills it
  int xPitch;      // bytes from token to token in shared memory
  int flush;       // units between two reductions
  int buffers;     // of partial sums: with two, one barrier a reduction is enough
  int xAt, partsAt;              // where they begin in shared memory
  int xVectors, normVectors;     // x may be read 16 bytes, x and g 4 elements at a time
};

/// What the 16 rows of the left operand are: rows 0 … 7 tokens; split: rows 8 … 15 what rounding to 16 bits took away from them.
template <class T, bool split_> struct Operand16 {
  using Weight = T;
  static constexpr bool split = split_;
};

/// The part of a block: rows [u0, u1), as units (a pair is two).
struct Part {
  int u0, u1, lines, units;
  __device__ explicit Part(const SmallCall& a) {
    u0 = int(int64_t(a.rows) * blockIdx.x / gridDim.x), u1 = int(int64_t(a.rows) * (blockIdx.x + 1) / gridDim.x);
    lines = (int(a.op.kp) + kLine - 1) / kLine;  // of a row
    units = (u1 - u0 + kUnit - 1) / kUnit * a.pair;
  }
/// First row of the weight of a unit, and how many it has.
  __device__ int row(const SmallCall& a, int unit) const { return a.pair == 2 ? (unit & 1) * a.rows + u0 + (unit >> 1) * kUnit : u0 + unit * kUnit; }
  __device__ int count(const SmallCall& a, int unit) const {
    const int left = u1 - u0 - (a.pair == 2 ? unit >> 1 : unit) * kUnit;
    return left < kUnit ? left : kUnit;
  }
};

/// c [16 tokens, 8 rows] += a [16 tokens, 16 columns] · b [16 columns, 8 rows].
template <class T> __device__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void mma<bf16>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void mma<f16>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/// The products of 32 columns.
template <class T> __device__ __forceinline__ void multiply(float (&c)[2][4], const uint4& x0, const uint4& x1, const uint4& w) {
  mma<T>(c[0], x0.x, x1.x, x0.y, x1.y, w.x, w.y);
  mma<T>(c[1], x0.z, x1.z, x0.w, x1.w, w.z, w.w);
}

__device__ __forceinline__ int floatBytes(DType type) { return type == DType::f32 ? 4 : 2; }
/// Activations are read past the first-level cache: a block may start, and fill that cache, while their writer still runs.
__device__ __forceinline__ float loadFresh(DType type, const void* p, int64_t i) {
  if (type == DType::f32) return __ldcg(static_cast<const float*>(p) + i);
  const unsigned short bits = __ldcg(static_cast<const unsigned short*>(p) + i);
  return type == DType::bf16 ? __uint_as_float(uint32_t(bits) << 16) : __half2float(__ushort_as_half(bits));
}
__device__ __forceinline__ float loadWeight(DType type, const void* p, int64_t i) {
  if (type == DType::f32) return __ldg(static_cast<const float*>(p) + i);
  const unsigned short bits = __ldg(static_cast<const unsigned short*>(p) + i);
  return type == DType::bf16 ? __uint_as_float(uint32_t(bits) << 16) : __half2float(__ushort_as_half(bits));
}
__device__ __forceinline__ void storeAsType(DType type, void* p, int64_t i, float v) {
  if (type == DType::f32) static_cast<float*>(p)[i] = v;
  else if (type == DType::bf16) static_cast<bf16*>(p)[i] = fromFloat<bf16>(v);
  else static_cast<f16*>(p)[i] = fromFloat<f16>(v);
}
