// Ops on elements and rows. Every matrix of a call has the same rows and columns; strides are in elements; out may be an input.
#pragma once
#include "context.h"
#include "dtype.h"

/// As numbered by @aphrodite/tensor's ACTIVATION_CODE.
enum class Activation : int { silu, gelu, geluTanh, relu, relu2, count };

/// A matrix whose type and size the call says.
struct Rows {
  void* p;
  int64_t stride;
};
struct Extent {
  int64_t rows, cols;
};

void addRows(const Context& c, DType t, Extent e, Rows out, Rows a, Rows b);
void scaleRows(const Context& c, DType t, Extent e, Rows out, Rows x, float factor);
void softCapRows(const Context& c, DType t, Extent e, Rows out, Rows x, float cap);
void activateRows(const Context& c, DType t, Activation f, Extent e, Rows out, Rows x);
/// out = f(gate) · up
void activateAndMulRows(const Context& c, DType t, Activation f, Extent e, Rows out, Rows gate, Rows up);
/// Between float types.
void convertRows(const Context& c, DType to, DType from, Extent e, Rows out, Rows x);

/// Elements of `size` bytes: 1, 2, 4 or 8.
void copyRows(const Context& c, int size, Extent e, Rows out, Rows x);
/// `bits`: an element's, lowest first; size 1, 2 or 4.
void fillRows(const Context& c, int size, Extent e, Rows out, uint32_t bits);
/// out row i = x row index[i]; zeros where x, of xRows, has no such row.
void gatherRows(const Context& c, int size, Extent e, Rows out, Rows x, int64_t xRows, const int32_t* index);
/// ids[i] = last[sources[i]] where 0 ≤ sources[i] < lastCount.
void feedTokens(const Context& c, int32_t* ids, const int32_t* last, int64_t lastCount, const int32_t* sources, int64_t n);
