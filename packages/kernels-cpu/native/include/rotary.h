// Rotary embeddings: what a kernel file offers.
#pragma once
#include "context.h"
#include "dtype.h"

/// Turns `heads` heads of `dim` numbers of one token, which are neighbours, in place. table: cos of half the rotary
/// dimensions, then sin. Dimensions from 2 · half on stay as they are.
using RotaryKernel = void (*)(DType type, char* x, int64_t heads, int64_t dim, const float* table, int64_t half, bool interleaved);

extern const RotaryKernel rotaryPortable, rotaryAvx2, rotaryAvx512;
const RotaryKernel& rotaryKernel(Isa isa);

struct RotaryCall {
  struct Side {
    char* p;
    DType type;
    int64_t stride, heads, dim;  // elements between tokens
  } sides[2];
  int64_t tokens;
  const int32_t* positions;
  const float* table;
  int64_t tableStride, half;
  bool interleaved;
  const int32_t* selector;  // or null
  int64_t bound, secondHalf;
  /// The table's row of a token.
  int64_t row(int64_t t) const { return positions[t] + (selector && selector[t] > bound ? secondHalf : 0); }
};
/// The caller has checked that every token's row is in the table.
void rotary(Context& context, const RotaryCall& call);
