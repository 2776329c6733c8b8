// Queries, keys and values on their way from the projection to attention: norm over a head, rotary embedding, cache write.
// rotary and writeCache are parts of it; a fused call does all at once. All pointers are device memory; see attention.h.
#pragma once
#include "attention.h"
#include "cache_layout.h"
#include "context.h"
#include "dtype.h"

/// [tokens][heads · dim], a token's heads together.
struct HeadRows {
  char* p = nullptr;  // null: absent
  DType type = DType::f32;
  int64_t stride = 0;  // elements between tokens
  int heads = 0, dim = 0;
};

struct RotaryTable {
  const float* p = nullptr;  // [rows][2 · half] cos, then sin; null: nothing is turned
  int64_t rows = 0, stride = 0;
  int half = 0;  // dimensions from 2 · half on stay as they are
  bool interleaved = false;
  const int32_t *positions = nullptr, *selector = nullptr;  // [tokens]; selector or null
  int64_t bound = 0;
#ifdef __CUDACC__
  /// The row of a token's angles, or null where its position is outside the table: it is not turned then.
  __device__ __forceinline__ const float* row(int64_t token) const {
    int64_t r = positions[token];
    if (r < 0) return nullptr;
    if (selector && selector[token] > bound) r += rows / 2;
    return r < rows ? p + r * stride : nullptr;
  }
#endif
};

/// x / sqrt(mean(x²) + eps) · (weight + offset) over a head.
struct HeadNorm {
  const char* weight = nullptr;  // [dim] or null: no norm
  DType type = DType::f32;
};

struct QkvCall {
  int64_t tokens = 0;
  HeadRows q, k, v;
  HeadNorm qNorm, kNorm;
  float eps = 0, offset = 0;
  RotaryTable rotary;
  bool storeQ = false, storeK = false;  // in place
  const int32_t* slots = nullptr;       // null: nothing is written to the cache
  CacheLayout cache{};
};
/// For any number of tokens.
void qkvRows(Context& c, const QkvCall& call);
/// The same for 16-bit vectors; false where these are other types or sizes.
bool qkvRowsVectors(Context& c, const QkvCall& call);
/// Most dimensions that a head may have.
constexpr int kMostHeadDim = 1024;
