#define KERNEL_NS reduce_avx512
#include "reduce_impl.h"
