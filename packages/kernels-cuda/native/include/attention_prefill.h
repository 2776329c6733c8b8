// Attention of sequences with several queries each (prompts, chunks of prompts, prompts behind a cached prefix) on tensor cores.
#pragma once
#include "attention.h"

/// bf16 and f16, queries, output and cache of one type, or a cache of 8-bit floats; heads of at most 256.
bool prefillAttentionFits(const Context& c, const AttentionCall& call);
/// Every sequence, except those of a single query if `call.skipSingle`.
void prefillAttention(Context& c, const AttentionCall& call);
