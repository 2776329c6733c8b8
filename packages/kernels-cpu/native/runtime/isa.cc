// Which instruction sets this processor and its operating system offer.
#include "context.h"

Isa bestIsa() {
#if KERNELS_X86
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return Isa::portable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512dq"))
    return Isa::avx2;
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
  return Isa::avx512bf16;
#else
  return Isa::portable;
#endif
}

const char* isaName(Isa isa) {
  static const char* const names[] = {"portable", "avx2", "avx512", "avx512-bf16"};
  return names[int(isa)];
}
