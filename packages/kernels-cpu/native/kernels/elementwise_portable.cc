#define KERNEL_NS elementwise_portable
#include "elementwise_impl.h"
