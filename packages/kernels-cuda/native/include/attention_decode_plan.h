// How a call of the decode kernel is cut up.
#pragma once
#include "attention_decode.h"

/// A warp's ring has so many pages; a block so many warps; clusters so many blocks, which every device with clusters has.
constexpr int kDecodeStages = 3, kMostDecodeWarps = 8, kMostDecodeCluster = 8;

struct DecodePlan {
  int dim;        // the kernel's head size: 64, 128, 256
  bool exact;     // both head sizes are that
  int tileHeads;  // heads that share a block: 8 or 16
  int headTiles;  // of a kv head's group
  int warps;
  int cluster, groups;  // blocks of a cluster, clusters; their product is the number of splits
  bool fused, settled;
  int ringBytes;
  size_t sharedBytes;
  float* sums;  // [units][groups][tileHeads · dim], in scratch memory
  float2* states;
  unsigned int* counters;
};
DecodePlan planDecode(const Context& c, const AttentionCall& call);
/// With the plan's warps, cluster and groups as they are: sizes and places for them.
void settleDecode(const Context& c, const AttentionCall& call, DecodePlan& plan);
void attentionDecode(Context& c, const AttentionCall& call, const DecodePlan& plan);
void fusedDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan);

template <class T> void startDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, const DecodePlan& plan);
