// createContext, and what this processor has.
#include <sched.h>
#include <cmath>
#include <memory>
#include <system_error>
#include <vector>
#include "contexts.h"

namespace {

/// The cores that this process may use, as they were when the addon was loaded: before any thread was pinned.
const std::vector<int>& allowedCores() {
  static const std::vector<int> cores = [] {
    std::vector<int> list;
    for (size_t most = 1024; list.empty() && most <= 65536; most *= 2) {  // the kernel refuses a mask that is too short
      cpu_set_t* set = CPU_ALLOC(most);
      size_t bytes = CPU_ALLOC_SIZE(most);
      if (sched_getaffinity(0, bytes, set) == 0)
        for (size_t i = 0; i < most; i++)
          if (CPU_ISSET_S(i, bytes, set)) list.push_back(int(i));
      CPU_FREE(set);
    }
    return list;
  }();
  return cores;
}

/// Starts libuv's threads while this thread may still run anywhere: they inherit where their creator is allowed to run.
void startLibuvThreads(Napi::Env env) {
  struct Nothing : Napi::AsyncWorker {
    explicit Nothing(Napi::Env env) : Napi::AsyncWorker(env) {}
    void Execute() override {}
  };
  (new Nothing(env))->Queue();
}

/// createContext(threads, isa, spin, cores?): a handle. cores: one for each thread, which pins them; absent: unpinned.
Napi::Value Create(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto fail = [&](const char* what) { raise(env, "BAD_OPTION", std::string("createContext: ") + what); };
  for (size_t i = 0; i < 2; i++)
    if (!info[i].IsNumber()) fail("threads and isa should be numbers");
  double threads = info[0].As<Napi::Number>().DoubleValue(), isa = info[1].As<Napi::Number>().DoubleValue();
  if (!(threads >= 1 && threads <= 1024) || threads != std::floor(threads)) fail("threads should be 1 … 1024");
  if (!(isa >= 0 && isa <= double(int(bestIsa()))) || isa != std::floor(isa)) fail("isa is not one that this processor has");
  std::vector<int> cores;
  if (info[3].IsArray()) {
    auto list = info[3].As<Napi::Array>();
    if (list.Length() < threads) fail("cores should name one core for each thread");
    for (uint32_t i = 0; i < uint32_t(threads); i++) {
      Napi::Value core = list[i];
      if (!core.IsNumber()) fail("cores should be numbers");
      int c = core.As<Napi::Number>().Int32Value();
      if (c < 0 || c >= CPU_SETSIZE) fail("cores names a core that cannot be");
      cores.push_back(c);
    }
    startLibuvThreads(env);
  }
  auto* contexts = env.GetInstanceData<Contexts>();
  try {
    auto context = std::make_unique<Context>(int(threads), cores.empty() ? nullptr : cores.data(), info[2].ToBoolean(), Isa(int(isa)));
    return contexts->add(env, std::move(context));
  } catch (const std::system_error& e) {
    raise(env, "BAD_OPTION", std::string("createContext: cannot start ") + std::to_string(int(threads)) + " threads: " + e.what());
  }
}

Napi::Value BestIsa(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), int(bestIsa())); }

Napi::Value AllowedCores(const Napi::CallbackInfo& info) {
  auto& cores = allowedCores();
  auto list = Napi::Array::New(info.Env(), cores.size());
  for (size_t i = 0; i < cores.size(); i++) list[uint32_t(i)] = cores[i];
  return list;
}

}  // namespace

void InitContext(Napi::Env env, Napi::Object exports) {
  allowedCores();
  initContexts(env, exports);
  exports.Set("createContext", Napi::Function::New(env, Create));
  exports.Set("bestIsa", Napi::Function::New(env, BestIsa));
  exports.Set("allowedCores", Napi::Function::New(env, AllowedCores));
}
