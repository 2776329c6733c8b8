// The one kernel of all ops that treat elements alone: an Op says what happens to N neighbours of a row.
#pragma once
#include "device.cuh"
#include "elementwise.h"
#include "launch.h"

/// Op::at<N>(row, col) does columns [col, col + N). Threads go along a row first; rows that are left over are taken in turn.
template <int N, class Op> __global__ void __launch_bounds__(256) eachElement(const Op op, int64_t rows, int64_t cols) {
  pdlTrigger();
  pdlWait();
  const int64_t col = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (col >= cols) return;
  for (int64_t row = int64_t(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += int64_t(gridDim.y) * blockDim.y) {
    if (N == 1 || col + N <= cols) op.template at<N>(row, col);
    else
      for (int64_t i = col; i < cols; i++) op.template at<1>(row, i);
  }
}

/// Whether each row of the matrix begins at a multiple of `bytes`.
inline bool rowsAligned(const void* p, int64_t stride, int64_t rows, int size, int bytes) {
  return uintptr_t(p) % uintptr_t(bytes) == 0 && (rows <= 1 || (stride * size) % bytes == 0);
}

template <int N, class Op> void launchElements(const Context& c, const char* name, const Op& op, Extent e) {
  const int64_t vectors = (e.cols + N - 1) / N;
  unsigned along = 1;
  while (along < 256 && along < vectors) along *= 2;
  const unsigned abreast = 256 / along;
  const int64_t down = (e.rows + abreast - 1) / abreast;
  launch(c, name, eachElement<N, Op>, dim3(unsigned((vectors + along - 1) / along), unsigned(down < 65535 ? down : 65535)), dim3(along, abreast), 0,
         op, e.rows, e.cols);
}

/// Enqueues the op; `rows` are its matrices with the sizes of their elements. N neighbours at a time where all are aligned to it.
struct Operand {
  Rows* rows;
  int size;
};
template <int N, class Op, size_t count> void overElements(const Context& c, const char* name, Op& op, Extent e, const Operand (&operands)[count]) {
  if (e.rows == 0 || e.cols == 0) return;
  bool gaps = false, aligned = true;
  for (const Operand& o : operands) gaps |= e.rows > 1 && o.rows->stride != e.cols;
  if (!gaps) e = {1, e.rows * e.cols};
  for (const Operand& o : operands) aligned &= rowsAligned(o.rows->p, o.rows->stride, e.rows, o.size, o.size * N);
  if (aligned) launchElements<N>(c, name, op, e);
  else launchElements<1>(c, name, op, e);
}

template <class T, int N> __device__ __forceinline__ Vec<T, N> loadVec(const Rows& r, int64_t row, int64_t col) {
  return *reinterpret_cast<const Vec<T, N>*>(static_cast<const T*>(r.p) + row * r.stride + col);
}
template <class T, int N> __device__ __forceinline__ void storeVec(const Rows& r, int64_t row, int64_t col, const Vec<T, N>& v) {
  *reinterpret_cast<Vec<T, N>*>(static_cast<T*>(r.p) + row * r.stride + col) = v;
}
