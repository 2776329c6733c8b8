#define KERNEL_NS rotary_avx2
#include "rotary_impl.h"

extern const RotaryKernel rotaryAvx2 = rotary_avx2::rotaryHeads;
