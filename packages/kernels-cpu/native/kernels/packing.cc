// Weights into panels and out of them, and rows of a packed table.
#include <algorithm>
#include "linear.h"

namespace {

/// Where one number is.
char* place(const PackedMatrix& w, int64_t row, int64_t col) {
  const int64_t lane = row % kPanel;
  char* panel = w.p + size_t(row / kPanel) * w.panelBytes();
  if (w.format == DType::f32) return panel + (col * kPanel + lane) * 4;
  char* step = panel + col / 2 * kStepBytes;
  return w.format == DType::bf16 ? step + lane * 4 + col % 2 * 2 : step + col % 2 * 32 + lane * 2;
}

/// Sixteen rows of dwords (in the weight's format, `stride` bytes apart) into `steps` steps.
void interleave(char* to, DType format, const char* from, int64_t stride, int64_t steps) {
  if (format == DType::f16) {
    for (int64_t u = 0; u < steps; u++, to += kStepBytes)
      for (int i = 0; i < kPanel; i++) {
        memcpy(to + 2 * i, from + i * stride + 4 * u, 2);
        memcpy(to + 32 + 2 * i, from + i * stride + 4 * u + 2, 2);
      }
    return;
  }
  for (int64_t u = 0; u < steps; u++, to += kStepBytes)
    for (int i = 0; i < kPanel; i++) memcpy(to + 4 * i, from + i * stride + 4 * u, 4);
}

struct Packer {
  const PackedMatrix& dst;
  const HostMatrix& src;
  const RowKernels& rowsOf;
  const int64_t row, col;
  const int64_t bytes = sizeOf(src.type), out = sizeOf(dst.format);

  const char* from(int64_t r, int64_t c) const { return src.p + (r * src.rowStride + c * src.colStride) * bytes; }

  /// Any rectangle of src, number by number.
  void slow(int64_t r0, int64_t r1, int64_t c0, int64_t c1) const {
    for (int64_t r = r0; r < r1; r++)
      for (int64_t c = c0; c < c1; c++) {
        char* to = place(dst, row + r, col + c);
        if (src.type == dst.format) memcpy(to, from(r, c), size_t(out));
        else storeFloat(dst.format, to, loadReal(src.type, from(r, c)));
      }
  }

  /// Sixteen contiguous rows of src that fill a panel, columns [c0, c1) that fill steps.
  void fast(int64_t r0, int64_t c0, int64_t c1) const {
    const int64_t K = stepOf(dst.format);
    char* to = place(dst, row + r0, col + c0);
    if (src.type == dst.format) {
      if (dst.format == DType::f16) interleave(to, dst.format, from(r0, c0), src.rowStride * bytes, (c1 - c0) / K);
      else rowsOf.packRows(reinterpret_cast<uint32_t*>(to), from(r0, c0), dst.format, src.rowStride * bytes, c1 - c0, (c1 - c0) / K, kPanel, K == 2);
      return;
    }
    constexpr int64_t kRun = 256;
    alignas(64) float floats[kRun];
    alignas(64) char run[kPanel][kRun * 4];
    for (int64_t c = c0; c < c1; c += kRun, to += kRun / K * kStepBytes) {
      const int64_t n = std::min(kRun, c1 - c);
      for (int i = 0; i < kPanel; i++) {
        const char* p = from(r0 + i, c);
        if (isFloat(src.type)) rowsOf.toFloat(floats, p, src.type, n);
        else for (int64_t e = 0; e < n; e++) floats[e] = loadReal(src.type, p + e * bytes);
        rowsOf.fromFloat(run[i], dst.format, floats, n);
      }
      if (dst.format == DType::f16) interleave(to, dst.format, run[0], sizeof run[0], n / K);
      else rowsOf.packRows(reinterpret_cast<uint32_t*>(to), run[0], dst.format, sizeof run[0], n, n / K, kPanel, K == 2);
    }
  }
};

}  // namespace

void packWeight(Context& context, const PackedMatrix& dst, const HostMatrix& src, int64_t row, int64_t col) {
  const Packer packer{dst, src, rowKernels(context.isa), row, col};
  const int64_t K = stepOf(dst.format), first = row / kPanel, last = (row + src.rows + kPanel - 1) / kPanel;
  const bool contiguous = src.colStride == 1;
  // Columns that fill steps: all of them, when src reaches the end of k only their last number is alone in its step.
  const int64_t c0 = std::min(src.cols, (K - col % K) % K), c1 = std::max(c0, c0 + (src.cols - c0) / K * K);
  // A chunk is some panels: about 256 KB of src.
  const int64_t per = std::max<int64_t>(1, (1 << 18) / std::max<int64_t>(1, kPanel * src.cols * sizeOf(src.type)));
  context.pool.run(int((last - first + per - 1) / per), [&](int chunk, int) {
    const int64_t p0 = first + chunk * per, p1 = std::min(last, p0 + per);
    for (int64_t p = p0; p < p1; p++) {
      const int64_t r0 = std::max<int64_t>(0, p * kPanel - row), r1 = std::min(src.rows, (p + 1) * kPanel - row);
      if (!contiguous || r1 - r0 < kPanel) {
        packer.slow(r0, r1, 0, src.cols);
        continue;
      }
      packer.slow(r0, r1, 0, c0);
      packer.fast(r0, c0, c1);
      packer.slow(r0, r1, c1, src.cols);
    }
  });
}

void unpackWeight(Context& context, float* dst, const PackedMatrix& src) {
  context.pool.run(int((src.panels() + 7) / 8), [&](int chunk, int) {
    for (int64_t r = chunk * int64_t(8) * kPanel; r < std::min(src.n, (chunk + int64_t(1)) * 8 * kPanel); r++)
      for (int64_t c = 0; c < src.k; c++) dst[r * src.k + c] = loadReal(src.format, place(src, r, c));
  });
}

void embedding(Context& context, char* out, DType type, int64_t stride, const int32_t* ids, int64_t m, const PackedMatrix& table, int64_t first) {
  constexpr int64_t kRun = 256;  // numbers of a row that a thread gathers at a time
  const RowKernels& rowsOf = rowKernels(context.isa);
  const int64_t runs = (table.k + kRun - 1) / kRun, K = stepOf(table.format), bytes = sizeOf(type);
  // A decode step's single row is worth sharing (64 bytes of memory a step); a chunk is at least that one's eighth.
  const int64_t perChunk = m >= 8 ? runs : std::max<int64_t>(1, (runs + 7) / 8), pieces = (runs + perChunk - 1) / perChunk;
  context.pool.run(int(m * pieces), [&](int chunk, int) {
    const int64_t i = chunk / pieces, id = ids[i] - first;
    char* to = out + i * stride * bytes;
    const int64_t begin = chunk % pieces * perChunk * kRun, end = std::min(table.k, begin + perChunk * kRun);
    if (id < 0 || id >= table.n) {
      memset(to + begin * bytes, 0, size_t((end - begin) * bytes));
      return;
    }
    for (int64_t c = begin; c < end; c += kRun) {
      const int64_t n = std::min(kRun, end - c);
      alignas(64) uint32_t run[kRun];
      alignas(64) float floats[kRun];
      const char* p = place(table, id, c);
      if (table.format == DType::f16) {
        for (int64_t e = 0; e < n; e += 2, p += kStepBytes) {
          __builtin_prefetch(p + 16 * kStepBytes);
          memcpy(reinterpret_cast<char*>(run) + 2 * e, p, 2);
          memcpy(reinterpret_cast<char*>(run) + 2 * e + 2, p + 32, 2);
        }
      } else {
        for (int64_t u = 0; u < (n + K - 1) / K; u++, p += kStepBytes) {
          __builtin_prefetch(p + 16 * kStepBytes);
          memcpy(run + u, p, 4);
        }
      }
      if (table.format == type) {
        memcpy(to + c * bytes, run, size_t(n * bytes));
        continue;
      }
      rowsOf.toFloat(floats, reinterpret_cast<const char*>(run), table.format, n);
      rowsOf.fromFloat(to + c * bytes, type, floats, n);
    }
  });
}
