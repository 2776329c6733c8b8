#define KERNEL_NS norm_portable
#include "norm_impl.h"
