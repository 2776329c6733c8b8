// Conversions between packed weights and plain arrays.
#include <cuda_fp8.h>
#include "device.cuh"
#include "launch.h"
#include "pack.h"

namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float toFloat(double v) { return float(v); }
__device__ __forceinline__ float toFloat(__nv_fp8_e4m3 v) { return float(v); }
__device__ __forceinline__ float toFloat(__nv_fp8_e5m2 v) { return float(v); }
using ::toFloat;

struct Place {
  int64_t rows, cols, rowStride, colStride;  // of the source
  int64_t pitch;                             // elements between rows of the destination
};

/// Threads follow a row of the destination.
template <class To, class From> __global__ void __launch_bounds__(kThreads) convertKernel(To* to, const From* from, Place a) {
  pdlTrigger();
  pdlWait();
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < a.rows * a.cols; i += int64_t(gridDim.x) * kThreads) {
    const int64_t r = i / a.cols, c = i % a.cols;
    to[r * a.pitch + c] = fromFloat<To>(toFloat(from[r * a.rowStride + c * a.colStride]));
  }
}

template <class To, class From> void convert(Context& c, const char* name, To* to, const From* from, const Place& a) {
  const int64_t blocks = (a.rows * a.cols + kThreads - 1) / kThreads, most = int64_t(c.sms) * 16;
  launch(c, name, convertKernel<To, From>, dim3(unsigned(blocks < most ? blocks : most)), dim3(kThreads), 0, to, from, a);
}

template <class F> void withReal(DType t, F f) {
  if (t == DType::f64) f(double{});
  else if (t == DType::f8e4m3) f(__nv_fp8_e4m3{});
  else if (t == DType::f8e5m2) f(__nv_fp8_e5m2{});
  else withFloat(t, f);
}

}  // namespace

void packConvert(Context& c, const PackedMatrix& dst, const char* src, DType type, int64_t rows, int64_t cols, int64_t rowStride, int64_t colStride,
                 int64_t row, int64_t col) {
  withFloat(dst.format, [&](auto to) {
    using To = decltype(to);
    withReal(type, [&](auto from) {
      convert(c, "pack", reinterpret_cast<To*>(dst.p) + row * dst.kp() + col, reinterpret_cast<const decltype(from)*>(src),
              {rows, cols, rowStride, colStride, dst.kp()});
    });
  });
}

void unpackConvert(Context& c, float* to, const PackedMatrix& src, int64_t rows, int64_t cols, int64_t row, int64_t col) {
  withFloat(src.format, [&](auto from) {
    convert(c, "unpack", to, reinterpret_cast<const decltype(from)*>(src.p) + row * src.kp() + col, {rows, cols, src.kp(), 1, cols});
  });
}
