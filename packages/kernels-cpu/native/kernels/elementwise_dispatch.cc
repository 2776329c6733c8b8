#include "elementwise.h"

namespace elementwise_portable { extern const ElementwiseKernels kElementwise; }
#if KERNELS_X86
namespace elementwise_avx2 { extern const ElementwiseKernels kElementwise; }
namespace elementwise_avx512 { extern const ElementwiseKernels kElementwise; }
#endif

const ElementwiseKernels& elementwiseKernels([[maybe_unused]] Isa isa) {
#if KERNELS_X86
  if (isa >= Isa::avx512) return elementwise_avx512::kElementwise;
  if (isa == Isa::avx2) return elementwise_avx2::kElementwise;
#endif
  return elementwise_portable::kElementwise;
}
