// Attention of sequences with one query, split over the context; and the same with the projection's rows taken in (norm, rotary
// embedding, cache write) in one kernel.
#pragma once
#include "attention.h"
#include "rotary.h"

/// Sequences with one query; others are left alone, so that a mixed batch takes this and a prefill kernel with skipSingle.
bool attentionDecodeFits(const Context& c, const AttentionCall& call);
void attentionDecode(Context& c, const AttentionCall& call);

/// q, k and v are raw rows; k and v go into their slots. settled: what the batch's tensors hold (lengths, tables, positions,
/// slots) was there before the first kernel of this chain of dependent launches began, so it may be read ahead of the wait.
bool fusedDecodeFits(const Context& c, const AttentionCall& call, const QkvCall& qkv);
void fusedDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, bool settled);
