#include "sampling.h"

namespace sampling_portable { extern const SamplingKernels kSampling; }
#if KERNELS_X86
namespace sampling_avx2 { extern const SamplingKernels kSampling; }
namespace sampling_avx512 { extern const SamplingKernels kSampling; }
#endif

const SamplingKernels& samplingKernels([[maybe_unused]] Isa isa) {
#if KERNELS_X86
  if (isa >= Isa::avx512) return sampling_avx512::kSampling;
  if (isa == Isa::avx2) return sampling_avx2::kSampling;
#endif
  return sampling_portable::kSampling;
}
