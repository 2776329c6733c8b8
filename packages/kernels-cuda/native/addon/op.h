// An op is a function `void Op(Args& a)` that checks its numbers and enqueues kernels; `add<Op>(env, exports, "op")` exports it.
// Whatever it throws arrives in JavaScript: a CUDA call that failed with the op's name and shapes.
#pragma once
#include "args.h"

/// Throws the error of a CUDA call that failed.
[[noreturn]] void raiseCuda(Napi::Env env, const std::string& where, const CudaFailure& failure);

/// Calls f and lets what it throws arrive in JavaScript.
template <class F> auto guarded(Args& a, F f) {
  try {
    use(a.context());
    return f();
  } catch (const CudaFailure& failure) {
    raiseCuda(a.env(), a.describe(), failure);
  }
}

template <void (*op)(Args&)> void add(Napi::Env env, Napi::Object exports, const char* name) {
  auto call = [](const Napi::CallbackInfo& info) {
    Args args(info, static_cast<const char*>(info.Data()));
    guarded(args, [&] { op(args); });
  };
  exports.Set(name, Napi::Function::New(env, call, name, const_cast<char*>(name)));
}
/// The same for a function that returns something.
template <Napi::Value (*op)(Args&)> void addValue(Napi::Env env, Napi::Object exports, const char* name) {
  auto call = [](const Napi::CallbackInfo& info) -> Napi::Value {
    Args args(info, static_cast<const char*>(info.Data()));
    return guarded(args, [&] { return op(args); });
  };
  exports.Set(name, Napi::Function::New(env, call, name, const_cast<char*>(name)));
}
