// Communicators of NCCL as JavaScript sees them. They are made and used by one JavaScript thread; abortCommunicator is for any.
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <algorithm>
#include "elementwise.h"
#include "nccl_communicator.h"
#include "op.h"

namespace {

struct Entry {
  NcclCommunicator communicator;
  const napi_env owner;
  Entry(const Nccl& nccl, int device, int rank, int size, const Nccl::Id& id, double timeout, napi_env owner)
      : communicator(nccl, device, rank, size, id, timeout), owner(owner) {}
};

/// All communicators of the process: a thread that waits for the device can be freed only by another, whose JavaScript
/// environment has lists of its own.
struct Registry {
  std::mutex mutex;
  std::map<double, std::shared_ptr<Entry>> entries;
  double next = 1;
  static Registry& all() {
    static Registry& r = *new Registry;  // not ended with the process, which would wait for NCCL
    return r;
  }
  std::shared_ptr<Entry> find(double handle) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = entries.find(handle);
    return found == entries.end() ? nullptr : found->second;
  }
  std::shared_ptr<Entry> take(double handle) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = entries.find(handle);
    if (found == entries.end()) return nullptr;
    auto entry = found->second;
    entries.erase(found);
    return entry;
  }
};

/// What an environment leaves open is given up when it ends.
std::set<double>& openIn(Napi::Env env) {
  static thread_local std::set<double>* open = nullptr;  // an environment has one thread
  if (!open) {
    open = new std::set<double>;
    env.AddCleanupHook([](std::set<double>* handles) {
      for (double handle : *handles)
        if (auto entry = Registry::all().take(handle)) entry->communicator.abort("rank " + std::to_string(entry->communicator.rank) + " ended");
      delete handles;
      open = nullptr;
    }, open);
  }
  return *open;
}

const Nccl& nccl(Napi::Env env) {
  std::string reason;
  const Nccl* found = openNccl(reason);
  if (!found)
    raise(env, "NO_NCCL", "several GPUs need NCCL, and " + reason + ". Install it (libnccl2, or the nvidia-nccl package of Python), and where the loader does not find it set APHRODITE_NCCL_PATH to its folder.");
  return *found;
}

/// ncclId(): 128 bytes that all ranks start from
Napi::Value NewId(const Napi::CallbackInfo& info) {
  const Nccl& f = nccl(info.Env());
  Nccl::Id id;
  const Nccl::Result code = f.getUniqueId(&id);
  if (code != Nccl::success) raise(info.Env(), "RANK_FAILED", std::string("NCCL made no id for the ranks: ") + f.getErrorString(code) + ": " + f.getLastError(nullptr));
  return Napi::Buffer<char>::Copy(info.Env(), id.bytes, sizeof id.bytes);
}

template <class F> auto orRankFailed(Napi::Env env, F f) {
  try {
    return f();
  } catch (const RankFailure& failure) {
    raise(env, "RANK_FAILED", failure.reason);
  }
}

/// createNcclCommunicator(context, rank, size, timeout in milliseconds, id): a handle
Napi::Value Create(Args& a) {
  const int64_t rank = a.integer("rank", 0, 4095), size = a.integer("size", 1, 4096), timeout = a.integer("timeoutMs", 1, int64_t(1) << 40);
  const HostBytes bytes = a.host("id");
  Nccl::Id id;
  a.require(rank < size, "rank should be below size");
  a.require(bytes.bytes == sizeof id.bytes, "id should have 128 bytes");
  memcpy(id.bytes, bytes.p, sizeof id.bytes);
  const Nccl& f = nccl(a.env());
  auto entry = orRankFailed(a.env(), [&] { return std::make_shared<Entry>(f, a.context().device, int(rank), int(size), id, double(timeout) * 1e-3, a.env()); });
  Registry& all = Registry::all();
  std::lock_guard<std::mutex> lock(all.mutex);
  all.entries[all.next] = entry;
  openIn(a.env()).insert(all.next);
  return Napi::Number::New(a.env(), all.next++);
}

std::shared_ptr<Entry> ownOf(Args& a) {
  auto entry = Registry::all().find(a.number("communicator"));
  if (!entry) raise(a.env(), "RANK_FAILED", std::string(a.op()) + ": the communicator was closed");
  a.require(entry->owner == napi_env(a.env()), "the communicator belongs to another JavaScript thread");
  return entry;
}

/// communicatorReady(context, handle): whether all ranks have met
Napi::Value Ready(Args& a) {
  auto entry = ownOf(a);
  return Napi::Boolean::New(a.env(), orRankFailed(a.env(), [&] { return entry->communicator.ready(); }));
}

/// connectRanks(context, handle): enqueues an exchange of nothing in particular, which makes the connections that graphs use
void Connect(Args& a) {
  auto entry = ownOf(a);
  Context& c = a.context();
  a.require(!c.capturing, "ranks cannot be connected while a graph is captured");
  orRankFailed(a.env(), [&] {
    check(cudaMemsetAsync(c.scratch, 0, 256, c.stream), "cudaMemsetAsync");
    entry->communicator.allReduce(c, c.scratch, 16, DType::f32);
    entry->communicator.allGather(c, c.scratch, c.scratch + 4096, 16, DType::f32);
  });
}

/// checkCommunicator(context, handle): throws RANK_FAILED when a rank has failed
void Check(Args& a) {
  auto entry = ownOf(a);
  orRankFailed(a.env(), [&] { entry->communicator.check(); });
}

double handleOf(const Napi::CallbackInfo& info) { return info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : 0; }

/// abortCommunicator(handle, reason): on any thread; false when there is no such communicator
Napi::Value Abort(const Napi::CallbackInfo& info) {
  auto entry = Registry::all().find(handleOf(info));
  if (entry) entry->communicator.abort(info[1].ToString().Utf8Value());
  return Napi::Boolean::New(info.Env(), bool(entry));
}

void Close(const Napi::CallbackInfo& info) {
  auto entry = Registry::all().find(handleOf(info));
  if (!entry || entry->owner != napi_env(info.Env())) return;
  openIn(info.Env()).erase(handleOf(info));
  Registry::all().take(handleOf(info));
  entry->communicator.close();
}

bool contiguous(const Matrix& m) { return m.rows <= 1 || m.stride == m.cols; }

/// Strided rows go through scratch memory, as many at a time as it holds.
int64_t rowsThatFit(int64_t rowBytes) { return std::max(int64_t(1), int64_t(Context::kScratchBytes) / std::max(rowBytes, int64_t(1))); }

void AllReduce(Args& a) {
  auto entry = ownOf(a);
  const Matrix x = a.floats("x");
  Context& c = a.context();
  if (x.rows == 0 || x.cols == 0) return;
  orRankFailed(a.env(), [&] {
    if (contiguous(x)) return entry->communicator.allReduce(c, x.p, x.rows * x.cols, x.dtype);
    const int size = sizeOf(x.dtype);
    a.require(x.cols * size <= int64_t(Context::kScratchBytes), "x has rows that are too long to be exchanged");
    for (int64_t at = 0, most = rowsThatFit(x.cols * size); at < x.rows; at += most) {
      const Extent e{std::min(most, x.rows - at), x.cols};
      const Rows rows{x.row(at), x.stride}, packed{c.scratch, x.cols};
      copyRows(c, size, e, packed, rows);
      entry->communicator.allReduce(c, c.scratch, e.rows * e.cols, x.dtype);
      copyRows(c, size, e, rows, packed);
    }
  });
}

/// NCCL lays the ranks' parts one after the other: right for one row; several are put in their places afterwards.
void AllGather(Args& a) {
  auto entry = ownOf(a);
  const Matrix out = a.floats("out"), x = a.floats("x");
  const int ranks = entry->communicator.size, size = sizeOf(x.dtype);
  Context& c = a.context();
  a.require(out.dtype == x.dtype, "the tensors should have one dtype");
  a.require(out.rows == x.rows && out.cols == x.cols * ranks, "out should be [rows, size · n] for x [rows, n]");
  if (x.rows == 0 || x.cols == 0) return;
  orRankFailed(a.env(), [&] {
    if (x.rows == 1) return entry->communicator.allGather(c, x.p, out.p, x.cols, x.dtype);
    const bool pack = !contiguous(x);
    const int64_t rowBytes = x.cols * size * (ranks + (pack ? 1 : 0));
    a.require(rowBytes <= int64_t(Context::kScratchBytes), "x has rows that are too long to be exchanged");
    for (int64_t at = 0, most = rowsThatFit(rowBytes); at < x.rows; at += most) {
      const Extent e{std::min(most, x.rows - at), x.cols};
      const int64_t bytes = e.rows * e.cols * size;
      char* const gathered = c.scratch;
      char* const packed = c.scratch + ranks * bytes;
      if (pack) copyRows(c, size, e, Rows{packed, x.cols}, Rows{x.row(at), x.stride});
      entry->communicator.allGather(c, pack ? packed : x.row(at), gathered, e.rows * e.cols, x.dtype);
      for (int r = 0; r < ranks; r++) copyRows(c, size, e, Rows{out.row(at) + r * x.cols * size, out.stride}, Rows{gathered + r * bytes, x.cols});
    }
  });
}

/// pollStream(context, microseconds): whether all that was enqueued is done by then
Napi::Value PollStream(Args& a) {
  Context& c = a.context();
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(a.integer("microseconds", 0, 1000000));
  for (;;) {
    const cudaError_t code = cudaStreamQuery(c.stream);
    if (code == cudaSuccess) return Napi::Boolean::New(a.env(), true);
    if (code != cudaErrorNotReady) check(code, "cudaStreamQuery");
    if (std::chrono::steady_clock::now() >= until) return Napi::Boolean::New(a.env(), false);
  }
}

}  // namespace

void InitCollectives(Napi::Env env, Napi::Object exports) {
  exports.Set("ncclId", Napi::Function::New(env, NewId));
  addValue<Create>(env, exports, "createNcclCommunicator");
  addValue<Ready>(env, exports, "communicatorReady");
  add<Connect>(env, exports, "connectRanks");
  add<Check>(env, exports, "checkCommunicator");
  exports.Set("abortCommunicator", Napi::Function::New(env, Abort));
  exports.Set("closeCommunicator", Napi::Function::New(env, Close));
  add<AllReduce>(env, exports, "allReduce");
  add<AllGather>(env, exports, "allGather");
  addValue<PollStream>(env, exports, "pollStream");
}
