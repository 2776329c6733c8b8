// Device memory as JavaScript sees it: allocate, release, and copies from and to typed arrays.
#include "op.h"

namespace {

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
Copy copyOf(Args& a, const char* device, const char* host) {
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

/// Walks the dimensions; `row` copies the innermost one.
template <class Row> void walk(const Copy& c, int dim, char* device, char* host, Row& row) {
  int64_t db = sizeOf(c.deviceType), hb = sizeOf(c.hostType);
  if (dim >= c.rank - 1) {
    row(device, host, c.rank == 0 ? Dim{1, 1, 1} : c.dims[dim]);
    return;
  }
  const Dim& d = c.dims[dim];
  for (int64_t i = 0; i < d.n; i++) walk(c, dim + 1, device + i * d.device * db, host + i * d.host * hb, row);
}

void copyRow(char* to, DType toType, int64_t toStride, const char* from, DType fromType, int64_t fromStride, int64_t n) {
  int64_t tb = sizeOf(toType), fb = sizeOf(fromType);
  if (toType == fromType) {
    if (toStride == 1 && fromStride == 1) memcpy(to, from, size_t(n * tb));
    else
      for (int64_t i = 0; i < n; i++) memcpy(to + i * toStride * tb, from + i * fromStride * fb, size_t(tb));
    return;
  }
  for (int64_t i = 0; i < n; i++) storeFloat(toType, to + i * toStride * tb, loadReal(fromType, from + i * fromStride * fb));
}

void Upload(Args& a) {
  Copy c = copyOf(a, "dst", "src");
  auto row = [&](char* device, char* host, const Dim& d) {
    copyRow(device, c.deviceType, d.device, host, c.hostType, d.host, d.n);
  };
  walk(c, 0, c.device, c.host, row);
}

void Download(Args& a) {
  Copy c = copyOf(a, "src", "dst");
  a.require(c.hostType == c.deviceType || c.hostType == DType::f32, "floats are downloaded as f32, integers as they are");
  auto row = [&](char* device, char* host, const Dim& d) {
    copyRow(host, c.hostType, d.host, device, c.deviceType, d.device, d.n);
  };
  walk(c, 0, c.device, c.host, row);
}

void Release(Args& a) {
  double p = a.number("address");
  if (!(p > 0) || p > 9007199254740991.0 || !a.context().slabs.release(reinterpret_cast<void*>(uintptr_t(p))))
    a.fail("address", "is not one that allocate returned");
}

/// The address, or 0 when the system has no more memory.
Napi::Value Allocate(const Napi::CallbackInfo& info) {
  Args a(info, "allocate");
  void* p = a.context().slabs.allocate(size_t(a.integer("bytes", 0, int64_t(1) << 46)));
  return Napi::Number::New(info.Env(), double(uintptr_t(p)));
}

}  // namespace

void InitMemory(Napi::Env env, Napi::Object exports) {
  exports.Set("allocate", Napi::Function::New(env, Allocate));
  add<Release>(env, exports, "release");
  add<Upload>(env, exports, "upload");
  add<Download>(env, exports, "download");
}
