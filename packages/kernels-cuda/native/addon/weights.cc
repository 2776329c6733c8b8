// pack and unpack: weights between host arrays and their packed form.
#include "op.h"
#include "packed.h"

namespace {

/// packed weight, typed array, its dtype, rows, columns, row stride, column stride, then the place: row, column
void Pack(Args& a) {
  PackedMatrix dst = packedMatrix(a, "dst");
  HostBytes bytes = a.host("src");
  HostMatrix src{bytes.p, a.dtype("src"), a.size("src"), a.size("src"), a.size("src"), a.size("src")};
  int64_t row = a.size("row"), col = a.size("column");
  a.require(!a.context().capturing, "weights cannot be packed while a graph is captured");
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
  PackedMatrix src = packedMatrix(a, "src");
  HostBytes bytes = a.host("dst");
  a.require(!a.context().capturing, "weights cannot be unpacked while a graph is captured");
  a.require(bytes.bytes / 4 >= size_t(src.n * src.k), "dst has too few elements");
  unpackWeight(a.context(), reinterpret_cast<float*>(bytes.p), src);
}

}  // namespace

void InitWeights(Napi::Env env, Napi::Object exports) {
  add<Pack>(env, exports, "pack");
  add<Unpack>(env, exports, "unpack");
}
