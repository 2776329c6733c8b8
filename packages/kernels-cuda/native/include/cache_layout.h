// How a page of the paged cache lies in memory. A page holds kPageTokens tokens; a head's keys and values of a page are one
// contiguous stretch each, so that one bulk copy fetches them:
//
//   page [kvHeads] { keys, values }                              (dims padded to 16 elements, with zeros)
//   keys, values   [2 groups of 8 tokens][panel][8 tokens][panel's width]
//
// A panel is `width` 16-byte chunks of a row: the largest power of two that divides the row's chunks, at most 8 (128 bytes).
// So a row of 128 16-bit elements is two panels of 64, one of 96 three panels of 32. Inside a panel the chunks are permuted
// by the token's number: chunk c of token t of the group lies at c ^ (t · width / 8). Two things follow. Eight rows read at
// the same column (ldmatrix) fall into different banks of shared memory without padding. And pages that follow one another
// in shared memory, copied as they are, form one tile that the tensor cores of sm_90 read in place: panels of 8, 4, 2 chunks
// are wgmma's 128-, 64-, 32-byte swizzle, and the distance from one group of 8 tokens to the next is the same everywhere.
#pragma once
#include <stdint.h>
#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__ __forceinline__
#else
#define HOST_DEVICE inline
#endif

constexpr int kPageTokens = 16;

/// One side of a page: keys or values. `dim` elements of `elementBytes`.
struct PageRows {
  int rowBytes;  // of one token, padded
  int width;     // chunks of a panel: 1, 2, 4 or 8
  HOST_DEVICE constexpr PageRows(int dim, int elementBytes) : rowBytes((dim + 15) / 16 * 16 * elementBytes), width(0) {
    const int chunks = rowBytes / 16, pow2 = chunks & -chunks;
    width = pow2 > 8 ? 8 : pow2;
  }
  HOST_DEVICE constexpr int panels() const { return rowBytes / 16 / width; }
  HOST_DEVICE constexpr int panelBytes() const { return 8 * 16 * width; }
  /// From one group of 8 tokens to the next.
  HOST_DEVICE constexpr int groupBytes() const { return 8 * rowBytes; }
  /// Byte of 16-byte chunk c of a token inside keys or values of a head's page. `token` may pass the page's end where pages
  /// follow one another in shared memory.
  HOST_DEVICE constexpr int chunk(int token, int c) const {
    const int t = token & 7;
    return (token >> 3) * groupBytes() + c / width * panelBytes() + (t * width + ((c & (width - 1)) ^ (t * width >> 3))) * 16;
  }
  /// Byte of element d.
  HOST_DEVICE constexpr int offset(int token, int d, int elementBytes) const {
    const int b = d * elementBytes;
    return chunk(token, b >> 4) + (b & 15);
  }
  HOST_DEVICE constexpr int bytes() const { return kPageTokens * rowBytes; }
};

struct CacheLayout {
  char* p;
  int dtype;  // DType: f32, bf16, f16, f8e4m3, f8e5m2
  int elementBytes;
  int64_t pages;
  int kvHeads, keyDim, valueDim;
  HOST_DEVICE PageRows keys() const { return PageRows(keyDim, elementBytes); }
  HOST_DEVICE PageRows values() const { return PageRows(valueDim, elementBytes); }
  /// Bytes of one head's keys and values in a page; keys first.
  HOST_DEVICE int64_t headBytes() const { return keys().bytes() + values().bytes(); }
  HOST_DEVICE int64_t pageBytes() const { return kvHeads * headBytes(); }
  HOST_DEVICE char* head(int64_t page, int kvHead) const { return p + page * pageBytes() + kvHead * headBytes(); }
};
