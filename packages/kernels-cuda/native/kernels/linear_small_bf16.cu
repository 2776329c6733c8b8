#include "linear_small_launch.cuh"

void launchSmallBf16(const Context& c, const SmallCall& call, const SmallLaunch& how) { launchSmall(c, smallKernel<bf16>(call, how), call, how); }
int mostClustersBf16(const SmallCall& call, const SmallLaunch& how) { return mostSmallClusters(smallKernel<bf16>(call, how), call, how); }
