// Attention over the paged cache: what the op is asked for, and the kernels that may answer. All pointers are device memory; nobody
// on the host knows what the batch's tensors hold, so every kernel stays in bounds by itself: it skips pages and slots that are
// outside the cache, and rows that are outside q.
#pragma once
#include "cache_layout.h"
#include "context.h"
#include "dtype.h"

struct AttentionCall {
  CacheLayout cache;
  char* out;  // [tokens][heads · valueDim]
  DType outType;
  int64_t outStride;  // elements between tokens
  const char* q;      // [tokens][heads · keyDim]
  DType qType;
  int64_t qStride;  // elements between tokens
  int64_t tokens, heads, sequences;
  const int32_t* queryStarts;     // [sequences + 1] first token of each sequence's queries
  const int32_t* contextLengths;  // [sequences] tokens in the cache, the queries last
  const int32_t* pageTables;      // [sequences][maxPages]
  int64_t tableStride, maxPages;
  float scale, softCap;         // softCap 0: none
  int64_t window;               // 0: all
  const float *slopes, *sinks;  // [heads] or null
  /// No sequence has more: what grids and splits are chosen from. The lengths themselves are read on the device.
  int64_t maxQueryLength, maxContextLength;
  /// Sequences of a single query are left to another kernel.
  bool skipSingle = false;
  int64_t group() const { return heads / cache.kvHeads; }
};

/// Any types, any sizes, any query lengths, all options.
void attentionGeneric(Context& c, const AttentionCall& call);
