#define KERNEL_NS sampling_avx2
#include "sampling_impl.h"
