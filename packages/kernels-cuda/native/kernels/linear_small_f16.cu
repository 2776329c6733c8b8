#include "linear_small_launch.cuh"

void launchSmallF16(const Context& c, const SmallCall& call, const SmallLaunch& how) { launchSmall<f16>(c, call, how); }
