// The numbers of fused calls, for whoever else takes them.
#pragma once
#include "args.h"
#include "attention.h"
#include "linear_small.h"
#include "rotary.h"

/// fusedLinear's.
SmallLinear fusedLinearCall(Args& a);

struct FusedAttentionCall {
  AttentionCall attention;
  QkvCall qkv;
};
/// fusedAttention's.
FusedAttentionCall fusedAttentionCall(Args& a);
