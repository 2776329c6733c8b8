#define KERNEL_NS rotary_portable
#include "rotary_impl.h"

extern const RotaryKernel rotaryPortable = rotary_portable::rotaryHeads;
