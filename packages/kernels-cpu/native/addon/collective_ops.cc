// Communicators as JavaScript sees them. They are made and used by one JavaScript thread; abortCommunicator is for any.
#include <unistd.h>
#include <cmath>
#include <set>
#include "../collectives/registry.h"
#include "../collectives/shared_communicator.h"
#include "../collectives/tcp_communicator.h"
#include "op.h"

namespace {

struct Options {
  Napi::Env env;
  const Napi::Object object;
  [[noreturn]] void fail(const std::string& what) const { raise(env, "BAD_OPTION", "createCommunicator: " + what); }
  int integer(const char* name, int least, int most) const {
    Napi::Value v = object.Get(name);
    const double d = v.IsNumber() ? v.As<Napi::Number>().DoubleValue() : NAN;
    if (!(d >= least && d <= most) || d != std::floor(d)) fail(std::string(name) + " should be " + std::to_string(least) + " … " + std::to_string(most));
    return int(d);
  }
  std::string text(const char* name) const {
    Napi::Value v = object.Get(name);
    if (!v.IsString()) fail(std::string(name) + " should be a string");
    return v.As<Napi::String>().Utf8Value();
  }
};

/// What an environment leaves open is given up when it ends: the others must not wait for it.
struct Open {
  std::set<double> handles;
  static Open& of(Napi::Env env) {
    static thread_local Open* open = nullptr;  // an environment has one thread
    if (!open) {
      open = new Open;
      env.AddCleanupHook([](Open* o) {
        for (double handle : o->handles) {
          if (auto entry = findCommunicator(handle)) entry->communicator().abort("rank " + std::to_string(entry->communicator().rank) + " ended");
          forgetCommunicator(handle);
        }
        delete o;
        open = nullptr;
      }, open);
    }
    return *open;
  }
};

Napi::Value add(Napi::Env env, std::unique_ptr<Communicator> communicator) {
  const double handle = registerCommunicator(std::make_shared<Registered>(std::move(communicator), napi_env(env)));
  Open::of(env).handles.insert(handle);
  return Napi::Number::New(env, handle);
}

/// createSharedCommunicator({ rank, size, timeoutMs, name, threads, cores }): a handle
Napi::Value CreateShared(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) raise(info.Env(), "BAD_OPTION", "createCommunicator: options should be an object");
  const Options o{info.Env(), info[0].As<Napi::Object>()};
  const int size = o.integer("size", 1, Communicator::kMostRanks);
  Napi::Value list = o.object.Get("cores");
  if (!list.IsArray()) o.fail("cores should be an array");
  std::vector<int> cores;
  for (uint32_t i = 0; i < list.As<Napi::Array>().Length(); i++) {
    Napi::Value core = list.As<Napi::Array>().Get(i);
    if (core.IsNumber()) cores.push_back(core.As<Napi::Number>().Int32Value());
  }
  return add(info.Env(), std::make_unique<SharedCommunicator>(o.integer("rank", 0, size - 1), size, o.integer("timeoutMs", 1, 1 << 30) * 1e-3, o.text("name"),
                                                              o.integer("threads", 1, 1 << 16), std::move(cores)));
}

/// createTcpCommunicator({ rank, size, timeoutMs, listener, hosts, ports, secret }): a handle. The listener is the communicator's then.
Napi::Value CreateTcp(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) raise(info.Env(), "BAD_OPTION", "createCommunicator: options should be an object");
  const Options o{info.Env(), info[0].As<Napi::Object>()};
  TcpOptions t;
  t.size = o.integer("size", 1, Communicator::kMostRanks);
  t.rank = o.integer("rank", 0, t.size - 1);
  t.timeout = o.integer("timeoutMs", 1, 1 << 30) * 1e-3;
  t.secret = o.text("secret");
  Napi::Value hosts = o.object.Get("hosts"), ports = o.object.Get("ports");
  if (!hosts.IsArray() || !ports.IsArray()) o.fail("hosts and ports should be arrays");
  for (uint32_t i = 0; i < uint32_t(t.size); i++) {
    Napi::Value host = hosts.As<Napi::Array>().Get(i), port = ports.As<Napi::Array>().Get(i);
    if (!host.IsString() || !port.IsString()) o.fail("there should be an address for each rank");
    t.addresses.push_back({host.As<Napi::String>().Utf8Value(), port.As<Napi::String>().Utf8Value()});
  }
  const int listener = o.integer("listener", 0, 1 << 30);
  return add(info.Env(), std::make_unique<TcpCommunicator>(std::move(t), listener));
}

double handleOf(const Napi::CallbackInfo& info) { return info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : 0; }

std::shared_ptr<Registered> ownOf(Napi::Env env, double handle, const char* op) {
  auto entry = findCommunicator(handle);
  if (!entry) raise(env, "RANK_FAILED", std::string(op) + ": the communicator was closed");
  if (entry->owner() != napi_env(env)) raise(env, "BAD_ARGUMENT", std::string(op) + ": the communicator belongs to another JavaScript thread");
  return entry;
}

/// communicatorReady(handle): whether all ranks have met
Napi::Value Ready(const Napi::CallbackInfo& info) {
  auto entry = ownOf(info.Env(), handleOf(info), "createCommunicator");
  const auto state = entry->state();
  if (state == Registered::failed) raise(info.Env(), "RANK_FAILED", entry->failure());
  if (state == Registered::joined && !entry->entered) {
    entry->entered = true;
    entry->communicator().enter();
  }
  return Napi::Boolean::New(info.Env(), state == Registered::joined);
}

/// abortCommunicator(handle, reason): on any thread; false when there is no such communicator
Napi::Value Abort(const Napi::CallbackInfo& info) {
  auto entry = findCommunicator(handleOf(info));
  if (entry) entry->communicator().abort(info[1].ToString().Utf8Value());
  return Napi::Boolean::New(info.Env(), bool(entry));
}

void Close(const Napi::CallbackInfo& info) {
  const double handle = handleOf(info);
  auto entry = findCommunicator(handle);
  if (!entry || entry->owner() != napi_env(info.Env())) return;
  if (entry->entered) entry->communicator().close();
  Open::of(info.Env()).handles.erase(handle);
  forgetCommunicator(handle);
}

/// listen(host, port): { listener, port }
Napi::Value Listen(const Napi::CallbackInfo& info) {
  const Address address{info[0].ToString().Utf8Value(), info[1].ToString().Utf8Value()};
  try {
    const int listener = listenOn(address);
    auto result = Napi::Object::New(info.Env());
    result.Set("listener", listener);
    result.Set("port", portOf(listener));
    return result;
  } catch (const RankFailure& f) {
    raise(info.Env(), "CANNOT_LISTEN", "ranks cannot be listened for at " + address.text() + ": " + f.reason + ". Take another address or port.");
  }
}
void CloseListener(const Napi::CallbackInfo& info) { close(int(handleOf(info))); }

Rows rowsOf(const Matrix& m) { return {m.p, m.dtype, m.rows, m.cols, m.stride}; }

template <class F> void collective(Args& a, F f) {
  auto entry = ownOf(a.env(), a.number("communicator"), a.op());
  a.require(entry->entered, "the ranks have not met yet");
  try {
    f(entry->communicator());
  } catch (const RankFailure& failure) {
    raise(a.env(), "RANK_FAILED", failure.reason);
  }
}

void AllReduce(Args& a) {
  collective(a, [&](Communicator& c) {
    Matrix x = a.floats("x");
    c.allReduce(a.context(), rowsOf(x));
  });
}

void AllGather(Args& a) {
  collective(a, [&](Communicator& c) {
    Matrix out = a.floats("out"), x = a.floats("x");
    a.require(out.dtype == x.dtype, "the tensors should have one dtype");
    a.require(out.rows == x.rows && out.cols == x.cols * c.size, "out should be [rows, size · n] for x [rows, n]");
    c.allGather(a.context(), rowsOf(out), rowsOf(x));
  });
}

}  // namespace

void InitCollectives(Napi::Env env, Napi::Object exports) {
  exports.Set("createSharedCommunicator", Napi::Function::New(env, CreateShared));
  exports.Set("createTcpCommunicator", Napi::Function::New(env, CreateTcp));
  exports.Set("communicatorReady", Napi::Function::New(env, Ready));
  exports.Set("abortCommunicator", Napi::Function::New(env, Abort));
  exports.Set("closeCommunicator", Napi::Function::New(env, Close));
  exports.Set("listen", Napi::Function::New(env, Listen));
  exports.Set("closeListener", Napi::Function::New(env, CloseListener));
  ::add<AllReduce>(env, exports, "allReduce");
  ::add<AllGather>(env, exports, "allGather");
}
