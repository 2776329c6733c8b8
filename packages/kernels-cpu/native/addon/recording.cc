// beginRecording, endRecording, replay, releaseRecording.
//
// A recorded op keeps its numbers and nothing else: the memory that they point at is read when it is replayed, so one
// recording serves every step whose tensors lie at the same addresses. Each op checks its numbers again at every replay.
#include "recording.h"
#include <new>
#include "op.h"

void record(Recordings& recordings, void (*op)(Args&), const char* name, const Napi::CallbackInfo& info) {
  Recording& r = *recordings.open;
  const size_t first = r.numbers.size();
  for (size_t i = 1; i < info.Length(); i++) {
    double v;
    if (napi_get_value_double(info.Env(), info[i], &v) != napi_ok) {
      r.numbers.resize(first);
      raise(info.Env(), "BAD_ARGUMENT", std::string(name) + ": it moves data of the host, which cannot be recorded");
    }
    r.numbers.push_back(v);
  }
  r.calls.push_back({op, name, first, r.numbers.size() - first});
}

namespace {

/// The context of a call that is not an op: these are never recorded themselves.
template <class F> Napi::Value with(const Napi::CallbackInfo& info, const char* name, F f) {
  Args a(info, name);
  return f(a, a.context().recordings);
}

Napi::Value Begin(const Napi::CallbackInfo& info) {
  return with(info, "beginRecording", [&](Args& a, Recordings& r) {
    a.require(!r.open, "a recording is being made already");
    r.open = std::make_unique<Recording>();
    return info.Env().Undefined();
  });
}

/// endRecording(context, keep): a handle; 0 for one that is thrown away.
Napi::Value End(const Napi::CallbackInfo& info) {
  return with(info, "endRecording", [&](Args& a, Recordings& r) -> Napi::Value {
    const bool keep = a.flag("keep");
    a.require(bool(r.open), "no recording is being made");
    auto recording = std::move(r.open);
    if (!keep) return Napi::Number::New(info.Env(), 0);
    r.made[r.next] = std::move(recording);
    return Napi::Number::New(info.Env(), r.next++);
  });
}

Napi::Value Replay(const Napi::CallbackInfo& info) {
  return with(info, "replay", [&](Args& a, Recordings& r) {
    auto found = r.made.find(a.number("recording"));
    a.require(found != r.made.end(), "there is no such recording");
    a.require(!r.open, "a recording is being made");
    const Recording& recording = *found->second;
    for (const auto& call : recording.calls) {
      Args args(info.Env(), a.context(), call.name, recording.numbers.data() + call.first, call.count);
      try {
        call.op(args);
      } catch (const std::bad_alloc&) {
        raise(info.Env(), "OUT_OF_MEMORY", std::string(call.name) + ": there is no memory for its intermediate results");
      }
    }
    return info.Env().Undefined();
  });
}

Napi::Value Release(const Napi::CallbackInfo& info) {
  return with(info, "releaseRecording", [&](Args& a, Recordings& r) {
    r.made.erase(a.number("recording"));
    return info.Env().Undefined();
  });
}

}  // namespace

void InitRecording(Napi::Env env, Napi::Object exports) {
  exports.Set("beginRecording", Napi::Function::New(env, Begin));
  exports.Set("endRecording", Napi::Function::New(env, End));
  exports.Set("replay", Napi::Function::New(env, Replay));
  exports.Set("releaseRecording", Napi::Function::New(env, Release));
}
