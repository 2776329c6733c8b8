// linear and embedding. A packed weight is 4 numbers (packed.h).
#include "linear.h"
#include "op.h"
#include "packed.h"

namespace {

void Linear(Args& a) {
  Matrix out = a.floats("out"), x = a.floats("x");
  PackedMatrix w = packedMatrix(a, "weight");
  Vector bias = a.optional("bias");
  a.require(out.rows == x.rows, "out and x should have as many rows");
  a.require(out.cols == w.n, "out should have a column for each output feature of weight");
  a.require(x.cols == w.k, "x should have a column for each input feature of weight");
  a.require(!bias.p || (isFloat(bias.dtype) && bias.length == w.n), "bias should be floats, one for each output feature of weight");
  if (out.rows == 0) return;
  a.require(out.p != x.p, "out and x should not be the same memory");
  linear(a.context(), {out.p, out.dtype, out.stride, x.p, x.dtype, x.stride, x.rows, w, bias.p, bias.dtype});
}

void Embedding(Args& a) {
  Matrix out = a.floats("out");
  Vector ids = a.vectorOf("ids", DType::i32);
  PackedMatrix table = packedMatrix(a, "table");
  int64_t first = a.integer("firstRow", 0, int64_t(1) << 31);
  a.require(out.rows == ids.length, "out should have a row for each id");
  a.require(out.cols == table.k, "out should have a column for each input feature of table");
  if (out.rows) embedding(a.context(), {out.p, out.dtype, out.stride, ids.as<int32_t>(), ids.length, table, first});
}

}  // namespace

void InitLinear(Napi::Env env, Napi::Object exports) {
  add<Linear>(env, exports, "linear");
  add<Embedding>(env, exports, "embedding");
}
