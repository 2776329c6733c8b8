// What the device can do: the yardsticks that benchmarks hold the kernels against. These wait for the device.
#pragma once
#include "context.h"
#include "dtype.h"

/// Seconds in which the device reads [p, p + bytes): the quickest of a few launch shapes.
double readSeconds(const Context& context, const char* p, size_t bytes);
/// Operations a second (a multiplication and an addition count two) in registers alone: bf16 and f16 on tensor cores by mma.sync,
/// f32 by fused multiply-add.
double operationsPerSecond(const Context& context, DType type);
