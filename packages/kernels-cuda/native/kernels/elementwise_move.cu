// What moves elements and computes nothing.
#include "elementwise.cuh"

namespace {

template <class T> struct Copy {
  Rows to, from;
  template <int N> __device__ __forceinline__ void at(int64_t row, int64_t col) const { storeVec(to, row, col, loadVec<T, N>(from, row, col)); }
};
template <class T> struct Fill {
  Rows to;
  T value;
  template <int N> __device__ __forceinline__ void at(int64_t row, int64_t col) const {
    Vec<T, N> v;
#pragma unroll
    for (int i = 0; i < N; i++) v.v[i] = value;
    storeVec(to, row, col, v);
  }
};
template <class T> struct Gather {
  Rows to, from;
  int64_t fromRows;
  const int32_t* index;
  template <int N> __device__ __forceinline__ void at(int64_t row, int64_t col) const {
    const int64_t source = index[row];
    Vec<T, N> v{};
    if (source >= 0 && source < fromRows) v = loadVec<T, N>(from, source, col);
    storeVec(to, row, col, v);
  }
};
struct Feed {
  int32_t* ids;
  const int32_t *last, *sources;
  int64_t lastCount;
  template <int> __device__ __forceinline__ void at(int64_t, int64_t col) const {
    const int32_t source = sources[col];
    if (source >= 0 && source < lastCount) ids[col] = last[source];
  }
};

/// Calls f with an unsigned type of so many bytes.
template <class F> void withBytes(int size, F f) {
  if (size == 1) f(uint8_t{});
  else if (size == 2) f(uint16_t{});
  else if (size == 4) f(uint32_t{});
  else f(uint64_t{});
}

}  // namespace

void copyRows(const Context& c, int size, Extent e, Rows out, Rows x) {
  withBytes(size, [&](auto type) {
    using T = decltype(type);
    Copy<T> op{out, x};
    overElements<kVec<T>>(c, "copy", op, e, {{&op.to, size}, {&op.from, size}});
  });
}

void fillRows(const Context& c, int size, Extent e, Rows out, uint32_t bits) {
  withBytes(size, [&](auto type) {
    using T = decltype(type);
    Fill<T> op{out, T(bits)};
    overElements<kVec<T>>(c, "fill", op, e, {{&op.to, size}});
  });
}

void gatherRows(const Context& c, int size, Extent e, Rows out, Rows x, int64_t xRows, const int32_t* index) {
  if (e.rows == 0 || e.cols == 0) return;
  withBytes(size, [&](auto type) {
    using T = decltype(type);
    constexpr int N = kVec<T>;
    Gather<T> op{out, x, xRows, index};
    if (rowsAligned(out.p, out.stride, e.rows, size, 16) && rowsAligned(x.p, x.stride, xRows, size, 16)) launchElements<N>(c, "gatherRows", op, e);
    else launchElements<1>(c, "gatherRows", op, e);
  });
}

void feedTokens(const Context& c, int32_t* ids, const int32_t* last, int64_t lastCount, const int32_t* sources, int64_t n) {
  if (n > 0) launchElements<1>(c, "feedTokens", Feed{ids, last, sources, lastCount}, {1, n});
}
