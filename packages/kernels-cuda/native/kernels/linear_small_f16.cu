#include "linear_small_launch.cuh"

void launchSmallF16(const Context& c, const SmallCall& call, const SmallLaunch& how) { launchSmall(c, smallKernel<f16>(call, how), call, how); }
int mostClustersF16(const SmallCall& call, const SmallLaunch& how) { return mostSmallClusters(smallKernel<f16>(call, how), call, how); }
