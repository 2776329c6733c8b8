// An op is a function `void Op(Args& a)`; `add<Op>(env, exports, "op")` exports it. Whatever it throws arrives in JavaScript.
// While its context records, a call is kept instead (recording.cc).
#pragma once
#include <new>
#include "args.h"
#include "recording.h"

/// Keeps a call instead of making it (recording.cc).
void record(Recordings& recordings, void (*op)(Args&), const char* name, const Napi::CallbackInfo& info);

/// Exports `op` under `name`; the name also leads every error message of its arguments.
template <void (*op)(Args&)> void add(Napi::Env env, Napi::Object exports, const char* name) {
  auto call = [](const Napi::CallbackInfo& info) {
    const char* op_ = static_cast<const char*>(info.Data());
    try {
      Args args(info, op_);
      if (args.context().recordings.open) record(args.context().recordings, op, op_, info);
      else op(args);
    } catch (const std::bad_alloc&) {
      raise(info.Env(), "OUT_OF_MEMORY", std::string(op_) + ": there is no memory for its intermediate results");
    }
  };
  exports.Set(name, Napi::Function::New(env, call, name, const_cast<char*>(name)));
}
