// Our own matrix products.
#pragma once
#include "linear.h"

/// f32 arithmetic for every combination of types: what tensor cores cannot do exactly, and f32 itself.
void gemmFloat(Context& c, const LinearCall& call);

/// Few rows of x: reads the weights once for every 16 of them.
constexpr int64_t kGemvRows = 16;
void gemvFloat(Context& c, const LinearCall& call);
