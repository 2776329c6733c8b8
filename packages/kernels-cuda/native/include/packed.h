// How a packed weight arrives from JavaScript: address, format, output features, input features.
#pragma once
#include "args.h"
#include "linear.h"

inline PackedMatrix packedMatrix(Args& a, const char* name) {
  PackedMatrix w;
  double p = a.number(name);
  w.format = DType(a.integer(name, int(DType::f32), int(DType::f16)));
  w.n = a.integer(name, 1, int64_t(1) << 31), w.k = a.integer(name, 1, int64_t(1) << 31);
  w.p = a.address(name, p, DType::u8, w.bytes());
  if (uintptr_t(w.p) % 256) a.fail(name, "is not aligned to 256 bytes");
  a.note(name, w.format, w.n, w.k);
  return w;
}
