// Attention of sequences with one query: the kernels are not here yet, so every call takes the generic one.
#include "attention_decode.h"

bool attentionDecodeFits(const Context&, const AttentionCall&) { return false; }
void attentionDecode(Context& c, const AttentionCall& call) { attentionGeneric(c, call); }
bool fusedDecodeFits(const Context&, const AttentionCall&, const QkvCall&) { return false; }
void fusedDecode(Context& c, const AttentionCall& call, const QkvCall& qkv, bool) {
  qkvRows(c, qkv);
  attentionGeneric(c, call);
}
