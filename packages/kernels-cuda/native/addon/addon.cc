// The addon's parts; each file exports the functions that its name says.
#include <napi.h>

#define PARTS(X) X(Context) X(Memory) X(Weights) X(Graph) X(Measure) X(Linear) X(FusedLinear) X(FusedNorms) X(Attention) X(Interpreter) X(Elementwise) X(Sampling) X(Collectives)

#define DECLARE(part) void Init##part(Napi::Env env, Napi::Object exports);
PARTS(DECLARE)

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
#define CALL(part) Init##part(env, exports);
  PARTS(CALL)
  return exports;
}
NODE_API_MODULE(kernels_cuda, Init)
