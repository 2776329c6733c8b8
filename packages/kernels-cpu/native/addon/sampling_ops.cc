// From logits to tokens.
#include "sampling_rows.h"
#include "op.h"
#include "share.h"

namespace {

Matrix logitRows(Args& a) {
  Matrix m = a.matrixOf("logits", DType::f32);
  a.require(m.cols > 0, "logits should have at least one column");
  a.require(m.cols < int64_t(1) << 31, "logits should have fewer columns than 2^31");
  return m;
}
Vector perRow(Args& a, const char* name, DType t, int64_t length) {
  Vector v = a.vectorOf(name, t);
  if (v.length != length) a.fail(name, "has the wrong length for these rows of logits");
  return v;
}

/// The ids of each row of logits, by offsets that are checked here.
struct Lists {
  const int32_t *offsets, *ids;
  int64_t begin(int64_t row) const { return offsets[row]; }
  int64_t end(int64_t row) const { return offsets[row + 1]; }
};
Lists lists(Args& a, const char* offsetsName, const char* idsName, int64_t rows, int64_t* length = nullptr) {
  Vector offsets = perRow(a, offsetsName, DType::i32, rows + 1), ids = a.vectorOf(idsName, DType::i32);
  const int32_t* o = offsets.as<int32_t>();
  for (int64_t r = 0; r <= rows; r++)
    if (o[r] < (r ? o[r - 1] : 0) || o[r] > ids.length) a.fail(offsetsName, "should rise and end within the ids");
  if (length) *length = ids.length;
  return {o, ids.as<int32_t>()};
}

/// Tokens outside the vocabulary are passed over.
void Penalize(Args& a) {
  Matrix logits = logitRows(a);
  const float* repetition = perRow(a, "repetition", DType::f32, logits.rows).as<float>();
  const float* presence = perRow(a, "presence", DType::f32, logits.rows).as<float>();
  const float* frequency = perRow(a, "frequency", DType::f32, logits.rows).as<float>();
  Lists prompt = lists(a, "promptOffsets", "promptIds", logits.rows), output = lists(a, "outputOffsets", "outputIds", logits.rows);
  int64_t vocab = logits.cols;
  int32_t* counts = nullptr;  // of one row's tokens: occurrences in the output + 1; 0 for what it has not seen
  for (int64_t r = 0; r < logits.rows; r++) {
    if (repetition[r] == 1 && presence[r] == 0 && frequency[r] == 0) continue;
    if (!counts) {
      counts = static_cast<int32_t*>(a.context().scratch(Context::samplerSlot, size_t(vocab) * sizeof(int32_t)));
      memset(counts, 0, size_t(vocab) * sizeof(int32_t));
    }
    float* x = reinterpret_cast<float*>(logits.row(r));
    auto each = [&](const Lists& l, auto f) {
      for (int64_t i = l.begin(r); i < l.end(r); i++)
        if (l.ids[i] >= 0 && l.ids[i] < vocab) f(l.ids[i]);
    };
    each(prompt, [&](int32_t id) { counts[id] = 1; });
    each(output, [&](int32_t id) { counts[id] = counts[id] ? counts[id] + 1 : 2; });
    auto apply = [&](int32_t id) {
      if (!counts[id]) return;
      int32_t times = counts[id] - 1;
      counts[id] = 0;  // once a token, and clean for the next row
      float v = x[id] > 0 ? x[id] / repetition[r] : x[id] * repetition[r];
      if (times) v = v - frequency[r] * float(times) - presence[r];
      x[id] = v;
    };
    each(prompt, apply);
    each(output, apply);
  }
}

void AddSparse(Args& a) {
  Matrix logits = logitRows(a);
  int64_t length;
  Lists l = lists(a, "offsets", "ids", logits.rows, &length);
  const float* values = perRow(a, "values", DType::f32, length).as<float>();
  for (int64_t r = 0; r < logits.rows; r++) {
    float* x = reinterpret_cast<float*>(logits.row(r));
    for (int64_t i = l.begin(r); i < l.end(r); i++)
      if (l.ids[i] >= 0 && l.ids[i] < logits.cols) x[l.ids[i]] += values[i];
  }
}

/// Calls f(row, scratch) for every row of logits, rows shared among the threads.
template <class F> void overRows(Args& a, const Matrix& logits, double nsPerLogit, F f) {
  size_t bytes = (RowScratch::bytes(logits.cols) + 63) / 64 * 64;
  char* memory = static_cast<char*>(a.context().scratch(Context::samplerSlot, bytes * size_t(a.context().pool.threads())));
  share(a.context().pool, logits.rows, nsPerLogit * double(logits.cols), 1, [&](int64_t from, int64_t to, int worker) {
    RowScratch scratch(memory + bytes * size_t(worker), logits.cols);
    for (int64_t r = from; r < to; r++) f(r, reinterpret_cast<const float*>(logits.row(r)), scratch);
  });
}

void Sample(Args& a) {
  Vector tokens = a.vectorOf("tokens", DType::i32);
  Matrix logits = logitRows(a);
  a.require(tokens.length == logits.rows, "tokens should have an element for each row of logits");
  const float* temperature = perRow(a, "temperature", DType::f32, logits.rows).as<float>();
  const int32_t* topK = perRow(a, "topK", DType::i32, logits.rows).as<int32_t>();
  const float* topP = perRow(a, "topP", DType::f32, logits.rows).as<float>();
  const float* minP = perRow(a, "minP", DType::f32, logits.rows).as<float>();
  const int32_t* seeds = perRow(a, "seeds", DType::i32, logits.rows * 3).as<int32_t>();
  const SamplingKernels& kernels = samplingKernels(a.context().isa);
  overRows(a, logits, 0.5, [&](int64_t r, const float* x, RowScratch& scratch) {
    tokens.as<int32_t>()[r] = sampleRow(kernels, x, logits.cols, {temperature[r], topK[r], topP[r], minP[r]}, seeds + 3 * r, scratch);
  });
}

void LogProbs(Args& a) {
  Matrix values = a.matrixOf("values", DType::f32), ids = a.matrixOf("ids", DType::i32);
  Vector ranks = a.vectorOf("ranks", DType::i32);
  Matrix logits = logitRows(a);
  const int32_t* chosen = perRow(a, "chosen", DType::i32, logits.rows).as<int32_t>();
  int64_t count = values.cols - 1;
  a.require(values.rows == logits.rows && ids.rows == logits.rows && ranks.length == logits.rows, "results should have the rows of logits");
  a.require(count >= 0 && ids.cols == values.cols, "values and ids should have one column more than likeliest tokens are wanted");
  a.require(count <= logits.cols, "there are not so many tokens");
  const SamplingKernels& kernels = samplingKernels(a.context().isa);
  overRows(a, logits, 0.5, [&](int64_t r, const float* x, RowScratch& scratch) {
    ranks.as<int32_t>()[r] = logProbsRow(kernels, x, logits.cols, chosen[r], count, reinterpret_cast<float*>(values.row(r)),
                                         reinterpret_cast<int32_t*>(ids.row(r)), scratch);
  });
}

}  // namespace

void InitSampling(Napi::Env env, Napi::Object exports) {
  add<Penalize>(env, exports, "penalize");
  add<AddSparse>(env, exports, "addSparse");
  add<Sample>(env, exports, "sample");
  add<LogProbs>(env, exports, "logProbs");
}
