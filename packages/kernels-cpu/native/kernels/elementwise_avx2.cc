#define KERNEL_NS elementwise_avx2
#include "elementwise_impl.h"
