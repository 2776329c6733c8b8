#define KERNEL_NS norm_avx2
#include "norm_impl.h"
