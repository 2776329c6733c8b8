#include "norm.h"

namespace norm_portable { extern const NormKernels kNorm; }
#if KERNELS_X86
namespace norm_avx2 { extern const NormKernels kNorm; }
namespace norm_avx512 { extern const NormKernels kNorm; }
#endif

const NormKernels& normKernels([[maybe_unused]] Isa isa) {
#if KERNELS_X86
  if (isa >= Isa::avx512) return norm_avx512::kNorm;
  if (isa == Isa::avx2) return norm_avx2::kNorm;
#endif
  return norm_portable::kNorm;
}
