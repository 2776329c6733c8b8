// Which instance of a kernel a call gets. One file a weight format instantiates this.
#pragma once
#include "launch.h"
#include "linear_small_direct.cuh"
#include "linear_small_resident.cuh"

/// What the host decided besides the call.
struct SmallLaunch {
  int kind, blocks, sharedBytes;
};
bool tilesFit(const Context& c, const SmallLinear& s, const SmallPlan& plan);
void launchTiles(const Context& c, const SmallLinear& s, const SmallPlan& plan);
void launchSmallBf16(const Context& c, const SmallCall& call, const SmallLaunch& how);
void launchSmallF16(const Context& c, const SmallCall& call, const SmallLaunch& how);

template <class F> void launchSmallInstance(const Context& c, const SmallCall& call, const SmallLaunch& how) {
  const bool ring = how.kind == kResident;
  launch(c, "smallLinear", ring ? smallLinearResident<F> : smallLinearDirect<F>, dim3(how.blocks), dim3(kConsumerThreads + (ring ? 32 : 0)),
         how.sharedBytes, call);
}
template <class T> void launchSmall(const Context& c, const SmallCall& call, const SmallLaunch& how) {
  if (call.op.g) launchSmallInstance<Operand16<T, true>>(c, call, how);
  else launchSmallInstance<Operand16<T, false>>(c, call, how);
}
