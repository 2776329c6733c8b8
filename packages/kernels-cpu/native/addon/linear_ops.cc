// linear, embedding, and what puts weights into their packed form.
//
//   packed weight   4 numbers   address, format, output features, input features
#include "linear.h"
#include "op.h"

namespace {

PackedMatrix packed(Args& a, const char* name) {
  PackedMatrix w;
  double p = a.number(name);
  w.format = DType(a.integer(name, int(DType::f32), int(DType::f16)));
  w.n = a.integer(name, 1, int64_t(1) << 31), w.k = a.integer(name, 1, int64_t(1) << 31);
  w.p = a.address(name, p, DType::u8, w.bytes());
  if (uintptr_t(w.p) % kStepBytes) a.fail(name, "is not aligned to 64 bytes");
  return w;
}

void Linear(Args& a) {
  Matrix out = a.floats("out"), x = a.floats("x");
  PackedMatrix w = packed(a, "weight");
  Vector bias = a.optional("bias");
  a.require(out.rows == x.rows, "out and x should have as many rows");
  a.require(out.cols == w.n, "out should have a column for each output feature of weight");
  a.require(x.cols == w.k, "x should have a column for each input feature of weight");
  a.require(!bias.p || (isFloat(bias.dtype) && bias.length == w.n), "bias should be floats, one for each output feature of weight");
  if (out.rows == 0) return;
  a.require(out.p != x.p, "out and x should not be the same memory");
  LinearOut to{out.p, out.dtype, out.stride, w.n, nullptr};
  if (bias.p && bias.dtype == DType::f32) to.bias = bias.as<float>();
  else if (bias.p) {
    float* floats = static_cast<float*>(a.context().scratch(Context::biasSlot, size_t(w.n) * 4));
    rowKernels(a.context().isa).toFloat(floats, bias.p, bias.dtype, w.n);
    to.bias = floats;
  }
  linear(a.context(), to, x.p, x.dtype, x.stride, x.rows, w);
}

void Embedding(Args& a) {
  Matrix out = a.floats("out");
  Vector ids = a.vectorOf("ids", DType::i32);
  PackedMatrix table = packed(a, "table");
  int64_t first = a.integer("firstRow", 0, int64_t(1) << 31);
  a.require(out.rows == ids.length, "out should have a row for each id");
  a.require(out.cols == table.k, "out should have a column for each input feature of table");
  if (out.rows) embedding(a.context(), out.p, out.dtype, out.stride, ids.as<int32_t>(), ids.length, table, first);
}

/// packed weight, typed array, its dtype, rows, columns, row stride, column stride, then the place: row, column
void Pack(Args& a) {
  PackedMatrix dst = packed(a, "dst");
  HostBytes bytes = a.host("src");
  HostMatrix src{bytes.p, a.dtype("src"), a.size("src"), a.size("src"), a.size("src"), a.size("src")};
  int64_t row = a.size("row"), col = a.size("column");
  a.require(isReal(src.type), "src should be floats");
  a.require(row + src.rows <= dst.n && col + src.cols <= dst.k, "src does not fit into dst at this row and column");
  if (src.rows == 0 || src.cols == 0) return;
  int64_t x, y, end;
  if (__builtin_mul_overflow(src.rows - 1, src.rowStride, &x) || __builtin_mul_overflow(src.cols - 1, src.colStride, &y) ||
      __builtin_add_overflow(x, y, &end) || end >= int64_t(bytes.bytes) / sizeOf(src.type))
    a.fail("src", "has fewer bytes than its shape and strides need");
  packWeight(a.context(), dst, src, row, col);
}

/// packed weight, Float32Array [output features, input features]
void Unpack(Args& a) {
  PackedMatrix src = packed(a, "src");
  HostBytes bytes = a.host("dst");
  a.require(bytes.bytes / 4 >= size_t(src.n * src.k), "dst has too few elements");
  unpackWeight(a.context(), reinterpret_cast<float*>(bytes.p), src);
}

}  // namespace

void InitLinear(Napi::Env env, Napi::Object exports) {
  add<Linear>(env, exports, "linear");
  add<Embedding>(env, exports, "embedding");
  add<Pack>(env, exports, "pack");
  add<Unpack>(env, exports, "unpack");
}
