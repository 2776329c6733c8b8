#define KERNEL_NS sampling_avx512
#include "sampling_impl.h"
