// Device memory as JavaScript sees it: allocate, release, and copies from and to typed arrays.
#include "copies.h"
#include "op.h"

namespace {

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
