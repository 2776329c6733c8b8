// The addon's parts; each file exports the functions that its name says.
#include <napi.h>

void InitContext(Napi::Env env, Napi::Object exports);
void InitMemory(Napi::Env env, Napi::Object exports);
void InitLinear(Napi::Env env, Napi::Object exports);
void InitMeasure(Napi::Env env, Napi::Object exports);
void InitRecording(Napi::Env env, Napi::Object exports);
void InitAttention(Napi::Env env, Napi::Object exports);
void InitElementwise(Napi::Env env, Napi::Object exports);
void InitSampling(Napi::Env env, Napi::Object exports);
void InitCollectives(Napi::Env env, Napi::Object exports);

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  InitContext(env, exports);
  InitMemory(env, exports);
  InitLinear(env, exports);
  InitMeasure(env, exports);
  InitRecording(env, exports);
  InitAttention(env, exports);
  InitElementwise(env, exports);
  InitSampling(env, exports);
  InitCollectives(env, exports);
  return exports;
}
NODE_API_MODULE(kernels_cpu, Init)
