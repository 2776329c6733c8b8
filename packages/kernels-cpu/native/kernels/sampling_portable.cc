#define KERNEL_NS sampling_portable
#include "sampling_impl.h"
