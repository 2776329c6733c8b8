// How a page of the paged cache lies in memory. A page holds kPageTokens tokens; a head's keys and values of a page are one
// contiguous stretch, so that one bulk copy fetches them:
//
//   page [kvHeads] { keys [kPageTokens][keyDim], values [kPageTokens][valueDim] }      (dims padded to 16 elements, with zeros)
//
// Inside a row the 16-byte chunks are permuted by the token's number, so that eight rows read at the same column fall into
// different banks of shared memory without padding: chunk c of token t lies at c ^ swizzle(t).
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
  int mask, shift;
  HOST_DEVICE PageRows(int dim, int elementBytes) {
    rowBytes = (dim + 15) / 16 * 16 * elementBytes;
    const int chunks = rowBytes / 16;
    // The largest power of two that divides the number of chunks, at most 8: the permutation stays inside the row.
    int pow2 = chunks & -chunks;
    if (pow2 > 8) pow2 = 8;
    mask = pow2 - 1;
    // Rows shorter than 128 bytes share a line of banks: they change the chunk only from line to line.
    shift = rowBytes == 64 ? 1 : rowBytes == 32 ? 2 : 0;
  }
  HOST_DEVICE int swizzle(int token) const { return (token >> shift) & mask; }
  /// Byte of element d of a token inside keys or values of a head's page.
  HOST_DEVICE int offset(int token, int d, int elementBytes) const {
    const int b = d * elementBytes;
    return token * rowBytes + (((b >> 4) ^ swizzle(token)) << 4) + (b & 15);
  }
  HOST_DEVICE int bytes() const { return kPageTokens * rowBytes; }
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
