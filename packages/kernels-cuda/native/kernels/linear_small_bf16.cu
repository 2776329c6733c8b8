#include "linear_small_launch.cuh"

void launchSmallBf16(const Context& c, const SmallCall& call, const SmallLaunch& how) { launchSmall<bf16>(c, call, how); }
