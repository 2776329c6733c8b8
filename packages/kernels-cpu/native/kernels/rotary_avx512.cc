#define KERNEL_NS rotary_avx512
#include "rotary_impl.h"

extern const RotaryKernel rotaryAvx512 = rotary_avx512::rotaryHeads;
