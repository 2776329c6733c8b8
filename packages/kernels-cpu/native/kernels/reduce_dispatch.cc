#include "reduce.h"

namespace reduce_portable { extern const ReduceKernel kReduce; }
#if KERNELS_X86
namespace reduce_avx2 { extern const ReduceKernel kReduce; }
namespace reduce_avx512 { extern const ReduceKernel kReduce; }
#endif

ReduceKernel reduceKernel([[maybe_unused]] Isa isa) {
#if KERNELS_X86
  if (isa >= Isa::avx512) return reduce_avx512::kReduce;
  if (isa == Isa::avx2) return reduce_avx2::kReduce;
#endif
  return reduce_portable::kReduce;
}
