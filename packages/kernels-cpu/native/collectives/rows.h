// A matrix as a collective sees it: elements in order, row after row, wherever the rows lie.
#pragma once
#include <string.h>
#include "dtype.h"

struct Rows {
  char* p;
  DType dtype;
  int64_t rows, cols, stride;  // stride in elements

  int64_t elements() const { return rows * cols; }
  /// Columns [column, column + count).
  Rows columns(int64_t column, int64_t count) const { return {p + column * sizeOf(dtype), dtype, rows, count, stride}; }

  /// Calls f(address, offset, count) for the contiguous stretches of elements [from, from + n); offset counts from `from`.
  template <class F> void stretches(int64_t from, int64_t n, F f) const {
    const int64_t bytes = sizeOf(dtype);
    if (rows == 1 || stride == cols) return f(p + from * bytes, int64_t(0), n);
    int64_t row = from / cols, column = from % cols;
    for (int64_t at = 0; at < n; row++, column = 0) {
      const int64_t count = n - at < cols - column ? n - at : cols - column;
      f(p + (row * stride + column) * bytes, at, count);
      at += count;
    }
  }
  void copyTo(char* to, int64_t from, int64_t n) const {
    const int64_t bytes = sizeOf(dtype);
    stretches(from, n, [&](const char* q, int64_t at, int64_t count) { memcpy(to + at * bytes, q, size_t(count * bytes)); });
  }
  void copyFrom(const char* src, int64_t from, int64_t n) const {
    const int64_t bytes = sizeOf(dtype);
    stretches(from, n, [&](char* q, int64_t at, int64_t count) { memcpy(q, src + at * bytes, size_t(count * bytes)); });
  }
};
