// wgmma on sm_90a: m64 nN k16, sums in f32. A from shared memory or registers, B from shared memory.
//
// N numbers of 64 rows lie in the 128 threads of a warpgroup as after mma.m16n8k16: warp w has rows 16 w to 16 w + 15; d[4 j + e]
// is row lane / 4 (+ 8 for e >= 2), column 8 j + lane % 4 * 2 + e % 2.
#pragma once
#include "cache_layout.h"
#include "device.cuh"

__device__ __forceinline__ void wgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending> __device__ __forceinline__ void wgmmaWait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory"); }
/// Keeps the compiler from moving uses of registers across the instructions around it that read or write them later.
template <int n> __device__ __forceinline__ void pinRegisters(float (&d)[n]) {
#pragma unroll
  for (int i = 0; i < n; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/// A tile in the layout of the cache's pages (cache_layout.h), rows along the sum: Q and K of scores.
template <int dim> __device__ __forceinline__ uint64_t alongRows(uint32_t address) {
  constexpr PageRows rows(dim, 2);
  constexpr uint64_t kind = rows.width == 8 ? 1 : rows.width == 4 ? 2 : 3;
  return kind << 62 | uint64_t(rows.groupBytes() >> 4) << 32 | uint64_t(1) << 16 | (address & 0x3ffff) >> 4;
}
/// The same tile with tokens along the sum: V of outputs.
template <int dim> __device__ __forceinline__ uint64_t acrossRows(uint32_t address) {
  constexpr PageRows rows(dim, 2);
  constexpr uint64_t kind = rows.width == 8 ? 1 : rows.width == 4 ? 2 : 3;
  return kind << 62 | uint64_t(rows.groupBytes() >> 4) << 32 | uint64_t(rows.panelBytes() >> 4) << 16 | (address & 0x3ffff) >> 4;
}
/// What to add to a descriptor of `alongRows` for columns 16 k and up.
template <int dim> __device__ __forceinline__ constexpr uint64_t columnStep(int k) {
  constexpr PageRows rows(dim, 2);
  return uint64_t((2 * k / rows.width * rows.panelBytes() + 2 * k % rows.width * 16) >> 4);
}

/// d = a · b, or += where `add`. Both operands along rows.
template <class T, int N> __device__ __forceinline__ void wgmmaShared(float (&d)[N / 2], uint64_t a, uint64_t b, int add);
/// d += a · b. a: 16 columns of a warpgroup's rows, as fragments of mma.m16n8k16; b across rows.
template <class T, int N> __device__ __forceinline__ void wgmmaRegisters(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b);

#define WGMMA_NAMES_32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_NAMES_40 WGMMA_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define WGMMA_NAMES_48 WGMMA_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_NAMES_56 WGMMA_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define WGMMA_NAMES_64 WGMMA_NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_NAMES_80 WGMMA_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_NAMES_96 WGMMA_NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_NAMES_128 WGMMA_NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_F8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_NUMBERS_32 WGMMA_F8(0), WGMMA_F8(8), WGMMA_F8(16), WGMMA_F8(24)
#define WGMMA_NUMBERS_40 WGMMA_NUMBERS_32, WGMMA_F8(32)
#define WGMMA_NUMBERS_48 WGMMA_NUMBERS_40, WGMMA_F8(40)
#define WGMMA_NUMBERS_56 WGMMA_NUMBERS_48, WGMMA_F8(48)
#define WGMMA_NUMBERS_64 WGMMA_NUMBERS_56, WGMMA_F8(56)
#define WGMMA_NUMBERS_80 WGMMA_NUMBERS_64, WGMMA_F8(64), WGMMA_F8(72)
#define WGMMA_NUMBERS_96 WGMMA_NUMBERS_80, WGMMA_F8(80), WGMMA_F8(88)
#define WGMMA_NUMBERS_128 WGMMA_NUMBERS_96, WGMMA_F8(96), WGMMA_F8(104), WGMMA_F8(112), WGMMA_F8(120)

#define WGMMA(T, TYPE, N, COUNT, P0, P1, P2, P3, P4)                                                                              \
  template <> __device__ __forceinline__ void wgmmaShared<T, N>(float (&d)[N / 2], uint64_t a, uint64_t b, int add) {             \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE  \
                 " {" WGMMA_NAMES_##COUNT "}, %" #P0 ", %" #P1 ", p, 1, 1, 0, 0;\n}"                                              \
                 : WGMMA_NUMBERS_##COUNT                                                                                           \
                 : "l"(a), "l"(b), "r"(add));                                                                                      \
  }                                                                                                                                \
  template <> __device__ __forceinline__ void wgmmaRegisters<T, N>(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {        \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" WGMMA_NAMES_##COUNT "}, {%" #P0 ", %" #P1    \
                 ", %" #P2 ", %" #P3 "}, %" #P4 ", 1, 1, 1, 1;"                                                                    \
                 : WGMMA_NUMBERS_##COUNT                                                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                                            \
  }
#define WGMMA_SIZE(N, COUNT, P0, P1, P2, P3, P4)            \
  WGMMA(bf16, "bf16", N, COUNT, P0, P1, P2, P3, P4)         \
  WGMMA(f16, "f16", N, COUNT, P0, P1, P2, P3, P4)

WGMMA_SIZE(64, 32, 32, 33, 34, 35, 36)
WGMMA_SIZE(80, 40, 40, 41, 42, 43, 44)
WGMMA_SIZE(96, 48, 48, 49, 50, 51, 52)
WGMMA_SIZE(112, 56, 56, 57, 58, 59, 60)
WGMMA_SIZE(128, 64, 64, 65, 66, 67, 68)
WGMMA_SIZE(160, 80, 80, 81, 82, 83, 84)
WGMMA_SIZE(192, 96, 96, 97, 98, 99, 100)
WGMMA_SIZE(256, 128, 128, 129, 130, 131, 132)
