// Conversions between packed weights and plain arrays, both in device memory.
#pragma once
#include "linear.h"

/// Rows [row, row + rows) and columns [col, col + cols) of dst from numbers of `type`: element (r, c) at r · rowStride + c · colStride.
void packConvert(Context& c, const PackedMatrix& dst, const char* src, DType type, int64_t rows, int64_t cols, int64_t rowStride, int64_t colStride,
                 int64_t row, int64_t col);
/// The same rectangle as dense f32 [rows][cols].
void unpackConvert(Context& c, float* to, const PackedMatrix& src, int64_t rows, int64_t cols, int64_t row, int64_t col);
