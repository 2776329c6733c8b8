// What the interpreter's kernel reads: a list of ops in device memory, as host and device see it.
//
// Between two ops of a list an activation is stored as 64-bit words, a payload and a tag, and whoever wants it polls the words
// themselves. One 64-bit store is seen whole or not at all, so neither fence nor counter nor a second load lies between two ops.
// The tag of an op's words is the list's base plus the op's number (1 …), and no two launches on the same words have a base in
// common. What a number 0 says is in memory as usual: what kernels before the list left there.
#pragma once
#include <stdint.h>

namespace interpreter {

enum Kind : int { kProduct, kAttention };
enum Epilogue : int {
  kEndStore,     // y
  kEndResidual,  // old + y
  kEndGated,     // silu(y of row i) · (y of row i + n)
};

/// y = w · x, or w · (x / rms(x) · (g + offset)), and what `epilogue` says.
struct Product {
  const void* w;     // bf16 [n or 2n, k]
  const void* g;     // bf16 [k] or null
  const void* bias;  // bf16 [n or 2n] or null
  const void* x;     // words, a number (f32) or two (bf16) each; memory: f32 with g, else bf16
  const void* old;   // words or memory, f32 [n]
  uint64_t* words;   // result: a number a word, kEndGated two; null: nobody in the list reads it
  void* store;       // result in memory; null: nobody outside reads it
  uint32_t xOp, oldOp, op;
  int n, k;        // n: rows, or pairs of rows for kEndGated
  int each, left;  // units (rows, pairs of pairs) of a block, and how many blocks have one more
  float eps, offset;
  uint8_t epilogue, xPairs /* a word has two numbers */, storeFloat /* memory is f32, else bf16 */, nothing;
};

/// One query of a sequence: q and k are normalised and turned, k and v go into the cache, heads attend.
struct Attention {
  const uint64_t *q, *k, *v;  // words, a number each: the heads of a token together
  char* cache;                // cache_layout.h, bf16
  const void *qNorm, *kNorm;  // bf16 [D] or null
  const float* angles;        // [angleRows][D], cosines before sines
  const int32_t *position, *table, *length, *slot;
  uint64_t* words;  // two numbers each [splits][heads · D / 2]: the result, then parts; behind them [splits][heads]
  void* store;      // bf16 [heads · D] in memory or null
  uint32_t qOp, kOp, vOp, op;
  int heads, kvHeads, splits, splitPages;  // splitPages: no split for fewer
  int maxPages, pages, angleRows, angleStride;
  float eps, offset, scale;
};

struct alignas(16) Instruction {
  int kind, nothing[3];
  union {
    Product product;
    Attention attention;
    char bytes[240];
  };
};
static_assert(sizeof(Instruction) == 256, "eight bytes a lane");

/// Shared by all lists that use the same words.
struct Control {
  uint32_t base;           // tags up to here were used
  unsigned int arrivals;   // blocks that are done
};

constexpr int kConsumers = 8, kThreads = (kConsumers + 1) * 32;
/// A slot of the ring: kColumns columns of 16 rows, or of 8 pairs. Rows lie 64 bytes apart modulo 128: no bank conflicts.
constexpr int kColumns = 1024, kRowBytes = kColumns * 2 + 64, kSlotBytes = 16 * kRowBytes;
constexpr int kMostSlots = 16;
/// Tiles of 16 rows between two barriers.
constexpr int kTiles = 8;
constexpr int kMostHeadsOfGroup = 8;

/// x in shared memory is bf16; behind a norm a second plane has what the first rounded away.
inline int planeBytes(int k) { return (k * 2 + 127) / 128 * 128 + 64; }
inline int inputBytes(int k, bool norm) { return planeBytes(k) * (norm ? 2 : 1); }
/// queries, this token's key and value, its scores, the parts of eight warps
inline int attentionBytes(int dim, int group) {
  return group * (dim + 8) * 2 + 2 * dim * 4 + 64 + kConsumers * group * (dim + 4) * 4;
}

}  // namespace interpreter
