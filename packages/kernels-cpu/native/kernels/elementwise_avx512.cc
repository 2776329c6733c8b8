#define KERNEL_NS elementwise_avx512
#include "elementwise_impl.h"
