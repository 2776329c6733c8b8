// Norms, activations and other ops on rows of floats.
#include "elementwise.h"
#include "norm.h"
#include "op.h"
#include "share.h"

namespace {

// Nanoseconds an element on one thread, roughly: what decides whether to share.
constexpr double kMove = 0.05, kAdd = 0.08, kNorm = 0.12, kFunction = 0.35;

Matrix like(Args& a, const char* name, const Matrix& m, bool orF32 = false) {
  Matrix x = a.matrix(name);
  a.require(x.rows == m.rows && x.cols == m.cols, "the tensors should have one shape");
  a.require(x.dtype == m.dtype || (orF32 && x.dtype == DType::f32), "the tensors should have one dtype");
  return x;
}

/// Calls f(row, from, count) until all elements of the matrices, which have one shape, have been met. Rows that follow each
/// other without a gap count as one.
template <size_t N, class F> void overElements(Args& a, Matrix* const (&matrices)[N], double nsEach, F f) {
  bool gaps = false;
  for (Matrix* m : matrices) gaps |= m->rows > 1 && m->stride != m->cols;
  if (!gaps)
    for (Matrix* m : matrices) m->cols *= m->rows, m->rows = m->rows > 0;
  int64_t rows = matrices[0]->rows, cols = matrices[0]->cols;
  if (rows == 0 || cols == 0) return;
  if (rows == 1) return share(a.context().pool, cols, nsEach, 64, [&](int64_t from, int64_t to, int) { f(int64_t(0), from, to - from); });
  share(a.context().pool, rows, nsEach * double(cols), 1, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; r++) f(r, int64_t(0), cols);
  });
}
char* at(const Matrix& m, int64_t row, int64_t column) { return m.row(row) + column * sizeOf(m.dtype); }

void Add(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "a", out), y = like(a, "b", out);
  auto run = elementwiseKernels(a.context().isa).add;
  overElements(a, {&out, &x, &y}, kAdd, [&](int64_t r, int64_t i, int64_t n) { run(out.dtype, at(out, r, i), at(x, r, i), at(y, r, i), n); });
}

void Scale(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out);
  float factor = a.real("factor");
  auto run = elementwiseKernels(a.context().isa).scale;
  overElements(a, {&out, &x}, kAdd, [&](int64_t r, int64_t i, int64_t n) { run(out.dtype, at(out, r, i), at(x, r, i), factor, n); });
}

void SoftCap(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out);
  float cap = a.real("cap");
  a.require(cap > 0, "cap should be positive");
  auto run = elementwiseKernels(a.context().isa).softCap;
  overElements(a, {&out, &x}, kFunction, [&](int64_t r, int64_t i, int64_t n) { run(out.dtype, at(out, r, i), at(x, r, i), cap, n); });
}

Activation activation(Args& a) { return Activation(a.integer("activation", 0, int(Activation::count) - 1)); }

void Activate(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out);
  Activation f = activation(a);
  auto run = elementwiseKernels(a.context().isa).activate;
  overElements(a, {&out, &x}, kFunction, [&](int64_t r, int64_t i, int64_t n) { run(out.dtype, f, at(out, r, i), at(x, r, i), n); });
}

void ActivateAndMul(Args& a) {
  Matrix out = a.floats("out"), x = a.floats("x");
  Activation f = activation(a);
  a.require(x.rows == out.rows && x.cols == 2 * out.cols, "x should be [m, 2n] for out [m, n]");
  a.require(x.dtype == out.dtype, "the tensors should have one dtype");
  Matrix gate = x, up = x;
  gate.cols = up.cols = out.cols;
  if (out.cols) up.p += out.cols * sizeOf(x.dtype);
  auto run = elementwiseKernels(a.context().isa).activateAndMul;
  overElements(a, {&out, &gate, &up}, kFunction,
               [&](int64_t r, int64_t i, int64_t n) { run(out.dtype, f, at(out, r, i), at(gate, r, i), at(up, r, i), n); });
}

void Copy(Args& a) {
  Matrix out = a.matrix("out"), x = a.matrix("x");
  a.require(x.rows == out.rows && x.cols == out.cols, "the tensors should have one shape");
  a.require(x.dtype == out.dtype || (isFloat(x.dtype) && isFloat(out.dtype)), "only floats can be converted");
  if (x.dtype == out.dtype) {
    overElements(a, {&out, &x}, kMove,
                 [&](int64_t r, int64_t i, int64_t n) { memmove(at(out, r, i), at(x, r, i), size_t(n) * size_t(sizeOf(x.dtype))); });
    return;
  }
  auto run = elementwiseKernels(a.context().isa).convert;
  overElements(a, {&out, &x}, kMove, [&](int64_t r, int64_t i, int64_t n) { run(out.dtype, x.dtype, at(out, r, i), at(x, r, i), n); });
}

template <class T> void fillRun(char* p, T value, int64_t n) {
  T* to = reinterpret_cast<T*>(p);
  for (int64_t i = 0; i < n; i++) to[i] = value;
}
void Fill(Args& a) {
  Matrix out = a.matrix("out");
  double value = a.number("value");
  float f = float(value);
  uint16_t half = 0;
  if (isFloat(out.dtype)) {
    if (out.dtype != DType::f32) elementwiseKernels(a.context().isa).convert(out.dtype, DType::f32, &half, &f, 1);
  } else {
    a.require(out.dtype == DType::i32 || out.dtype == DType::u8, "out should be floats, i32 or u8");
    bool fits = out.dtype == DType::u8 ? value >= 0 && value <= 255 : value >= -2147483648.0 && value <= 2147483647.0;
    a.require(fits && value == double(int32_t(value)), "value should be an integer that out can hold");
  }
  overElements(a, {&out}, kMove, [&](int64_t r, int64_t i, int64_t n) {
    char* p = at(out, r, i);
    if (out.dtype == DType::f32) fillRun(p, f, n);
    else if (out.dtype == DType::i32) fillRun(p, int32_t(value), n);
    else if (out.dtype == DType::u8) fillRun(p, uint8_t(int32_t(value)), n);
    else fillRun(p, half, n);
  });
}

/// rows outside x give zeros.
void GatherRows(Args& a) {
  Matrix out = a.floats("out"), x = a.floats("x");
  Vector rows = a.vectorOf("rows", DType::i32);
  a.require(out.rows == rows.length && out.cols == x.cols, "out should be [rows, columns of x]");
  a.require(out.dtype == x.dtype, "the tensors should have one dtype");
  if (out.rows == 0 || out.cols == 0) return;
  size_t bytes = size_t(x.cols) * size_t(sizeOf(x.dtype));
  share(a.context().pool, out.rows, kMove * double(x.cols), 1, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to; i++) {
      int32_t row = rows.as<int32_t>()[i];
      if (row >= 0 && row < x.rows) memcpy(out.row(i), x.row(row), bytes);
      else memset(out.row(i), 0, bytes);
    }
  });
}

/// ids of sources outside lastTokens stay.
void FeedTokens(Args& a) {
  Vector ids = a.vectorOf("ids", DType::i32), last = a.vectorOf("lastTokens", DType::i32), sources = a.vectorOf("sources", DType::i32);
  a.require(ids.length == sources.length, "ids and sources should have one length");
  for (int64_t i = 0; i < ids.length; i++) {
    int32_t source = sources.as<int32_t>()[i];
    if (source >= 0 && source < last.length) ids.as<int32_t>()[i] = last.as<int32_t>()[source];
  }
}

/// A weight norms groups of its own length: a row may hold several (the heads of a token).
int64_t group(Args& a, const Vector& weight, const Matrix& out) {
  a.require(weight.dtype == out.dtype, "weight should have the dtype of out");
  a.require(weight.length > 0 && out.cols % weight.length == 0, "the length of weight should divide the columns of x");
  return weight.length;
}

void rmsNorm(Args& a, Matrix out, Matrix residual, Matrix x) {
  Vector weight = a.vector("weight");
  float eps = a.real("eps"), offset = a.real("weightOffset");
  int64_t n = group(a, weight, out);
  DType normed = residual.p ? residual.dtype : x.dtype;
  auto run = normKernels(a.context().isa).rms;
  share(a.context().pool, x.rows, kNorm * double(x.cols), 1, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; r++)
      for (int64_t g = 0; g < x.cols; g += n)
        run(out.dtype, normed, at(out, r, g), residual.p ? at(residual, r, g) : nullptr, at(x, r, g), weight.p, eps, offset, n);
  });
}
void RmsNorm(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out, true);
  rmsNorm(a, out, Matrix{}, x);
}
void AddRmsNorm(Args& a) {
  Matrix out = a.floats("out"), residual = like(a, "residual", out, true), x = like(a, "x", out);
  rmsNorm(a, out, residual, x);
}

void LayerNorm(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out);
  Vector weight = a.vector("weight"), bias = a.optional("bias");
  float eps = a.real("eps");
  int64_t n = group(a, weight, out);
  a.require(!bias.p || (bias.length == n && bias.dtype == x.dtype), "bias should be like weight");
  auto run = normKernels(a.context().isa).layer;
  share(a.context().pool, x.rows, 1.5 * kNorm * double(x.cols), 1, [&](int64_t from, int64_t to, int) {
    for (int64_t r = from; r < to; r++)
      for (int64_t g = 0; g < x.cols; g += n) run(x.dtype, at(out, r, g), at(x, r, g), weight.p, bias.p, eps, n);
  });
}

}  // namespace

void InitElementwise(Napi::Env env, Napi::Object exports) {
  add<Add>(env, exports, "add");
  add<Scale>(env, exports, "scale");
  add<SoftCap>(env, exports, "softCap");
  add<Activate>(env, exports, "activate");
  add<ActivateAndMul>(env, exports, "activateAndMul");
  add<Copy>(env, exports, "copy");
  add<Fill>(env, exports, "fill");
  add<GatherRows>(env, exports, "gatherRows");
  add<FeedTokens>(env, exports, "feedTokens");
  add<RmsNorm>(env, exports, "rmsNorm");
  add<AddRmsNorm>(env, exports, "addRmsNorm");
  add<LayerNorm>(env, exports, "layerNorm");
}
