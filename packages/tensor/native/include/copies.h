// Copies between device memory and typed arrays as they come from JavaScript, of any strides.
#pragma once
#include "args.h"

constexpr int kMostDims = 8;
struct Dim {
  int64_t n, device, host;  // extent, strides in elements
};
struct Copy {
  char *device, *host;
  DType deviceType, hostType;
  Dim dims[kMostDims];
  int rank;
};

/// address, dtype, typed array, its dtype, rank, then extent, device stride and host stride of each dimension
inline Copy copyOf(Args& a, const char* device, const char* host) {
  Copy c;
  double p = a.number(device);
  c.deviceType = a.dtype(device);
  HostBytes bytes = a.host(host);
  c.hostType = a.dtype(host);
  if (c.deviceType != c.hostType && !(isFloat(c.deviceType) && isReal(c.hostType)))
    a.fail(host, "has a dtype that cannot be converted: only floats can");
  c.rank = int(a.integer("rank", 0, kMostDims));
  bool empty = false;
  int64_t deviceEnd = 1, hostEnd = 1;
  for (int i = 0; i < c.rank; i++) {
    Dim& d = c.dims[i];
    d.n = a.size(device), d.device = a.size(device), d.host = a.size(host);
    empty |= d.n == 0;
    int64_t x, y;
    if (d.n > 0 && (__builtin_mul_overflow(d.n - 1, d.device, &x) || __builtin_mul_overflow(d.n - 1, d.host, &y) ||
                    __builtin_add_overflow(deviceEnd, x, &deviceEnd) || __builtin_add_overflow(hostEnd, y, &hostEnd)))
      a.fail(device, "is larger than any memory");
  }
  if (empty) c.dims[0] = {0, 0, 0}, c.rank = 1, deviceEnd = 0, hostEnd = 0;
  if (hostEnd > int64_t(1) << 46 || deviceEnd > int64_t(1) << 46) a.fail(device, "is larger than any memory");
  if (size_t(hostEnd) * size_t(sizeOf(c.hostType)) > bytes.bytes) a.fail(host, "has fewer bytes than its shape and strides need");
  c.device = a.address(device, p, c.deviceType, deviceEnd), c.host = bytes.p;
  return c;
}

/// Walks the dimensions; `row` gets each stretch of the innermost one.
template <class Row> void walk(const Copy& c, int dim, char* device, char* host, Row& row) {
  int64_t db = sizeOf(c.deviceType), hb = sizeOf(c.hostType);
  if (dim >= c.rank - 1) {
    row(device, host, c.rank == 0 ? Dim{1, 1, 1} : c.dims[dim]);
    return;
  }
  const Dim& d = c.dims[dim];
  for (int64_t i = 0; i < d.n; i++) walk(c, dim + 1, device + i * d.device * db, host + i * d.host * hb, row);
}
