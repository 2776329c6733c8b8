#include "args.h"

void InitLinear(Napi::Env, Napi::Object) {}
