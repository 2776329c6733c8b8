#define KERNEL_NS reduce_avx2
#include "reduce_impl.h"
