// Sums over ranks, on runs of n contiguous elements of type t (f32, bf16 or f16).
#pragma once
#include <stdint.h>
#include "context.h"
#include "dtype.h"

/// out[i] = parts[0][i] + parts[1][i] + …, from the left, in float32, rounded once: the same bits whoever computes it.
/// out may be one of the parts.
using ReduceKernel = void (*)(DType t, void* out, const void* const* parts, int count, int64_t n);
ReduceKernel reduceKernel(Isa isa);
