#include "op.h"
#include "measure.h"

/// readSeconds(context, address, bytes), operationsPerSecond(context, dtype): numbers.
static Napi::Value ReadSeconds(const Napi::CallbackInfo& info) {
  Args a(info, "measureReadBandwidth");
  double p = a.number("address");
  int64_t bytes = a.size("bytes");
  return Napi::Number::New(info.Env(), readSeconds(a.context(), a.address("address", p, DType::u8, bytes), size_t(bytes)));
}
static Napi::Value OperationsPerSecond(const Napi::CallbackInfo& info) {
  Args a(info, "measurePeak");
  return Napi::Number::New(info.Env(), operationsPerSecond(a.context(), a.dtype("dtype")));
}

void InitMeasure(Napi::Env env, Napi::Object exports) {
  exports.Set("readSeconds", Napi::Function::New(env, ReadSeconds));
  exports.Set("operationsPerSecond", Napi::Function::New(env, OperationsPerSecond));
}
