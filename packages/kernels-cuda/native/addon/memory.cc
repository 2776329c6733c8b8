// Device memory as JavaScript sees it: allocate, release, copies from and to typed arrays, and the wait for the device.
#include <string.h>
#include "copies.h"
#include "op.h"
#include "reads.h"

namespace {

/// copyOf, which cannot be a part of a graph.
Copy uncapturedCopy(Args& a, const char* device, const char* host) {
  a.require(!a.context().capturing, "data of the host cannot be moved while a graph is captured");
  return copyOf(a, device, host);
}

void convertRow(char* to, DType toType, const char* from, DType fromType, int64_t fromStride, int64_t n) {
  int64_t tb = sizeOf(toType), fb = sizeOf(fromType);
  if (toType == fromType) {
    if (fromStride == 1) memcpy(to, from, size_t(n * tb));
    else
      for (int64_t i = 0; i < n; i++) memcpy(to + i * tb, from + i * fromStride * fb, size_t(tb));
    return;
  }
  for (int64_t i = 0; i < n; i++) storeFloat(toType, to + i * tb, loadReal(fromType, from + i * fromStride * fb));
}

void Upload(Args& a) {
  const Copy c = uncapturedCopy(a, "dst", "src");
  Context& context = a.context();
  std::vector<char> buffer;
  auto row = [&](char* device, char* host, const Dim& d) {
    const size_t bytes = size_t(d.n) * size_t(sizeOf(c.deviceType));
    if (d.n == 0) return;
    const bool together = d.device == 1 || d.n == 1;
    const char* from = host;
    if (c.deviceType != c.hostType || (d.host != 1 && d.n > 1)) {
      buffer.resize(bytes);
      convertRow(buffer.data(), c.deviceType, host, c.hostType, d.host, d.n);
      from = buffer.data();
    }
    if (together) return context.staging->upload(device, from, bytes, context.stream);
    const int64_t size = sizeOf(c.deviceType);
    for (int64_t i = 0; i < d.n; i++) context.staging->upload(device + i * d.device * size, from + i * size, size_t(size), context.stream);
  };
  walk(c, 0, c.device, c.host, row);
}

void Download(Args& a) {
  const Copy c = uncapturedCopy(a, "src", "dst");
  a.require(c.hostType == c.deviceType || c.hostType == DType::f32, "floats are downloaded as f32, integers as they are");
  Context& context = a.context();
  std::vector<char> buffer;
  auto row = [&](char* device, char* host, const Dim& d) {
    if (d.n == 0) return;
    const int64_t db = sizeOf(c.deviceType), hb = sizeOf(c.hostType);
    const size_t bytes = size_t((d.n - 1) * d.device + 1) * size_t(db);
    buffer.resize(bytes);
    check(cudaMemcpyAsync(buffer.data(), device, bytes, cudaMemcpyDeviceToHost, context.stream), "cudaMemcpyAsync");
    check(cudaStreamSynchronize(context.stream), "cudaStreamSynchronize");
    for (int64_t i = 0; i < d.n; i++) {
      const char* from = buffer.data() + i * d.device * db;
      char* to = host + i * d.host * hb;
      if (c.hostType == c.deviceType) memcpy(to, from, size_t(db));
      else storeFloat(c.hostType, to, loadReal(c.deviceType, from));
    }
  };
  walk(c, 0, c.device, c.host, row);
}

/// beginRead(context, address, dtype, elements): a handle for waitRead
Napi::Value BeginRead(Args& a) {
  Context& c = a.context();
  a.require(!c.capturing, "data cannot be read while a graph is captured");
  Vector v = a.vector("src");
  return Napi::Number::New(a.env(), c.reads->begin(v.p, size_t(v.length) * size_t(sizeOf(v.dtype)), c.stream));
}

/// pollRead(context, handle, microseconds): whether the copy is there by then
Napi::Value PollRead(Args& a) {
  const double handle = a.number("read");
  return Napi::Boolean::New(a.env(), a.context().reads->poll(handle, a.integer("microseconds", 0, 1000000)));
}

/// waitRead(context, handle, dtype of what is read, dst: typed array of as many elements, its dtype)
void WaitRead(Args& a) {
  Context& c = a.context();
  const double handle = a.number("read");
  const DType from = a.dtype("src");
  HostBytes to = a.host("dst");
  const DType type = a.dtype("dst");
  a.require(type == from || (type == DType::f32 && isFloat(from)), "floats are read as f32, integers as they are");
  const Reads::Read* read = c.reads->wait(handle);
  a.require(read, "there is no such read");
  const int64_t n = int64_t(to.bytes) / sizeOf(type);
  const bool fits = size_t(n) * size_t(sizeOf(from)) == read->bytes;
  if (fits) convertRow(to.p, type, read->pinned, from, 1, n);
  c.reads->finish(handle);
  a.require(fits, "dst should have as many elements as were read");
}

void Release(Args& a) {
  double p = a.number("address");
  a.require(!a.context().capturing, "memory cannot be given back while a graph is captured");
  if (!(p > 0) || p > 9007199254740991.0 || !a.context().slabs.release(reinterpret_cast<void*>(uintptr_t(p)), a.context().stream))
    a.fail("address", "is not one that allocate returned");
}

/// The address, or 0 when the device has no more memory.
Napi::Value Allocate(Args& a) {
  a.require(!a.context().capturing, "memory cannot be allocated while a graph is captured");
  void* p = nullptr;
  try {
    p = a.context().slabs.allocate(size_t(a.integer("bytes", 0, int64_t(1) << 46)), a.context().stream);
  } catch (const CudaFailure& failure) {
    if (failure.code != cudaErrorMemoryAllocation) throw;
  }
  return Napi::Number::New(a.env(), double(uintptr_t(p)));
}

/// { total, free } in bytes
Napi::Value Memory(Args& a) {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  auto o = Napi::Object::New(a.env());
  o.Set("total", double(total));
  o.Set("free", double(free));
  return o;
}

void Synchronize(Args& a) { check(cudaStreamSynchronize(a.context().stream), "cudaStreamSynchronize"); }

}  // namespace

void InitMemory(Napi::Env env, Napi::Object exports) {
  addValue<Allocate>(env, exports, "allocate");
  add<Release>(env, exports, "release");
  add<Upload>(env, exports, "upload");
  add<Download>(env, exports, "download");
  addValue<BeginRead>(env, exports, "beginRead");
  addValue<PollRead>(env, exports, "pollRead");
  add<WaitRead>(env, exports, "waitRead");
  addValue<Memory>(env, exports, "memory");
  add<Synchronize>(env, exports, "synchronize");
}
