// Norms, activations and other ops on rows of floats.
#include "elementwise.h"
#include "norm.h"
#include "op.h"

namespace {

Matrix like(Args& a, const char* name, const Matrix& m, bool orF32 = false) {
  Matrix x = a.matrix(name);
  a.require(x.rows == m.rows && x.cols == m.cols, "the tensors should have one shape");
  a.require(x.dtype == m.dtype || (orF32 && x.dtype == DType::f32), "the tensors should have one dtype");
  return x;
}
Rows rowsOf(const Matrix& m) { return {m.p, m.stride}; }
Extent extentOf(const Matrix& m) { return {m.rows, m.cols}; }

void Add(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "a", out), y = like(a, "b", out);
  addRows(a.context(), out.dtype, extentOf(out), rowsOf(out), rowsOf(x), rowsOf(y));
}

void Scale(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out);
  scaleRows(a.context(), out.dtype, extentOf(out), rowsOf(out), rowsOf(x), a.real("factor"));
}

void SoftCap(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out);
  float cap = a.real("cap");
  a.require(cap > 0, "cap should be positive");
  softCapRows(a.context(), out.dtype, extentOf(out), rowsOf(out), rowsOf(x), cap);
}

Activation activation(Args& a) { return Activation(a.integer("activation", 0, int(Activation::count) - 1)); }

void Activate(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out);
  activateRows(a.context(), out.dtype, activation(a), extentOf(out), rowsOf(out), rowsOf(x));
}

void ActivateAndMul(Args& a) {
  Matrix out = a.floats("out"), x = a.floats("x");
  Activation f = activation(a);
  a.require(x.rows == out.rows && x.cols == 2 * out.cols, "x should be [m, 2n] for out [m, n]");
  a.require(x.dtype == out.dtype, "the tensors should have one dtype");
  Rows gate = rowsOf(x), up = gate;
  if (out.cols) up.p = x.p + out.cols * sizeOf(x.dtype);
  activateAndMulRows(a.context(), out.dtype, f, extentOf(out), rowsOf(out), gate, up);
}

void Copy(Args& a) {
  Matrix out = a.matrix("out"), x = a.matrix("x");
  a.require(x.rows == out.rows && x.cols == out.cols, "the tensors should have one shape");
  a.require(x.dtype == out.dtype || (isFloat(x.dtype) && isFloat(out.dtype)), "only floats can be converted");
  if (x.dtype == out.dtype) copyRows(a.context(), sizeOf(x.dtype), extentOf(out), rowsOf(out), rowsOf(x));
  else convertRows(a.context(), out.dtype, x.dtype, extentOf(out), rowsOf(out), rowsOf(x));
}

void Fill(Args& a) {
  Matrix out = a.matrix("out");
  double value = a.number("value");
  uint32_t bits;
  if (isFloat(out.dtype)) {
    bits = out.dtype == DType::f32 ? floatToBits(float(value)) : out.dtype == DType::bf16 ? floatToBf16(float(value)) : floatToHalf(float(value));
  } else {
    a.require(out.dtype == DType::i32 || out.dtype == DType::u8, "out should be floats, i32 or u8");
    bool fits = out.dtype == DType::u8 ? value >= 0 && value <= 255 : value >= -2147483648.0 && value <= 2147483647.0;
    a.require(fits && value == double(int32_t(value)), "value should be an integer that out can hold");
    bits = uint32_t(int32_t(value));
  }
  fillRows(a.context(), sizeOf(out.dtype), extentOf(out), rowsOf(out), bits);
}

/// rows outside x give zeros.
void GatherRows(Args& a) {
  Matrix out = a.floats("out"), x = a.floats("x");
  Vector rows = a.vectorOf("rows", DType::i32);
  a.require(out.rows == rows.length && out.cols == x.cols, "out should be [rows, columns of x]");
  a.require(out.dtype == x.dtype, "the tensors should have one dtype");
  gatherRows(a.context(), sizeOf(x.dtype), extentOf(out), rowsOf(out), rowsOf(x), x.rows, rows.as<int32_t>());
}

/// ids of sources outside lastTokens stay.
void FeedTokens(Args& a) {
  Vector ids = a.vectorOf("ids", DType::i32), last = a.vectorOf("lastTokens", DType::i32), sources = a.vectorOf("sources", DType::i32);
  a.require(ids.length == sources.length, "ids and sources should have one length");
  feedTokens(a.context(), ids.as<int32_t>(), last.as<int32_t>(), last.length, sources.as<int32_t>(), ids.length);
}

/// A weight norms groups of its own length: a row may hold several (the heads of a token).
NormShape shapeOf(Args& a, const Vector& weight, const Matrix& out) {
  a.require(weight.dtype == out.dtype, "weight should have the dtype of out");
  a.require(weight.length > 0 && out.cols % weight.length == 0, "the length of weight should divide the columns of x");
  a.require(out.cols < int64_t(1) << 31 && out.rows * (out.cols / weight.length) < int64_t(1) << 31, "there are more than 2^31 numbers in a row, or groups");
  return {out.rows, out.cols, weight.length};
}

void RmsNorm(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out, true);
  Vector weight = a.vector("weight");
  float eps = a.real("eps"), offset = a.real("weightOffset");
  rmsNormRows(a.context(), out.dtype, x.dtype, shapeOf(a, weight, out), rowsOf(out), rowsOf(x), weight.p, eps, offset);
}

void AddRmsNorm(Args& a) {
  Matrix out = a.floats("out"), residual = like(a, "residual", out, true), x = like(a, "x", out);
  Vector weight = a.vector("weight");
  float eps = a.real("eps"), offset = a.real("weightOffset");
  addRmsNormRows(a.context(), out.dtype, residual.dtype, shapeOf(a, weight, out), rowsOf(out), rowsOf(residual), rowsOf(x), weight.p, eps, offset);
}

void LayerNorm(Args& a) {
  Matrix out = a.floats("out"), x = like(a, "x", out);
  Vector weight = a.vector("weight"), bias = a.optional("bias");
  float eps = a.real("eps");
  NormShape shape = shapeOf(a, weight, out);
  a.require(!bias.p || (bias.length == shape.n && bias.dtype == x.dtype), "bias should be like weight");
  layerNormRows(a.context(), x.dtype, shape, rowsOf(out), rowsOf(x), weight.p, bias.p, eps);
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
