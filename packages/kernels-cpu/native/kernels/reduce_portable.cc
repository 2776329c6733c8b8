#define KERNEL_NS reduce_portable
#include "reduce_impl.h"
