// From rows of logits to tokens. NaN counts as -infinity everywhere.
#pragma once
#include "context.h"

struct LogitRows {
  float* p;
  int64_t rows, cols, stride;
};
/// One entry a row; seeds three.
struct SamplingRows {
  const float* temperature;
  const int32_t* topK;
  const float *topP, *minP;
  const int32_t* seeds;
};
/// Of a row: ids[offsets[row]] … ids[offsets[row + 1] - 1]. The device keeps offsets within `length`.
struct TokenLists {
  const int32_t *offsets, *ids;
  int64_t length;
};
struct PenaltyRows {
  const float *repetition, *presence, *frequency;
};

/// More columns than this need more scratch memory than there is.
constexpr int64_t kMostLogits = int64_t(1) << 23;

void sampleRows(const Context& c, int32_t* tokens, LogitRows logits, SamplingRows options);
/// values and ids: [rows, count + 1], of these strides.
void logProbRows(const Context& c, float* values, int64_t valueStride, int32_t* ids, int64_t idStride, int32_t* ranks, LogitRows logits,
                 const int32_t* chosen, int64_t count);
void penalizeRows(const Context& c, LogitRows logits, PenaltyRows penalties, TokenLists prompt, TokenLists output);
void addSparseRows(const Context& c, LogitRows logits, TokenLists lists, const float* values);
