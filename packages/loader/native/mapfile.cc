// Files as memory: what Node itself does not offer. Maps a file (or one buffer over and over) into an external ArrayBuffer,
// takes the mapping away again, tells the kernel what comes next, and takes the lock that other hub clients take.
//
// A mapping ends by `unmap`, which detaches the ArrayBuffer first so that no view can reach it any more, or when the
// ArrayBuffer is collected. Addresses never come from JavaScript: only ArrayBuffers that this addon made are accepted.
#include <napi.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#if defined(__linux__) && !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22  // Linux 5.14: faults pages in, and reports what would have been a SIGBUS
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

namespace {

struct Mapping;
/// The live mappings of one environment, by address. Shared with every mapping, because the order in which an environment
/// ends finalizers and instance data is nobody's promise.
struct Registry {
  std::mutex mutex;
  std::unordered_map<void*, Mapping*> live;
};

struct Mapping {
  Mapping(void* address, size_t bytes, std::shared_ptr<Registry> registry)
      : address(address), bytes(bytes), registry(std::move(registry)) {}
  void* address;  // nullptr once unmapped
  size_t bytes;
  std::shared_ptr<Registry> registry;

  void release() {
    std::lock_guard<std::mutex> lock(registry->mutex);
    if (!address) return;
    registry->live.erase(address);
    munmap(address, bytes);
    address = nullptr;
  }
};

using Instance = std::shared_ptr<Registry>;

Napi::Error systemError(Napi::Env env, const char* call, int code) {
  Napi::Error error = Napi::Error::New(env, std::string(call) + ": " + std::strerror(code));
  error.Set("errno", Napi::Number::New(env, code));
  return error;
}

double number(const Napi::CallbackInfo& info, size_t i, const char* what) {
  if (i >= info.Length() || !info[i].IsNumber()) throw Napi::TypeError::New(info.Env(), std::string(what) + " should be a number");
  double v = info[i].As<Napi::Number>().DoubleValue();
  if (!(v >= 0 && v <= 9007199254740991.0) || v != std::floor(v))
    throw Napi::RangeError::New(info.Env(), std::string(what) + " should be a whole number");
  return v;
}

/// The mapping behind an ArrayBuffer of this addon, or nullptr when it is gone or never was.
Mapping* mappingOf(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsArrayBuffer()) throw Napi::TypeError::New(info.Env(), "should be an ArrayBuffer");
  Napi::ArrayBuffer buffer = info[0].As<Napi::ArrayBuffer>();
  if (buffer.IsDetached()) return nullptr;
  Registry& registry = **info.Env().GetInstanceData<Instance>();
  std::lock_guard<std::mutex> lock(registry.mutex);
  auto found = registry.live.find(buffer.Data());
  return found == registry.live.end() ? nullptr : found->second;
}

Napi::Value wrap(Napi::Env env, void* address, size_t bytes) {
  Instance registry = *env.GetInstanceData<Instance>();
  auto mapping = std::make_shared<Mapping>(address, bytes, registry);
  {
    std::lock_guard<std::mutex> lock(registry->mutex);
    registry->live[address] = mapping.get();
  }
  auto finalize = [](napi_env, void*, void* hint) {
    auto* kept = static_cast<std::shared_ptr<Mapping>*>(hint);
    (*kept)->release();
    delete kept;
  };
  // The C function: where Node refuses a buffer for its size it has run the finalizer already, which the C++ wrapper does not
  // expect. After other failures it has not; then `kept` stays behind.
  auto* kept = new std::shared_ptr<Mapping>(mapping);
  napi_value buffer;
  if (napi_create_external_arraybuffer(env, address, bytes, finalize, kept, &buffer) != napi_ok) {
    mapping->release();
    throw Napi::Error::New(env);
  }
  return Napi::Value(env, buffer);
}

/// map(fd, offset, bytes): a stretch of a file; the offset is a multiple of the page size. The caller has checked that the
/// file has it; the kernel takes any.
Napi::Value Map(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = int(number(info, 0, "fd"));
  off_t offset = off_t(number(info, 1, "offset"));
  size_t bytes = size_t(number(info, 2, "bytes"));
  if (bytes == 0) throw Napi::RangeError::New(env, "bytes should be above 0");
  // Private and writable, so that a view somebody writes to becomes a copy instead of a fault; the file never changes.
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, offset);
  // Where the system promises memory for every writable page beforehand, that is too much to ask.
  if (p == MAP_FAILED && errno == ENOMEM) p = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, offset);
  if (p == MAP_FAILED) throw systemError(env, "mmap", errno);
  return wrap(env, p, bytes);
}

#ifdef __linux__
/// repeat(pattern, bytes): `bytes` bytes of memory in which the pattern (whole pages) repeats, at the cost of one pattern.
Napi::Value Repeat(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsTypedArray()) throw Napi::TypeError::New(env, "pattern should be a typed array");
  auto pattern = info[0].As<Napi::Uint8Array>();
  size_t bytes = size_t(number(info, 1, "bytes")), unit = pattern.ByteLength(), page = size_t(sysconf(_SC_PAGESIZE));
  if (bytes == 0 || unit == 0 || unit % page) throw Napi::RangeError::New(env, "pattern should be whole pages");
  int fd = memfd_create("pattern", MFD_CLOEXEC);
  if (fd < 0) throw systemError(env, "memfd_create", errno);
  for (size_t done = 0; done < unit;) {
    ssize_t n = write(fd, pattern.Data() + done, unit - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      int code = errno;
      close(fd);
      throw systemError(env, "write", code);
    }
    done += size_t(n);
  }
  // One reservation, then the pattern over it, piece by piece.
  void* base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    int code = errno;
    close(fd);
    throw systemError(env, "mmap", code);
  }
  for (size_t at = 0; at < bytes; at += unit) {
    size_t length = bytes - at < unit ? bytes - at : unit;
    // Private and writable, as a file: a write makes a page of its own.
    if (mmap(static_cast<char*>(base) + at, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, 0) == MAP_FAILED) {
      int code = errno;
      munmap(base, bytes);
      close(fd);
      throw systemError(env, "mmap", code);
    }
  }
  close(fd);
  return wrap(env, base, bytes);
}
#endif

/// unmap(buffer): true when there was a mapping. Every view of it has length 0 afterwards.
Napi::Value Unmap(const Napi::CallbackInfo& info) {
  Mapping* mapping = mappingOf(info);
  if (!mapping) return Napi::Boolean::New(info.Env(), false);
  info[0].As<Napi::ArrayBuffer>().Detach();
  mapping->release();
  return Napi::Boolean::New(info.Env(), true);
}

/// advise(buffer, offset, bytes, advice): 0, or the errno. Whole pages around the range.
Napi::Value advise(const Napi::CallbackInfo& info, int advice) {
  Napi::Env env = info.Env();
  Mapping* mapping = mappingOf(info);
  size_t offset = size_t(number(info, 1, "offset")), bytes = size_t(number(info, 2, "bytes"));
  if (!mapping || offset > mapping->bytes || bytes > mapping->bytes - offset) throw Napi::RangeError::New(env, "outside the mapping");
  if (bytes == 0) return Napi::Number::New(env, 0);
  size_t page = size_t(sysconf(_SC_PAGESIZE)), start = offset / page * page;
  int code = 0;
  do {
    code = madvise(static_cast<char*>(mapping->address) + start, offset + bytes - start, advice) ? errno : 0;
  } while (code == EINTR || code == EAGAIN);
  return Napi::Number::New(env, code);
}
Napi::Value WillNeed(const Napi::CallbackInfo& info) { return advise(info, MADV_WILLNEED); }
#ifdef __linux__
Napi::Value Populate(const Napi::CallbackInfo& info) { return advise(info, MADV_POPULATE_READ); }
#endif

/// tryLock(fd): takes the whole file's advisory lock, false when somebody has it. It ends with the descriptor.
Napi::Value TryLock(const Napi::CallbackInfo& info) {
  int fd = int(number(info, 0, "fd"));
  while (flock(fd, LOCK_EX | LOCK_NB)) {
    if (errno == EWOULDBLOCK) return Napi::Boolean::New(info.Env(), false);
    if (errno != EINTR) throw systemError(info.Env(), "flock", errno);
  }
  return Napi::Boolean::New(info.Env(), true);
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Instance(std::make_shared<Registry>()));
  exports.Set("map", Napi::Function::New(env, Map));
  exports.Set("unmap", Napi::Function::New(env, Unmap));
  exports.Set("willNeed", Napi::Function::New(env, WillNeed));
  exports.Set("tryLock", Napi::Function::New(env, TryLock));
#ifdef __linux__
  exports.Set("repeat", Napi::Function::New(env, Repeat));
  exports.Set("populate", Napi::Function::New(env, Populate));
#endif
  return exports;
}

}  // namespace

NODE_API_MODULE(loader, Init)
