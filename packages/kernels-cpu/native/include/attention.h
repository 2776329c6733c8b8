// Paged attention's parts: the layout of a page, what a kernel file offers, and what the driver (attention.cc) does with it.
//
// A page holds kPageTokens tokens of all kv heads: per head its keys, then its values. Both are panels of 16 lanes times
// 4 bytes, as the linear layer's weights are, so scores and outputs are its outer products and need no sum across lanes:
//
//   keys     [line along the key's dimensions][16 tokens]       a line: 64 bytes, 16 lanes of one number of f32, two of
//   values   [part of 4 panels][line along tokens][panel][16 dimensions]    16 bits or four of 8 (bf16 side by side, else row by row)
//
// A query row sees the context in pieces of kPieceTokens tokens, counted from position 0. Within a piece there is one
// maximum and one fixed order of sums; pieces are merged in rising order, and one that a row cannot see changes nothing. So
// the bits of a row depend on its own query, position and context only: not on the batch, the threads, the pages' numbers.
#pragma once
#include "context.h"
#include "dtype.h"

constexpr int kPageTokens = 16, kLine = 64, kPartPanels = 4, kSide = 4;
constexpr int kPieceTokens = 256, kPiecePages = kPieceTokens / kPageTokens;

struct CacheLayout {
  char* p;
  DType dtype;
  int64_t kvHeads, keyDim, valueDim, pages;
  /// Numbers in a lane of a line.
  int perLane() const { return 4 / sizeOf(dtype); }
  int64_t keyLines() const { return (keyDim + perLane() - 1) / perLane(); }
  int64_t valuePanels() const { return (valueDim + 15) / 16; }
  int valueLines() const { return kPageTokens / perLane(); }
  int64_t valueParts() const { return (valuePanels() + kPartPanels - 1) / kPartPanels; }
  int64_t keyBytes() const { return keyLines() * kLine; }
  int64_t valueBytes() const { return valuePanels() * valueLines() * kLine; }
  int64_t partBytes() const { return int64_t(kPartPanels) * valueLines() * kLine; }
  int64_t headBytes() const { return keyBytes() + valueBytes(); }
  int64_t pageBytes() const { return kvHeads * headBytes(); }
  char* head(int64_t page, int64_t head) const { return p + page * pageBytes() + head * headBytes(); }
};

/// How scores become probabilities. Everything is in powers of 2: log2(e) is in `scale`, `cap`, slopes and sinks.
struct Scoring {
  float scale;             // of q · k
  float cap, capScale;     // cap > 0: scores = cap · tanh(q · k · capScale), instead of scale
};

/// What one row of a tile sees of a piece: tokens [from, to) of it; slope · (token + offset) is added.
struct RowView {
  int from, to;
  float slope, offset;
};

/// Rows of scores and probabilities of a piece: [row][kPieceTokens]; probabilities as pairs of bf16 use half of it.
/// R query rows times J pages' keys. x: [unit of the key][R] dwords. `ahead`: what to prefetch, a run a page.
using ScoreKernel = void (*)(const char* const* keys, const char* const* ahead, int64_t lines, const uint32_t* x, float* scores);
/// R rows of probabilities times pages [lo, hi) of one part of J panels of values, into o (a row every `stride` floats).
/// values[page + kSide] is prefetched.
using WeighKernel = void (*)(const char* const* values, int lo, int hi, const uint32_t* p, float* o, int64_t stride);

constexpr int kMostTileRows = 6;
/// A row's part of the softmax: the maximum (in powers of 2) and the sum of 2^(score - maximum).
struct RowState {
  float most, total;
};

struct AttentionKernel {
  bool pairs;    // queries and probabilities are pairs of bf16; else f32
  int mostRows;  // the greatest R
  int mostTile;  // R * J of scores <= mostTile; never fewer than mostRows
  const ScoreKernel* score;  // [R][J]
  const WeighKernel* weigh;  // [R][J]
  /// Scores of pages [lo, hi) -> probabilities; scores are overwritten. One row.
  RowState (*softmax)(float* scores, uint32_t* p, int lo, int hi, const RowView& view, const Scoring& scoring);
  /// (o, state) += (piece, pieceState); n floats, a multiple of 16.
  void (*merge)(float* o, RowState& state, const float* piece, const RowState& pieceState, int64_t n);
  /// out = o / total, with a logit (-infinity: none) that takes part in the total; n numbers.
  void (*finish)(char* out, DType type, const float* o, const RowState& state, float sink, int64_t n);
  /// Pages whose scores are computed side by side.
  int pagesFor(int r) const { return mostTile / r < kSide ? mostTile / r : kSide; }
  ScoreKernel scoreOf(int r, int j) const { return score[r * (kSide + 1) + j]; }
  WeighKernel weighOf(int r, int j) const { return weigh[r * (kPartPanels + 1) + j]; }
};

/// Of every type that a cache may have.
struct AttentionKernels {
  AttentionKernel f32, bf16, f16, f8e4m3, f8e5m2;
};
extern const AttentionKernels attentionPortable, attentionAvx2, attentionAvx512;
extern const AttentionKernel attentionPairsAvx512Bf16;

const AttentionKernel& attentionKernel(Isa isa, DType cache, DType query);

struct AttentionCall {
  CacheLayout cache;
  char* out;
  DType outType;
  int64_t outStride;  // elements between tokens
  const char* q;
  DType qType;
  int64_t qStride;    // elements between tokens
  int64_t heads, sequences, maxPages;
  const int32_t *queryStarts, *contextLengths, *pageTables;
  int64_t tableStride;
  float scale, softCap;  // softCap 0: none
  int64_t window;        // 0: all
  const float *slopes, *sinks;  // [heads] or null
};
/// The caller has checked every number of the batch.
void pagedAttention(Context& context, const AttentionCall& call);

/// Puts keys [tokens, kvHeads · keyDim] and values into their slots. Strides in elements.
struct CacheWrite {
  CacheLayout cache;
  const char *k, *v;
  DType kType, vType;
  int64_t kStride, vStride, tokens;
  const int32_t* slots;
};
void writeCache(Context& context, const CacheWrite& call);
