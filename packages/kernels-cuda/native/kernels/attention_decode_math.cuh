// Products on tensor cores, operands from shared memory, and the types of a cache.
#pragma once
#include <type_traits>
#include "attention_generic_elements.cuh"
#include "cache_layout.h"

namespace decode {

constexpr float kLog2e = 1.4426950408889634f;

__device__ __forceinline__ float exp2Fast(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
template <class T> __device__ __forceinline__ void mma(float (&d)[4], const uint4& a, uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void mma<bf16>(float (&d)[4], const uint4& a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void mma<f16>(float (&d)[4], const uint4& a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
template <bool Transposed> __device__ __forceinline__ uint4 loadMatrices(uint32_t p) {
  uint4 v;
  if (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(p) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(p) : "memory");
  return v;
}
__device__ __forceinline__ uint32_t transpose8x8(uint32_t v) {
  uint32_t r;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
  return r;
}
template <class T> __device__ __forceinline__ uint32_t pack2(float a, float b);
template <> __device__ __forceinline__ uint32_t pack2<bf16>(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}
template <> __device__ __forceinline__ uint32_t pack2<f16>(float a, float b) {
  const __half2 v = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&v);
}
/// Where a chunk of a token lies: PageRows::chunk, by shifts where a row's size is known at run time only.
struct ChunkPlace {
  int shift, groupBytes, panelBytes;
  __device__ __forceinline__ explicit ChunkPlace(const PageRows& rows)
      : shift(rows.width == 8 ? 3 : rows.width == 4 ? 2 : rows.width == 2 ? 1 : 0), groupBytes(rows.groupBytes()), panelBytes(rows.panelBytes()) {}
  __device__ __forceinline__ int operator()(int token, int chunk) const {
    const int line = (token & 7) << shift;
    return (token >> 3) * groupBytes + (chunk >> shift) * panelBytes + ((line + ((chunk & ((1 << shift) - 1)) ^ (line >> 3))) << 4);
  }
};
/// Four numbers to elements [at, at + 4); `whole`: in one piece.
__device__ __forceinline__ void storeFour(DType type, char* p, int64_t at, bool whole, const float (&v)[4]) {
  if (!whole) {
    for (int i = 0; i < 4; i++) storeElement(type, p, at + i, v[i]);
  } else if (type == DType::f32) {
    *reinterpret_cast<float4*>(p + at * 4) = make_float4(v[0], v[1], v[2], v[3]);
  } else if (type == DType::bf16) {
    *reinterpret_cast<uint2*>(p + at * 2) = make_uint2(pack2<bf16>(v[0], v[1]), pack2<bf16>(v[2], v[3]));
  } else {
    *reinterpret_cast<uint2*>(p + at * 2) = make_uint2(pack2<f16>(v[0], v[1]), pack2<f16>(v[2], v[3]));
  }
}
__device__ __forceinline__ void storeShared16(uint32_t p, uint4 v) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// ---- elements of the cache --------------------------------------------------------------------------------------------------------
/// 8-bit floats become f16 on their way to the products.
struct E4m3 { uint8_t bits; };
struct E5m2 { uint8_t bits; };
template <class C> constexpr __nv_fp8_interpretation_t kKind = std::is_same<C, E4m3>::value ? __NV_E4M3 : __NV_E5M2;
/// The lower two bytes.
template <class C> __device__ __forceinline__ uint32_t halves(uint32_t v) {
  if (std::is_same<C, E5m2>::value) return __byte_perm(0, v, 0x5040);
  const __half2_raw raw = __nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t(v), kKind<C>);
  return uint32_t(raw.x) | uint32_t(raw.y) << 16;
}
/// Operands of two products from four 8x8 matrices of 16-bit words. Keys: words are two neighbouring dimensions of a token, so a
/// lane has four of them, 4t to 4t + 3, in the place of 2t, 2t + 1, 2t + 8 and 2t + 9; queries take their places alike.
template <class C> __device__ __forceinline__ void keyOperands(const uint4& v, uint4 (&a)[2]) {
  a[0] = make_uint4(halves<C>(v.x), halves<C>(v.y), halves<C>(v.x >> 16), halves<C>(v.y >> 16));
  a[1] = make_uint4(halves<C>(v.z), halves<C>(v.w), halves<C>(v.z >> 16), halves<C>(v.w >> 16));
}
/// Values, transposed: a lane has dimensions 2g and 2g + 1 of two tokens, in the place of g and g + 8.
template <class C> __device__ __forceinline__ void valueOperands(const uint4& v, uint4 (&a)[2]) {
  auto even = [](uint32_t w) { return halves<C>(__byte_perm(w, 0, 0x4420)); };
  auto odd = [](uint32_t w) { return halves<C>(__byte_perm(w, 0, 0x4431)); };
  a[0] = make_uint4(even(v.x), odd(v.x), even(v.z), odd(v.z));
  a[1] = make_uint4(even(v.y), odd(v.y), even(v.w), odd(v.w));
}
template <class C> __device__ __forceinline__ C toCache(float v) { return fromFloat<C>(v); }
template <> __device__ __forceinline__ E4m3 toCache<E4m3>(float v) { return {__nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3)}; }
template <> __device__ __forceinline__ E5m2 toCache<E5m2>(float v) { return {__nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E5M2)}; }

}  // namespace decode
