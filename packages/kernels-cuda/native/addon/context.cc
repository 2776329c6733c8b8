// createContext, and what CUDA devices there are.
#include "contexts.h"
#include "op.h"

void raiseCuda(Napi::Env env, const std::string& where, const CudaFailure& failure) {
  const bool memory = failure.code == cudaErrorMemoryAllocation;
  raise(env, memory ? "OUT_OF_MEMORY" : "CUDA_FAILED",
        where + ": " + failure.what + ": " + cudaGetErrorString(failure.code) + " (" + cudaGetErrorName(failure.code) + ")");
}

namespace {

/// { devices: [{ name, memory, capability }], targets, reason? }
Napi::Value Probe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto result = Napi::Object::New(env);
  auto devices = Napi::Array::New(env);
  result.Set("devices", devices);
  result.Set("targets", KERNELS_CUDA_TARGETS);  // from CMakeLists.txt
  int count = 0;
  cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) cudaGetLastError(), count = 0;
  for (int i = 0; i < count; i++) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    auto device = Napi::Object::New(env);
    device.Set("name", p.name);
    device.Set("memory", double(p.totalGlobalMem));
    device.Set("capability", p.major * 10 + p.minor);
    devices.Set(uint32_t(i), device);
  }
  if (count == 0) result.Set("reason", code == cudaSuccess ? "the driver reports no device" : cudaGetErrorString(code));
  return result;
}

/// createContext(device): a handle
Napi::Value Create(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!info[0].IsNumber()) raise(env, "BAD_OPTION", "createContext: device should be a number");
  try {
    return env.GetInstanceData<Contexts>()->add(env, std::make_unique<Context>(info[0].As<Napi::Number>().Int32Value()));
  } catch (const CudaFailure& failure) {
    raiseCuda(env, "createContext", failure);
  }
}

/// { sms, capability, sharedBytes, blas }
Napi::Value Describe(Args& a) {
  auto o = Napi::Object::New(a.env());
  const Context& c = a.context();
  o.Set("sms", c.sms);
  o.Set("capability", c.capability);
  o.Set("sharedBytes", c.sharedBytes);
  o.Set("blas", bool(c.blas));
  return o;
}

}  // namespace

void InitContext(Napi::Env env, Napi::Object exports) {
  initContexts(env, exports);
  exports.Set("probe", Napi::Function::New(env, Probe));
  exports.Set("createContext", Napi::Function::New(env, Create));
  addValue<Describe>(env, exports, "describeContext");
}
