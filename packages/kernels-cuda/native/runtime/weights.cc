// Weights on their way between host arrays and packed device memory, in parts that fit pinned memory.
#include <string.h>
#include "linear.h"
#include "pack.h"

namespace {

constexpr size_t kPart = size_t(8) << 20;  // bytes on the bus while the next are copied into pinned memory

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/// `pieces` stretches of `length` numbers, dense in pinned memory. Transposed: a piece is a column of the weight.
struct Part {
  int64_t pieces, length, row, col;
  bool transposed;
};

void send(Context& c, const PackedMatrix& dst, const char* pinned, DType type, const Part& a) {
  const size_t size = size_t(sizeOf(type)), bytes = size_t(a.pieces * a.length) * size;
  if (type == dst.format && !a.transposed) {
    char* to = dst.p + a.row * dst.rowBytes() + a.col * int64_t(size);
    const size_t width = size_t(a.length) * size, pitch = size_t(dst.rowBytes());
    if (width == pitch || a.pieces == 1) check(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, c.stream), "cudaMemcpyAsync");
    else check(cudaMemcpy2DAsync(to, pitch, pinned, width, width, size_t(a.pieces), cudaMemcpyHostToDevice, c.stream), "cudaMemcpy2DAsync");
    return;
  }
  check(cudaMemcpyAsync(c.scratch, pinned, bytes, cudaMemcpyHostToDevice, c.stream), "cudaMemcpyAsync");
  if (a.transposed) packConvert(c, dst, c.scratch, type, a.length, a.pieces, 1, a.length, a.row, a.col);
  else packConvert(c, dst, c.scratch, type, a.pieces, a.length, a.length, 1, a.row, a.col);
}

}  // namespace

void packWeight(Context& c, const PackedMatrix& dst, const HostMatrix& src, int64_t row, int64_t col) {
  const int64_t size = sizeOf(src.type);
  // Pieces are what lies together in the host's memory: rows, or columns, or else what one number after another makes of rows.
  const bool transposed = src.colStride != 1 && src.cols > 1 && (src.rowStride == 1 || src.rows == 1);
  const bool together = transposed || src.colStride == 1 || src.cols == 1;
  const int64_t pieces = transposed ? src.cols : src.rows, length = transposed ? src.rows : src.cols;
  const int64_t stride = transposed ? src.colStride : src.rowStride;
  const int64_t mostLength = least(length, int64_t(kPart) / size);
  const int64_t mostPieces = least(pieces, int64_t(kPart) / size / mostLength);
  for (int64_t p = 0; p < pieces; p += mostPieces)
    for (int64_t at = 0; at < length; at += mostLength) {
      Part part{least(mostPieces, pieces - p), least(mostLength, length - at), row + (transposed ? at : p), col + (transposed ? p : at), transposed};
      char* pinned = c.staging->reserve(size_t(part.pieces * part.length * size), c.stream);
      if (together) {
        c.staging->threads.copy({pinned, src.p + (p * stride + at) * size, size_t(part.length * size), size_t(part.pieces), size_t(stride * size)});
      } else {
        for (int64_t i = 0; i < part.pieces; i++)
          for (int64_t j = 0; j < part.length; j++)
            memcpy(pinned + (i * part.length + j) * size, src.p + ((p + i) * src.rowStride + (at + j) * src.colStride) * size, size_t(size));
      }
      send(c, dst, pinned, src.type, part);
    }
  // A product may fetch weights before the kernel in front of it has ended, so that kernel must not be one that writes weights.
  if (src.type != dst.format || transposed) check(cudaMemcpyAsync(c.scratch, c.staging->reserve(64, c.stream), 64, cudaMemcpyHostToDevice, c.stream), "cudaMemcpyAsync");
}

void unpackWeight(Context& c, float* to, const PackedMatrix& src) {
  const int64_t most = int64_t(Context::kScratchBytes / 4);
  const int64_t cols = least(src.k, most), rows = least(src.n, most / cols);
  float* dense = reinterpret_cast<float*>(c.scratch);
  for (int64_t r = 0; r < src.n; r += rows)
    for (int64_t k = 0; k < src.k; k += cols) {
      const int64_t nr = least(rows, src.n - r), nk = least(cols, src.k - k);
      unpackConvert(c, dense, src, nr, nk, r, k);
      check(cudaMemcpy2DAsync(to + r * src.k + k, size_t(src.k) * 4, dense, size_t(nk) * 4, size_t(nk) * 4, size_t(nr), cudaMemcpyDeviceToHost, c.stream),
            "cudaMemcpy2DAsync");
    }
  check(cudaStreamSynchronize(c.stream), "cudaStreamSynchronize");
}
