// Norms. A group's values stay in the registers of its threads between the sum and the result: one read, one write.
#include "device.cuh"
#include "launch.h"
#include "norm.h"

namespace {

enum class Kind { rms, addRms, layer };

struct Norm {
  char *out, *residual;
  const char *x, *weight, *bias;
  int64_t outStride, residualStride, xStride;  // of rows, in elements
  int64_t count;                               // groups
  int groups, n, threads;                      // groups a row, elements and threads of a group
  float eps, weightOffset;
};

/// The sum over the threads of a group: `width` neighbouring lanes, or all of the block's warps.
template <bool kBlock> __device__ __forceinline__ float groupSum(float v, int width) {
  if (!kBlock) {
    for (int o = width / 2; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
  }
  __shared__ float parts[32];
  v = warpSum(v);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  __syncthreads();  // an earlier sum's parts have been read
  if (lane == 0) parts[warp] = v;
  __syncthreads();
  v = lane < warps ? parts[lane] : 0.0f;
  return warpSum(v);
}

/// Threads that a block may have at most: four vectors of 16-bit numbers need more than the 64 registers that 1,024 leave each.
template <class T, int V, bool kBlock> constexpr int kThreads = !kBlock ? 128 : V == 4 && sizeof(T) == 2 ? 512 : 1024;

/// T: the type of out, weight and bias. X: of what is normed. Thread t of a group has the vectors t, t + threads …, V of them.
template <class T, class X, Kind kind, int V, bool kBlock> __global__ void __launch_bounds__(kThreads<T, V, kBlock>) normInRegisters(const Norm p) {
  pdlTrigger();
  constexpr int K = kVec<T>;
  const int width = kBlock ? int(blockDim.x) : p.threads, t = threadIdx.x % width;
  const int vectors = p.n / K;
  const float n = float(p.n);
  Vec<T, K> w[V];
#pragma unroll
  for (int j = 0; j < V; j++)
    if (t + j * width < vectors) w[j] = reinterpret_cast<const Vec<T, K>*>(p.weight)[t + j * width];
  pdlWait();
  const int64_t group = kBlock ? int64_t(blockIdx.x) : (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / width;
  const bool here = group < p.count;
  if (kBlock && !here) return;
  const int64_t row = here ? group / p.groups : 0, first = here ? (group - row * p.groups) * p.n : 0;
  auto* out = reinterpret_cast<Vec<T, K>*>(reinterpret_cast<T*>(p.out) + row * p.outStride + first);
  auto* residual = reinterpret_cast<Vec<X, K>*>(reinterpret_cast<X*>(p.residual) + row * p.residualStride + first);

  float v[V][K];
  float sum = 0;
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int i = t + j * width;
    const bool in = here && i < vectors;
    if (kind == Kind::addRms) {
      Vec<X, K> a{};
      Vec<T, K> b{};
      if (in) {
        a = residual[i];
        b = reinterpret_cast<const Vec<T, K>*>(reinterpret_cast<const T*>(p.x) + row * p.xStride + first)[i];
      }
#pragma unroll
      for (int k = 0; k < K; k++) {
        a.v[k] = fromFloat<X>(toFloat(a.v[k]) + toFloat(b.v[k]));
        v[j][k] = toFloat(a.v[k]);
      }
      if (in) residual[i] = a;
    } else {
      Vec<X, K> a{};
      if (in) a = reinterpret_cast<const Vec<X, K>*>(reinterpret_cast<const X*>(p.x) + row * p.xStride + first)[i];
#pragma unroll
      for (int k = 0; k < K; k++) v[j][k] = toFloat(a.v[k]);
    }
#pragma unroll
    for (int k = 0; k < K; k++) sum += kind == Kind::layer ? v[j][k] : v[j][k] * v[j][k];
  }
  sum = groupSum<kBlock>(sum, width);
  float mean = 0;
  if (kind == Kind::layer) {
    mean = sum / n, sum = 0;
#pragma unroll
    for (int j = 0; j < V; j++)
#pragma unroll
      for (int k = 0; k < K; k++) {
        v[j][k] -= mean;
        if (t + j * width < vectors) sum += v[j][k] * v[j][k];
      }
    sum = groupSum<kBlock>(sum, width);
  }
  const float inverse = 1.0f / sqrtf(sum / n + p.eps);
#pragma unroll
  for (int j = 0; j < V; j++) {
    const int i = t + j * width;
    if (!here || i >= vectors) continue;
    Vec<T, K> y, b{};
    if (kind == Kind::layer && p.bias) b = reinterpret_cast<const Vec<T, K>*>(p.bias)[i];
#pragma unroll
    for (int k = 0; k < K; k++) y.v[k] = fromFloat<T>(v[j][k] * inverse * (toFloat(w[j].v[k]) + p.weightOffset) + toFloat(b.v[k]));
    out[i] = y;
  }
}

/// Any length, any alignment: a block walks its group two or three times.
template <class T, class X, Kind kind> __global__ void __launch_bounds__(1024) normByElement(const Norm p) {
  pdlTrigger();
  pdlWait();
  const int64_t group = blockIdx.x, row = group / p.groups, first = (group - row * p.groups) * p.n;
  auto* out = reinterpret_cast<T*>(p.out) + row * p.outStride + first;
  auto* residual = reinterpret_cast<X*>(p.residual) + row * p.residualStride + first;
  auto* added = reinterpret_cast<const T*>(p.x) + row * p.xStride + first;
  const X* x = kind == Kind::addRms ? residual : reinterpret_cast<const X*>(p.x) + row * p.xStride + first;
  auto* weight = reinterpret_cast<const T*>(p.weight);
  auto* bias = reinterpret_cast<const T*>(p.bias);
  const int width = int(blockDim.x);
  float sum = 0, mean = 0;
  for (int i = threadIdx.x; i < p.n; i += width) {
    if (kind == Kind::addRms) residual[i] = fromFloat<X>(toFloat(residual[i]) + toFloat(added[i]));
    const float v = toFloat(x[i]);
    sum += kind == Kind::layer ? v : v * v;
  }
  sum = groupSum<true>(sum, width);
  if (kind == Kind::layer) {
    mean = sum / float(p.n), sum = 0;
    for (int i = threadIdx.x; i < p.n; i += width) {
      const float v = toFloat(x[i]) - mean;
      sum += v * v;
    }
    sum = groupSum<true>(sum, width);
  }
  const float inverse = 1.0f / sqrtf(sum / float(p.n) + p.eps);
  for (int i = threadIdx.x; i < p.n; i += width)
    out[i] = fromFloat<T>((toFloat(x[i]) - mean) * inverse * (toFloat(weight[i]) + p.weightOffset) + (kind == Kind::layer && bias ? toFloat(bias[i]) : 0.0f));
}

template <class T, class X, Kind kind> bool aligned(const Norm& p) {
  constexpr int K = kVec<T>;
  auto fits = [&](const void* at, int64_t stride, size_t size) { return uintptr_t(at) % (K * size) == 0 && (p.count <= p.groups || stride % K == 0); };
  return p.n % K == 0 && fits(p.out, p.outStride, sizeof(T)) && fits(p.weight, 0, sizeof(T)) && fits(p.bias, 0, sizeof(T)) &&
         fits(p.residual, p.residualStride, sizeof(X)) && fits(p.x, p.xStride, kind == Kind::addRms ? sizeof(T) : sizeof(X));
}

template <class T, class X, Kind kind> void enqueue(const Context& c, const char* name, Norm p) {
  if (p.count == 0) return;
  const int vectors = p.n / kVec<T>;
  const auto blocks = dim3(unsigned(p.count));
  if (!aligned<T, X, kind>(p) || p.n > 16384) {
    int threads = 32;
    while (threads < 1024 && threads * 4 < p.n) threads *= 2;
    return launch(c, name, normByElement<T, X, kind>, blocks, dim3(unsigned(threads)), 0, p);
  }
  if (vectors <= 64 && p.count > 1) {  // part of a warp each
    p.threads = 1;
    while (p.threads < 32 && p.threads < vectors) p.threads *= 2;
    const int64_t abreast = 128 / p.threads;
    const auto grid = dim3(unsigned((p.count + abreast - 1) / abreast));
    if (vectors <= 32) return launch(c, name, normInRegisters<T, X, kind, 1, false>, grid, dim3(128), 0, p);
    return launch(c, name, normInRegisters<T, X, kind, 2, false>, grid, dim3(128), 0, p);
  }
  // A block each. Few groups: as many threads as there are vectors, which is quickest; many: more for each thread, so that blocks overlap.
  auto block = [&](int each) { return dim3(unsigned(((vectors + each - 1) / each + 31) / 32 * 32)); };
  if (vectors <= 1024 && p.count < 2 * c.sms) return launch(c, name, normInRegisters<T, X, kind, 1, true>, blocks, block(1), 0, p);
  if (vectors <= 1024) return launch(c, name, normInRegisters<T, X, kind, 2, true>, blocks, block(2), 0, p);
  launch(c, name, normInRegisters<T, X, kind, 4, true>, blocks, block(4), 0, p);
}

Norm normOf(NormShape s, Rows out, Rows residual, Rows x, const void* weight, const void* bias, float eps, float weightOffset) {
  const int64_t groups = s.n ? s.cols / s.n : 0;
  return {static_cast<char*>(out.p), static_cast<char*>(residual.p), static_cast<const char*>(x.p), static_cast<const char*>(weight),
          static_cast<const char*>(bias), out.stride, residual.stride, x.stride, s.rows * groups, int(groups), int(s.n), 0, eps, weightOffset};
}

/// Calls f with the types of out and of what is normed.
template <class F> void withTypes(DType t, DType normed, F f) {
  withFloat(t, [&](auto type) {
    if (normed == DType::f32) f(type, float{});
    else f(type, type);
  });
}

}  // namespace

void rmsNormRows(const Context& c, DType t, DType normed, NormShape s, Rows out, Rows x, const void* weight, float eps, float weightOffset) {
  withTypes(t, normed, [&](auto a, auto b) {
    enqueue<decltype(a), decltype(b), Kind::rms>(c, "rmsNorm", normOf(s, out, {}, x, weight, nullptr, eps, weightOffset));
  });
}

void addRmsNormRows(const Context& c, DType t, DType normed, NormShape s, Rows out, Rows residual, Rows x, const void* weight, float eps,
                    float weightOffset) {
  withTypes(t, normed, [&](auto a, auto b) {
    enqueue<decltype(a), decltype(b), Kind::addRms>(c, "addRmsNorm", normOf(s, out, residual, x, weight, nullptr, eps, weightOffset));
  });
}

void layerNormRows(const Context& c, DType t, NormShape s, Rows out, Rows x, const void* weight, const void* bias, float eps) {
  withFloat(t, [&](auto a) { enqueue<decltype(a), decltype(a), Kind::layer>(c, "layerNorm", normOf(s, out, {}, x, weight, bias, eps, 0)); });
}
