// Changes to single logits: penalties of tokens that a row has seen, biases and bans. A block a row; tables of a word or two for
// each token of the vocabulary, of which only the entries of listed tokens are ever set or read.
#include "device.cuh"
#include "launch.h"
#include "sampling.h"

namespace {

constexpr int kThreads = 512;

struct List {
  const int32_t* ids;
  int64_t begin, end;
};
/// Offsets that do not rise, or pass the end, are cut off.
__device__ List listOf(const TokenLists& l, int64_t row) {
  const int64_t begin = l.offsets[row], end = l.offsets[row + 1];
  return {l.ids, begin > 0 ? begin : 0, end < l.length ? end : l.length};
}
/// Calls f(id, i) for the entries of a list that name a token of the vocabulary.
template <class F> __device__ void eachEntry(const List& l, int64_t vocab, F f) {
  for (int64_t i = l.begin + threadIdx.x; i < l.end; i += blockDim.x) {
    const int32_t id = l.ids[i];
    if (id >= 0 && id < vocab) f(id, i);
  }
}

struct PenalizeArgs {
  LogitRows logits;
  PenaltyRows penalties;
  TokenLists prompt, output;
  unsigned int* seen;  // [rows, vocab]: 1 for a seen token + 2 for each time in the output
};

__global__ void __launch_bounds__(kThreads) penalize(const PenalizeArgs p) {
  pdlTrigger();
  pdlWait();
  const int64_t r = blockIdx.x, vocab = p.logits.cols;
  const float repetition = p.penalties.repetition[r], presence = p.penalties.presence[r], frequency = p.penalties.frequency[r];
  if (repetition == 1 && presence == 0 && frequency == 0) return;
  float* x = p.logits.p + r * p.logits.stride;
  unsigned int* seen = p.seen + r * vocab;
  const List prompt = listOf(p.prompt, r), output = listOf(p.output, r);
  eachEntry(prompt, vocab, [&](int32_t id, int64_t) { seen[id] = 0; });
  eachEntry(output, vocab, [&](int32_t id, int64_t) { seen[id] = 0; });
  __syncthreads();
  eachEntry(prompt, vocab, [&](int32_t id, int64_t) { atomicOr(seen + id, 1u); });
  eachEntry(output, vocab, [&](int32_t id, int64_t) { atomicAdd(seen + id, 2u); });
  __syncthreads();
  auto apply = [&](int32_t id, int64_t) {
    const unsigned int word = atomicExch(seen + id, 0u);
    if (!word) return;  // another entry of this token was first
    float v = x[id] > 0 ? x[id] / repetition : x[id] * repetition;
    if (word > 1) v = v - frequency * float(word >> 1) - presence;
    x[id] = v;
  };
  eachEntry(prompt, vocab, apply);
  eachEntry(output, vocab, apply);
}

struct AddSparseArgs {
  LogitRows logits;
  TokenLists lists;
  const float* values;
  int32_t* words;  // [rows, 2, vocab]: the entry that a token got last, the one that it gets next
};

/// Entries of one token are added in their order, one a round: the sum does not depend on the order of threads.
__global__ void __launch_bounds__(kThreads) addSparse(const AddSparseArgs p) {
  pdlTrigger();
  pdlWait();
  const int64_t r = blockIdx.x, vocab = p.logits.cols;
  float* x = p.logits.p + r * p.logits.stride;
  int32_t *last = p.words + 2 * r * vocab, *next = last + vocab;
  const List list = listOf(p.lists, r);
  eachEntry(list, vocab, [&](int32_t id, int64_t) { last[id] = -1, next[id] = 0x7fffffff; });
  __syncthreads();
  for (;;) {
    bool more = false;
    eachEntry(list, vocab, [&](int32_t id, int64_t i) {
      if (int32_t(i) > __ldcg(last + id)) atomicMin(next + id, int32_t(i)), more = true;
    });
    if (!__syncthreads_or(more)) return;
    eachEntry(list, vocab, [&](int32_t id, int64_t i) {
      if (__ldcg(next + id) != int32_t(i)) return;
      x[id] += p.values[i], last[id] = int32_t(i), next[id] = 0x7fffffff;
    });
    __syncthreads();
  }
}

/// Calls f(first row, rows) for as many rows at a time as have room in the scratch memory.
template <class F> void inPieces(int64_t rows, size_t bytesEach, F f) {
  int64_t most = int64_t(Context::kScratchBytes / bytesEach);
  if (most < 1) most = 1;
  for (int64_t r = 0; r < rows; r += most) f(r, rows - r < most ? rows - r : most);
}

}  // namespace

void penalizeRows(const Context& c, LogitRows logits, PenaltyRows penalties, TokenLists prompt, TokenLists output) {
  inPieces(logits.rows, size_t(logits.cols) * sizeof(int32_t), [&](int64_t r, int64_t rows) {
    const PenalizeArgs args{{logits.p + r * logits.stride, rows, logits.cols, logits.stride},
                            {penalties.repetition + r, penalties.presence + r, penalties.frequency + r},
                            {prompt.offsets + r, prompt.ids, prompt.length},
                            {output.offsets + r, output.ids, output.length},
                            reinterpret_cast<unsigned int*>(c.scratch)};
    launch(c, "penalize", penalize, dim3(unsigned(rows)), dim3(kThreads), 0, args);
  });
}

void addSparseRows(const Context& c, LogitRows logits, TokenLists lists, const float* values) {
  inPieces(logits.rows, size_t(logits.cols) * 2 * sizeof(int32_t), [&](int64_t r, int64_t rows) {
    const AddSparseArgs args{{logits.p + r * logits.stride, rows, logits.cols, logits.stride}, {lists.offsets + r, lists.ids, lists.length}, values,
                             reinterpret_cast<int32_t*>(c.scratch)};
    launch(c, "addSparse", addSparse, dim3(unsigned(rows)), dim3(kThreads), 0, args);
  });
}
