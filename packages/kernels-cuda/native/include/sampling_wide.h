// The passes over rows that the first one left.
#pragma once
#include <stdint.h>

struct Context;
struct SampleArgs;

void sampleWideRows(const Context& c, const SampleArgs& args, int64_t rows);
