// Our own matrix products.
#pragma once
#include "linear.h"

/// f32 arithmetic for every combination of types: what tensor cores cannot do exactly, and f32 itself.
void gemmFloat(Context& c, const LinearCall& call);

/// Few rows of x, any types, f32 arithmetic: reads the weights once for every 16 of them.
constexpr int64_t kGemvRows = 16;
void gemvFloat(Context& c, const LinearCall& call);

/// x and w both bf16 or both f16: tensor cores.
bool gemmTensorFits(const LinearCall& call);
void gemmTensor(Context& c, const LinearCall& call);

/// Copies 16-bit rows of x to scratch memory from byte `at` on, at aligned addresses; the call that reads them there.
LinearCall alignRows(Context& c, const LinearCall& call, size_t at);

/// The same by wgmma, for 9.0 and aligned rows of x.
bool gemmWgmmaFits(const Context& c, const LinearCall& call);
void gemmWgmma(Context& c, const LinearCall& call);
