#define KERNEL_NS norm_avx512
#include "norm_impl.h"
