// The loops around the kernels of paged attention: who computes which rows, heads and pieces.
//
// A unit is a block of query rows of one sequence and kv head (a row is a token and a query head; the heads that share the
// kv head are its neighbours) and a range of pieces. A unit that holds all pieces merges them as it goes. Where there are too
// few of those to go round, a sequence's pieces are shared out: then each leaves its own sums, and a second pass merges them
// in the same order.
#include "attention.h"
#include <algorithm>
#include <cmath>
#include <vector>

const AttentionKernel& attentionKernel(Isa isa, DType cache, DType query) {
  const AttentionKernels* kernels = &attentionPortable;
#if KERNELS_X86
  if (isa == Isa::avx512bf16 && cache == DType::bf16 && query == DType::bf16) return attentionPairsAvx512Bf16;
  if (isa >= Isa::avx512) kernels = &attentionAvx512;
  else if (isa == Isa::avx2) kernels = &attentionAvx2;
#endif
  (void)isa, (void)query;
  switch (cache) {
    case DType::f32: return kernels->f32;
    case DType::bf16: return kernels->bf16;
    case DType::f8e4m3: return kernels->f8e4m3;
    case DType::f8e5m2: return kernels->f8e5m2;
    default: return kernels->f16;
  }
}

namespace {

constexpr float kLog2e = 1.44269504f;
constexpr int64_t kBlockRows = 96;      // rows that pass by a piece while it is in L2
constexpr int64_t kLeastPieces = 4;     // fewer are not worth a second pass
constexpr int kChunksPerThread = 8;     // so that the last ones even out

int64_t roundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Unit {
  int32_t sequence, head, row0, row1, piece0, piece1;
  int64_t parts;   // -1: holds all pieces; else where its sums go, in rows of all pieces
};
/// A block whose pieces were shared out.
struct Shared {
  int32_t sequence, head, row0, row1, piece0, piece1;
  int64_t parts;
};

/// Everything that does not change during a call.
struct Job {
  const AttentionCall& c;
  const AttentionKernel& kernel;
  const int64_t group = c.heads / c.cache.kvHeads;        // query heads of a kv head
  const int64_t keyUnits = c.cache.keyLines() * (kernel.pairs ? 1 : c.cache.perLane());  // dwords of a packed query row
  const int64_t width = c.cache.valuePanels() * 16;       // floats of an output row
  const int64_t stateFloats = width + 16;                 // with its maximum and total
  Scoring scoring;
  float* parts = nullptr;

  Job(const AttentionCall& c, const AttentionKernel& kernel) : c(c), kernel(kernel) {
    scoring.scale = c.scale * kLog2e;
    scoring.cap = c.softCap * kLog2e;
    scoring.capScale = c.softCap > 0 ? c.scale / c.softCap : 0;
  }

  int64_t queries(int64_t s) const { return c.queryStarts[s + 1] - c.queryStarts[s]; }
  int64_t position(int64_t s, int64_t row) const { return c.contextLengths[s] - queries(s) + row / group; }
  int64_t firstSeen(int64_t position) const { return c.window > 0 ? std::max<int64_t>(0, position - c.window + 1) : 0; }
  const char* page(int64_t s, int64_t n, int64_t head) const { return c.cache.head(c.pageTables[s * c.tableStride + n], head); }

  size_t workerBytes() const {
    return size_t(roundUp((kBlockRows * keyUnits + kMostTileRows * kPieceTokens * 2 + kMostTileRows * width + kBlockRows * stateFloats) * 4, 4096));
  }
  static RowState& stateOf(float* row, int64_t width) { return *reinterpret_cast<RowState*>(row + width); }

  /// Row `row` of the sequence as dwords, `stride` apart.
  void packRow(uint32_t* to, int64_t stride, int64_t s, int64_t head, int64_t row) const {
    const int64_t token = c.queryStarts[s] + row / group, h = head * group + row % group, n = c.cache.keyDim;
    const char* q = c.q + (token * c.qStride + h * n) * sizeOf(c.qType);
    if (kernel.pairs) {
      int64_t d = 0;
      for (; d + 2 <= n; d += 2) memcpy(to + d / 2 * stride, q + d * 2, 4);
      if (d < n) to[d / 2 * stride] = uint16_t(reinterpret_cast<const uint16_t*>(q)[d]);
      return;
    }
    for (int64_t d = 0; d < n; d++) to[d * stride] = floatToBits(loadReal(c.qType, q + d * sizeOf(c.qType)));
    for (int64_t d = n; d < keyUnits; d++) to[d * stride] = 0;
  }

  void finishRow(const float* o, const RowState& state, int64_t s, int64_t head, int64_t row) const {
    const int64_t token = c.queryStarts[s] + row / group, h = head * group + row % group;
    kernel.finish(c.out + (token * c.outStride + h * c.cache.valueDim) * sizeOf(c.outType), c.outType, o, state,
                  c.sinks ? c.sinks[h] * kLog2e : -INFINITY, c.cache.valueDim);
  }

  /// The runs of up to kPiecePages pages, and what comes after them.
  struct Runs { const char* at[kPiecePages + kSide]; };
  struct Pages { int lo, hi; };
  /// Pages of piece p that rows between two positions see.
  Pages pagesOf(int64_t p, int64_t firstPosition, int64_t lastPosition) const {
    const int64_t begin = p * kPieceTokens, from = firstSeen(firstPosition) - begin, to = lastPosition + 1 - begin;
    return {int(std::max<int64_t>(0, from / kPageTokens)), int(std::min<int64_t>(kPiecePages, (to + kPageTokens - 1) / kPageTokens))};
  }

  /// What to prefetch when a unit (or one of its pieces) is about to end: the first keys of what follows.
  void firstKeys(const char** to, const Unit& u, int64_t piece) const {
    const Pages pages = pagesOf(piece, position(u.sequence, u.row0), position(u.sequence, u.row1 - 1));
    for (int i = 0; i < kSide; i++)
      to[i] = page(u.sequence, piece * kPiecePages + std::min(pages.lo + i, pages.hi - 1), u.head);
  }

  void run(const Unit& u, const Unit* next, char* memory) const {
    uint32_t* const x = reinterpret_cast<uint32_t*>(memory);
    float* const scores = reinterpret_cast<float*>(x + roundUp(kBlockRows * keyUnits, 16));
    uint32_t* const p = reinterpret_cast<uint32_t*>(scores + kMostTileRows * kPieceTokens);
    float* const piece = reinterpret_cast<float*>(p + kMostTileRows * kPieceTokens);
    float* const sums = piece + kMostTileRows * width;

    const int64_t rows = u.row1 - u.row0, tiles = (rows + kernel.mostRows - 1) / kernel.mostRows;
    auto tileBegin = [&](int64_t t) { return u.row0 + rows * t / tiles; };
    for (int64_t t = 0; t < tiles; t++)
      for (int64_t r = tileBegin(t), end = tileBegin(t + 1), R = end - r, i = 0; i < R; i++)
        packRow(x + (r - u.row0) * keyUnits + i, R, u.sequence, u.head, r + i);

    const int64_t last = position(u.sequence, u.row1 - 1), first = position(u.sequence, u.row0);
    for (int64_t n = u.piece0; n < u.piece1; n++) {
      Runs keys, following;
      const Pages all = pagesOf(n, first, last);
      for (int i = all.lo; i < all.hi; i++) keys.at[i] = page(u.sequence, n * kPiecePages + i, u.head);
      if (n + 1 < u.piece1) firstKeys(following.at, u, n + 1);
      else if (next) firstKeys(following.at, *next, next->piece0);
      else for (int i = 0; i < kSide; i++) following.at[i] = keys.at[all.lo];

      for (int64_t t = 0; t < tiles; t++) {
        const int64_t r0 = tileBegin(t), r1 = tileBegin(t + 1);
        const Pages seen = pagesOf(n, position(u.sequence, r0), position(u.sequence, r1 - 1));
        float* const at = u.parts < 0 ? sums + (r0 - u.row0) * stateFloats
                                      : parts + (u.parts + (n - u.piece0) * rows + (r0 - u.row0)) * stateFloats;
        if (seen.lo >= seen.hi) {  // other rows of the block see it, these do not
          if (u.parts >= 0 || n == u.piece0)
            for (int64_t r = r0; r < r1; r++) stateOf(at + (r - r0) * stateFloats, width) = {-INFINITY, 0};
          continue;
        }
        if (t + 1 < tiles) {
          Runs again;
          for (int i = 0; i < kSide; i++) again.at[i] = keys.at[std::min(all.lo + i, all.hi - 1)];
          tile(u, n, r0, r1, seen, keys, again, x + (r0 - u.row0) * keyUnits, scores, p, at, piece);
        } else {
          tile(u, n, r0, r1, seen, keys, following, x + (r0 - u.row0) * keyUnits, scores, p, at, piece);
        }
      }
    }
    if (u.parts < 0)
      for (int64_t r = u.row0; r < u.row1; r++) {
        float* row = sums + (r - u.row0) * stateFloats;
        finishRow(row, stateOf(row, width), u.sequence, u.head, r);
      }
  }

  /// Rows [r0, r1) of piece n: scores, probabilities, weighted values; into `at`, through `piece` where `at` holds sums already.
  void tile(const Unit& u, int64_t n, int64_t r0, int64_t r1, Pages seen, const Runs& keys, const Runs& following, const uint32_t* x,
            float* scores, uint32_t* p, float* at, float* piece) const {
    const int R = int(r1 - r0), lo = seen.lo, hi = seen.hi;
    const CacheLayout& cache = c.cache;
    Runs k, v;
    for (int i = lo; i < hi; i++) k.at[i] = keys.at[i], v.at[i] = keys.at[i] + cache.keyBytes();
    for (int i = 0; i < kSide; i++) k.at[hi + i] = v.at[std::min(lo + i, hi - 1)];
    for (int i = lo; i < hi;) {
      const int J = std::min(kernel.pagesFor(R), hi - i);
      kernel.scoreOf(R, J)(k.at + i, k.at + i + J, cache.keyLines(), x, scores + i * kPageTokens);
      i += J;
    }
    RowState states[kMostTileRows];
    const int64_t begin = n * kPieceTokens;
    for (int r = 0; r < R; r++) {
      const int64_t pos = position(u.sequence, r0 + r), h = u.head * group + (r0 + r) % group;
      RowView view;
      view.from = int(std::max<int64_t>(0, firstSeen(pos) - begin));
      view.to = int(std::max<int64_t>(0, std::min<int64_t>(kPieceTokens, pos + 1 - begin)));
      view.slope = c.slopes ? c.slopes[h] * kLog2e : 0;
      view.offset = float(begin - pos);
      states[r] = kernel.softmax(scores + r * kPieceTokens, p + r * (kernel.pairs ? kPieceTokens / 2 : kPieceTokens), lo, hi, view, scoring);
    }
    const bool direct = u.parts >= 0 || n == u.piece0;
    const int64_t stride = direct ? stateFloats : width;
    float* const to = direct ? at : piece;
    const int64_t partCount = cache.valueParts();
    for (int64_t part = 0; part < partCount; part++) {
      const int J = int(std::min<int64_t>(kPartPanels, cache.valuePanels() - part * kPartPanels));
      for (int i = 0; i < kSide; i++)
        v.at[hi + i] = part + 1 < partCount ? v.at[std::min(lo + i, hi - 1)] + cache.partBytes() : following.at[i];
      kernel.weighOf(R, J)(v.at, lo, hi, p, to + part * kPartPanels * 16, stride);
      for (int i = lo; i < hi; i++) v.at[i] += cache.partBytes();
    }
    for (int r = 0; r < R; r++) {
      RowState& state = stateOf(at + r * stateFloats, width);
      if (direct) state = states[r];
      else kernel.merge(at + r * stateFloats, state, piece + r * width, states[r], width);
    }
  }

  void mergeShared(const Shared& s) const {
    const int64_t rows = s.row1 - s.row0;
    for (int64_t r = 0; r < rows; r++) {
      float* row = parts + (s.parts + r) * stateFloats;
      for (int64_t n = 1; n < s.piece1 - s.piece0; n++) {
        const float* other = row + n * rows * stateFloats;
        kernel.merge(row, stateOf(row, width), other, *reinterpret_cast<const RowState*>(other + width), width);
      }
      finishRow(row, stateOf(row, width), s.sequence, s.head, s.row0 + r);
    }
  }
};

}  // namespace

void pagedAttention(Context& context, const AttentionCall& call) {
  Job job(call, attentionKernel(context.isa, call.cache.dtype, call.qType));
  const int64_t chunksWanted = int64_t(kChunksPerThread) * context.pool.threads();

  // Blocks of all sequences, and what each costs: tiles times pieces.
  struct Block { int32_t sequence, row0, row1, piece0, piece1; int64_t cost; };
  std::vector<Block> blocks;
  int64_t total = 0;
  for (int64_t s = 0; s < call.sequences; s++) {
    const int64_t rows = job.queries(s) * job.group, count = (rows + kBlockRows - 1) / kBlockRows;
    for (int64_t b = 0; b < count; b++) {
      const int64_t r0 = rows * b / count, r1 = rows * (b + 1) / count;
      const int64_t p0 = job.firstSeen(job.position(s, r0)) / kPieceTokens, p1 = job.position(s, r1 - 1) / kPieceTokens + 1;
      const int64_t cost = (p1 - p0) * ((r1 - r0 + job.kernel.mostRows - 1) / job.kernel.mostRows);
      blocks.push_back({int32_t(s), int32_t(r0), int32_t(r1), int32_t(p0), int32_t(p1), cost});
      total += cost * call.cache.kvHeads;
    }
  }
  if (blocks.empty()) return;

  std::vector<Unit> units;
  std::vector<Shared> shared;
  std::vector<int64_t> costs;
  int64_t partRows = 0;
  for (const Block& b : blocks) {
    const int64_t pieces = b.piece1 - b.piece0, fair = (b.cost * chunksWanted + total - 1) / total;
    const int64_t shares = std::max<int64_t>(1, std::min(fair, pieces / kLeastPieces));
    for (int32_t h = 0; h < call.cache.kvHeads; h++) {
      if (shares == 1) {
        units.push_back({b.sequence, h, b.row0, b.row1, b.piece0, b.piece1, -1});
        costs.push_back(b.cost);
        continue;
      }
      shared.push_back({b.sequence, h, b.row0, b.row1, b.piece0, b.piece1, partRows});
      for (int64_t i = 0; i < shares; i++) {
        const int64_t p0 = pieces * i / shares, p1 = pieces * (i + 1) / shares;
        units.push_back({b.sequence, h, b.row0, b.row1, int32_t(b.piece0 + p0), int32_t(b.piece0 + p1), partRows + p0 * (b.row1 - b.row0)});
        costs.push_back(b.cost * (p1 - p0) / pieces);
      }
      partRows += pieces * (b.row1 - b.row0);
    }
  }

  // Chunks: runs of neighbouring units of about one cost.
  std::vector<int32_t> starts;
  int64_t sum = 0;
  for (size_t i = 0; i < units.size(); i++) {
    if (sum * chunksWanted >= total * int64_t(starts.size())) starts.push_back(int32_t(i));
    sum += costs[i];
  }
  starts.push_back(int32_t(units.size()));

  const size_t workerBytes = job.workerBytes();
  char* memory = static_cast<char*>(context.scratch(Context::attentionSlot, workerBytes * size_t(context.pool.threads()) +
                                                                               size_t(partRows * job.stateFloats) * 4));
  job.parts = reinterpret_cast<float*>(memory + workerBytes * size_t(context.pool.threads()));
  context.pool.run(int(starts.size()) - 1, [&](int chunk, int worker) {
    for (int32_t i = starts[size_t(chunk)]; i < starts[size_t(chunk) + 1]; i++)
      job.run(units[size_t(i)], i + 1 < int32_t(units.size()) ? &units[size_t(i) + 1] : nullptr, memory + workerBytes * size_t(worker));
  });
  if (!shared.empty())
    context.pool.run(int(shared.size()), [&](int i, int) { job.mergeShared(shared[size_t(i)]); });
}
