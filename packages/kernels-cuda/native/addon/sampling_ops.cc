// From logits to tokens.
#include "sampling.h"
#include "op.h"

namespace {

LogitRows logitRows(Args& a) {
  Matrix m = a.matrixOf("logits", DType::f32);
  a.require(m.cols > 0, "logits should have at least one column");
  a.require(m.cols <= kMostLogits, "logits should have at most 2^23 columns");
  return {m.as<float>(), m.rows, m.cols, m.stride};
}
Vector perRow(Args& a, const char* name, DType t, int64_t length) {
  Vector v = a.vectorOf(name, t);
  if (v.length != length) a.fail(name, "has the wrong length for these rows of logits");
  return v;
}
const float* floatsOf(Args& a, const char* name, int64_t length) { return perRow(a, name, DType::f32, length).as<float>(); }
const int32_t* intsOf(Args& a, const char* name, int64_t length) { return perRow(a, name, DType::i32, length).as<int32_t>(); }

TokenLists lists(Args& a, const char* offsetsName, const char* idsName, int64_t rows) {
  const int32_t* offsets = intsOf(a, offsetsName, rows + 1);
  Vector ids = a.vectorOf(idsName, DType::i32);
  if (ids.length >= int64_t(1) << 31) a.fail(idsName, "has 2^31 elements or more");
  return {offsets, ids.as<int32_t>(), ids.length};
}

/// Tokens outside the vocabulary are passed over, here and in addSparse.
void Penalize(Args& a) {
  LogitRows logits = logitRows(a);
  PenaltyRows penalties;
  penalties.repetition = floatsOf(a, "repetition", logits.rows);
  penalties.presence = floatsOf(a, "presence", logits.rows);
  penalties.frequency = floatsOf(a, "frequency", logits.rows);
  TokenLists prompt = lists(a, "promptOffsets", "promptIds", logits.rows), output = lists(a, "outputOffsets", "outputIds", logits.rows);
  penalizeRows(a.context(), logits, penalties, prompt, output);
}

void AddSparse(Args& a) {
  LogitRows logits = logitRows(a);
  TokenLists l = lists(a, "offsets", "ids", logits.rows);
  addSparseRows(a.context(), logits, l, floatsOf(a, "values", l.length));
}

void Sample(Args& a) {
  Vector tokens = a.vectorOf("tokens", DType::i32);
  LogitRows logits = logitRows(a);
  a.require(tokens.length == logits.rows, "tokens should have an element for each row of logits");
  SamplingRows options;
  options.temperature = floatsOf(a, "temperature", logits.rows);
  options.topK = intsOf(a, "topK", logits.rows);
  options.topP = floatsOf(a, "topP", logits.rows);
  options.minP = floatsOf(a, "minP", logits.rows);
  options.seeds = intsOf(a, "seeds", logits.rows * 3);
  sampleRows(a.context(), tokens.as<int32_t>(), logits, options);
}

void LogProbs(Args& a) {
  Matrix values = a.matrixOf("values", DType::f32), ids = a.matrixOf("ids", DType::i32);
  Vector ranks = a.vectorOf("ranks", DType::i32);
  LogitRows logits = logitRows(a);
  const int32_t* chosen = intsOf(a, "chosen", logits.rows);
  int64_t count = values.cols - 1;
  a.require(values.rows == logits.rows && ids.rows == logits.rows && ranks.length == logits.rows, "results should have the rows of logits");
  a.require(count >= 0 && ids.cols == values.cols, "values and ids should have one column more than likeliest tokens are wanted");
  a.require(count <= logits.cols, "there are not so many tokens");
  logProbRows(a.context(), values.as<float>(), values.stride, ids.as<int32_t>(), ids.stride, ranks.as<int32_t>(), logits, chosen, count);
}

}  // namespace

void InitSampling(Napi::Env env, Napi::Object exports) {
  add<Penalize>(env, exports, "penalize");
  add<AddSparse>(env, exports, "addSparse");
  add<Sample>(env, exports, "sample");
  add<LogProbs>(env, exports, "logProbs");
}
