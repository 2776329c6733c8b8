// An addon's contexts (one a device). Every JavaScript environment has its own list: nothing is shared between threads, and
// what an environment leaves behind when it ends is closed with it. Included by one file of an addon.
#pragma once
#include <memory>
#include <vector>
#include "args.h"

struct Contexts {
  struct Entry {
    double handle;
    std::unique_ptr<Context> context;
  };
  std::vector<Entry> list;
  double next = 1;
  Napi::FunctionReference error;  // AphroditeError, a class (code, message)

  Context* find(double handle) const {
    for (auto& e : list)
      if (e.handle == handle) return e.context.get();
    return nullptr;
  }
  /// The handle of a new one.
  Napi::Value add(Napi::Env env, std::unique_ptr<Context> context) {
    list.push_back({next, std::move(context)});
    return Napi::Number::New(env, next++);
  }
};

Context* Args::contextOf(double handle) const {
  Context* c = Napi::Env(env_).GetInstanceData<Contexts>()->find(handle);
  if (!c) raise(env(), "DEVICE_CLOSED", std::string(op_) + ": the device was closed, or belongs to another JavaScript thread");
  return c;
}

void raise(Napi::Env env, const char* code, const std::string& message) {
  auto& error = env.GetInstanceData<Contexts>()->error;
  if (error.IsEmpty()) throw Napi::Error::New(env, message);
  throw Napi::Error(env, error.New({Napi::String::New(env, code), Napi::String::New(env, message)}));
}

static void DestroyContext(const Napi::CallbackInfo& info) {
  auto& list = info.Env().GetInstanceData<Contexts>()->list;
  double handle = info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : 0;
  for (size_t i = 0; i < list.size(); i++)
    if (list[i].handle == handle) {
      list.erase(list.begin() + long(i));
      return;
    }
}

/// raiseWith(AphroditeError): the class of what is thrown from now on.
static void RaiseWith(const Napi::CallbackInfo& info) {
  if (info[0].IsFunction()) info.Env().GetInstanceData<Contexts>()->error = Napi::Persistent(info[0].As<Napi::Function>());
}

/// Exports destroyContext and raiseWith; before anything that may raise.
static void initContexts(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Contexts);
  exports.Set("destroyContext", Napi::Function::New(env, DestroyContext));
  exports.Set("raiseWith", Napi::Function::New(env, RaiseWith));
}
