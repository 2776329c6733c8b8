// readSeconds(context, address, bytes), operationsPerSecond(context, dtype): numbers.
#include "measure.h"
#include "op.h"

namespace {

Napi::Value ReadSeconds(Args& a) {
  double p = a.number("address");
  int64_t bytes = a.size("bytes");
  const char* from = a.address("address", p, DType::u8, bytes);
  a.require(!a.context().capturing, "nothing can be measured while a graph is captured");
  return Napi::Number::New(a.env(), readSeconds(a.context(), from, size_t(bytes)));
}

Napi::Value OperationsPerSecond(Args& a) {
  DType type = a.dtype("dtype");
  a.require(isFloat(type), "dtype should be f32, f16 or bf16");
  a.require(!a.context().capturing, "nothing can be measured while a graph is captured");
  return Napi::Number::New(a.env(), operationsPerSecond(a.context(), type));
}

}  // namespace

void InitMeasure(Napi::Env env, Napi::Object exports) {
  addValue<ReadSeconds>(env, exports, "readSeconds");
  addValue<OperationsPerSecond>(env, exports, "operationsPerSecond");
}
