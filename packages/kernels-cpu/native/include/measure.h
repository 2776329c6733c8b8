// What the machine can do: the yardsticks that benchmarks hold the kernels against.
#pragma once
#include "context.h"
#include "dtype.h"

struct MeasureKernels {
  uint64_t (*read)(const char* p, size_t bytes);  // reads [p, p + bytes) in four streams
  double (*multiplyF32)(int64_t rounds);          // multiply-adds in registers; how many operations it did
};
extern const MeasureKernels measurePortable, measureAvx2, measureAvx512;
double multiplyPairsAvx512Bf16(int64_t rounds);

/// Seconds that all threads together take to read [p, p + bytes).
double readSeconds(Context& context, const char* p, size_t bytes);
/// Operations a second of all threads together on numbers of this type (bf16: f32's where they are not multiplied natively).
double operationsPerSecond(Context& context, DType type);
