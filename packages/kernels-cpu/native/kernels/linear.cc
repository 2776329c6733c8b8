// The loops around every kernel of the linear layer: how rows, panels and k are cut, and who computes what.
#include "linear.h"
#include <algorithm>

const RowKernels& rowKernels(Isa isa) {
#if KERNELS_X86
  if (isa >= Isa::avx512) return rowsAvx512;
  if (isa == Isa::avx2) return rowsAvx2;
#endif
  (void)isa;
  return rowsPortable;
}

const LinearKernel& linearKernel(Isa isa, DType format, DType x) {
#if KERNELS_X86
  if (isa == Isa::avx512bf16 && format == DType::bf16 && x == DType::bf16) return linearPairsAvx512Bf16;
  if (isa >= Isa::avx512) return format == DType::f32 ? linearF32Avx512 : format == DType::bf16 ? linearBf16Avx512 : linearF16Avx512;
  if (isa == Isa::avx2) return format == DType::f32 ? linearF32Avx2 : format == DType::bf16 ? linearBf16Avx2 : linearF16Avx2;
#endif
  (void)isa, (void)x;
  return format == DType::f32 ? linearF32Portable : format == DType::bf16 ? linearBf16Portable : linearF16Portable;
}

namespace {

// Measured on Zen 5 with 2 threads; the bytes are of one panel unless they say otherwise.
constexpr int64_t kAheadOne = 1024;   // how far ahead one row prefetches, and
constexpr int64_t kAhead = 1536;      // one block of more rows
constexpr int64_t kBlockTwo = 5120;   // a k block when two row blocks stream: the second finds it in L1
constexpr int64_t kChunk = 1 << 20;   // weights, of all its panels, that a thread claims at a time
constexpr int64_t kBigRows = 128;     // prefill: rows, and
constexpr int64_t kBigBlock = 65536;  // bytes of a panel, of a block that stays in L2
constexpr int64_t kBigGroups = 8;     // groups of panels that pass it by

/// m rows as blocks of nearly equal height, J panels wide.
struct Rows {
  int64_t m, blocks;
  int J;
  Rows(int64_t m, const LinearKernel& kernel) : m(m) {
    // One block as long as three panels fit side by side; two wide ones up to 18 rows; then blocks as tall as they can be.
    const int wide = kernel.mostTile / 3;
    blocks = m <= wide ? 1 : m <= 2 * wide ? 2 : (m + kernel.mostRows - 1) / kernel.mostRows;
    J = kernel.panelsFor(int(tallest()));
  }
  int64_t begin(int64_t b) const { return m * b / blocks; }
  int64_t tallest() const { return (m + blocks - 1) / blocks; }
  /// Up to two blocks weights are streamed; above, rows are blocked.
  bool stream() const { return blocks <= 2; }
};

struct Job {
  const LinearKernel& kernel;
  const PackedMatrix& w;
  const uint32_t* x;  // packed rows
  const Rows rows;
  const LinearOut& out;
  const int64_t steps = w.steps(), panels = w.panels(), unitsPerStep = kernel.pairs ? 1 : stepOf(w.format);
  const size_t panelBytes = w.panelBytes();

  /// Panels [p, p + j) x steps [u0, u0 + un) x row blocks [b0, b1); every pass prefetches its share of what is `ahead`.
  void block(int64_t b0, int64_t b1, int64_t p, int j, int64_t u0, int64_t un, float*& tile, const char* ahead) const {
    const int perPass = int((j + b1 - b0 - 1) / (b1 - b0));
    for (int64_t b = b0; b < b1; b++) {
      const int64_t r0 = rows.begin(b), at = (b - b0) * perPass;
      const int R = int(rows.begin(b + 1) - r0), f = ahead ? int(std::max<int64_t>(0, std::min<int64_t>(perPass, j - at))) : 0;
      kernel.micro(R, j, f)(w.p + size_t(p) * panelBytes + size_t(u0) * kStepBytes, panelBytes,
                            x + (r0 * steps + u0 * R) * unitsPerStep, un, tile, u0 == 0, u0 + un == steps, out, r0, p * kPanel,
                            ahead + size_t(at) * panelBytes);
      tile += R * j * kPanel;
    }
  }

  /// Few rows: weights come from memory once. Group after group of J panels, all of k inside.
  void stream(int64_t p0, int64_t p1, float* tiles) const {
    const int64_t D = (rows.blocks > 1 ? kBlockTwo : rows.m > 1 ? kAhead : kAheadOne) / kStepBytes;
    for (int64_t p = p0; p < p1; p += rows.J) {
      const int j = int(std::min<int64_t>(rows.J, p1 - p));
      const char* here = w.p + size_t(p) * panelBytes;
      const char* next = p + 2 * rows.J <= p1 ? here + size_t(rows.J) * panelBytes : nullptr;  // the next group, if whole and ours
      for (int64_t u0 = 0; u0 < steps;) {
        const int64_t un = rows.blocks > 1 || u0 + D >= steps ? std::min(D, steps - u0) : steps - D - u0;
        float* tile = tiles;
        block(0, rows.blocks, p, j, u0, un, tile, u0 + un < steps ? here + size_t(u0 + D) * kStepBytes : next);
        u0 += un;
      }
    }
  }

  /// Many rows: a block of rows x k stays in L2 while the chunk's panels pass by.
  void big(int64_t b0, int64_t b1, int64_t p0, int64_t p1, float* tiles) const {
    const int64_t un0 = std::max<int64_t>(1, kBigBlock / kStepBytes / unitsPerStep);
    for (int64_t u0 = 0; u0 < steps; u0 += un0) {
      const int64_t un = std::min(un0, steps - u0);
      float* tile = tiles;
      for (int64_t p = p0; p < p1; p += rows.J) {
        const char* next = p + 2 * rows.J <= p1 ? w.p + size_t(p + rows.J) * panelBytes + size_t(u0) * kStepBytes : nullptr;
        block(b0, b1, p, int(std::min<int64_t>(rows.J, p1 - p)), u0, un, tile, next);
      }
    }
  }
};

}  // namespace

void linear(Context& context, const LinearOut& out, const char* x, DType xType, int64_t xStride, int64_t m, const PackedMatrix& weight) {
  const LinearKernel& kernel = linearKernel(context.isa, weight.format, xType);
  const RowKernels& rowsOf = rowKernels(context.isa);
  const Rows rows(m, kernel);
  const int64_t steps = weight.steps(), units = steps * (kernel.pairs ? 1 : stepOf(weight.format)), xBytes = xStride * sizeOf(xType);
  const uint32_t* packed = reinterpret_cast<const uint32_t*>(x);
  const bool asIs = m == 1 && weight.k % stepOf(weight.format) == 0 && (kernel.pairs || xType == DType::f32);
  if (!asIs) {
    uint32_t* to = static_cast<uint32_t*>(context.scratch(Context::rowsSlot, size_t(m * units) * 4));
    packed = to;
    context.pool.run(int(rows.blocks), [&](int b, int) {
      const int64_t r0 = rows.begin(b);
      rowsOf.packRows(to + r0 * units, x + r0 * xBytes, xType, xBytes, weight.k, units, int(rows.begin(b + 1) - r0), kernel.pairs);
    });
  }

  const Job job{kernel, weight, packed, rows, out};
  const int J = rows.J;
  const int64_t panels = weight.panels(), groups = (panels + J - 1) / J;
  const int threads = context.pool.threads();
  // What waits between k blocks: a chunk's sums.
  const size_t tileFloats = size_t(rows.stream() ? m * J : std::max(kBigRows, rows.tallest()) * kBigGroups * J) * kPanel;
  float* const tiles = static_cast<float*>(context.scratch(Context::tilesSlot, tileFloats * 4 * size_t(threads)));
  if (rows.stream()) {
    int64_t per = std::max<int64_t>(1, kChunk / int64_t(size_t(J) * job.panelBytes));
    per = std::min(per, std::max<int64_t>(1, groups / (8 * threads)));  // the last chunks even out
    context.pool.run(int((groups + per - 1) / per), [&](int c, int worker) {
      const int64_t p0 = c * per * J;
      job.stream(p0, std::min(panels, p0 + per * J), tiles + size_t(worker) * tileFloats);
    });
  } else {
    const int64_t perM = std::max<int64_t>(1, kBigRows / rows.tallest()), parts = (rows.blocks + perM - 1) / perM;
    const int64_t per = std::max<int64_t>(1, std::min(kBigGroups, groups * parts / (4 * threads))), columns = (groups + per - 1) / per;
    context.pool.run(int(parts * columns), [&](int c, int worker) {
      const int64_t b0 = c / columns * perM, g = c % columns * per;
      job.big(b0, std::min(rows.blocks, b0 + perM), g * J, std::min(panels, (g + per) * J), tiles + size_t(worker) * tileFloats);
    });
  }
}
