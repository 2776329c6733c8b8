// How a call of the decode kernel is cut up.
#pragma once
#include "attention_decode.h"

/// A warp's ring has so many pages at most; a block so many warps; a cluster so many blocks, which every device with clusters has.
constexpr int kMostDecodeStages = 3, kMostDecodeWarps = 8, kMostDecodeCluster = 8;

/// Shared memory that a block may have: the kernels have a little beside what the plan asks for.
inline size_t mostDecodeShared(const Context& c) { return size_t(c.sharedBytes) - 1024; }

struct DecodePlan {
  int dim;        // the kernel's head size: 64, 128, 256
  bool exact;     // both head sizes are that
  int tileHeads;  // heads that share a block: 8 or 16
  int headTiles;  // of a kv head's group
  int warps, stages;
  int cluster, groups;  // blocks of a cluster, clusters; their product is the number of splits
  bool fused, settled;
  bool late;  // the next kernel may start when a block has asked for all of its pages, not at once
  int ringBytes;
  size_t sharedBytes;
  float4* values;  // [units][groups][tileHeads · dim / 4], in scratch memory, as are
  float2* states;  // their maxima and totals
  unsigned int* counters;
};
DecodePlan planDecode(const Context& c, const AttentionCall& call);
/// With the plan's warps, stages, cluster and groups as they are, fewer warps where memory is short: sizes and places for them.
void settleDecode(const Context& c, const AttentionCall& call, DecodePlan& plan);
void attentionDecode(Context& c, const AttentionCall& call, const DecodePlan& plan);
/// Fused or not as the plan says.
void fusedDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan);

/// The common case of a fused call has a shorter kernel of its own, for the same plan.
bool usualDecodeFits(const Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan);
void usualDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan);

/// T: what is multiplied; C: the cache's elements.
template <class T, class C> void startDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan);
