// The interpreter: one kernel that stays on every multiprocessor and walks a list of ops. Its feeding warp streams the weights and the
// cache of all of them through one ring and never waits for an activation; its consumer warps poll tagged words.
#include "interpreter_attention.cuh"
#include "interpreter.h"
#include "launch.h"

namespace interpreter {

__device__ __forceinline__ void prefetch(const void* p, int bytes) {  // one warp
  for (int i = (threadIdx.x & 31) * 128; i < bytes; i += 32 * 128) asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const char*>(p) + i));
}

template <int D> __global__ void __launch_bounds__(kThreads, 1) interpret(const Instruction* list, int count, int slots, Control* control, uint4* words, int64_t wordPairs) {
  extern __shared__ __align__(128) char shared[];
  __shared__ uint64_t barriers[2 * kMostSlots];
  __shared__ uint32_t absent[kMostSlots];
  __shared__ float scratch[kScratchFloats];
  __shared__ __align__(16) Instruction ahead[3], fed;
  __shared__ bool last;
  pdlTrigger();
  const int tid = threadIdx.x, lane = tid & 31;
  Ring q{sharedAddress(shared), sharedAddress(barriers), sharedAddress(barriers + slots), slots, 0, 0};
  if (tid == 0) {
    for (int i = 0; i < slots; i++) barrierInit(q.full + i * 8, 1), barrierInit(q.empty + i * 8, kConsumers);
    barrierInitFence();
  }
  auto load = [&](int i) { return __ldg(reinterpret_cast<const uint2*>(list + i) + lane); };
  if (tid < 32) reinterpret_cast<uint2*>(ahead)[lane] = load(0);
  __syncthreads();

  if (tid >= kConsumers * 32) {
    uint2 part = load(0);
    for (int i = 0; i < count; i++) {
      __syncwarp();
      reinterpret_cast<uint2*>(&fed)[lane] = part;
      if (i + 1 < count) part = load(i + 1);
      __syncwarp();
      if (fed.kind == kAttention) {
        if (fed.attention.qNorm && blockIdx.x == gridDim.x - 1) prefetch(fed.attention.qNorm, D * 2), prefetch(fed.attention.kNorm, D * 2);
        feedAttention<D>(q, fed.attention, absent);
      } else {
        if (fed.product.g && blockIdx.x + 4 >= gridDim.x) prefetch(fed.product.g, fed.product.k * 2);
        const Product a = fed.product;
        feedProduct(q, a);
      }
    }
    pdlWait();
    return;
  }

  pdlWait();
  Scratch s{sharedAddress(shared + slots * kSlotBytes), scratch, scratch + kPartFloats};
  const uint32_t base = __ldcg(&control->base);
  int slot = 0;
  for (int i = 0; i < count; i++) {
    const Instruction& in = ahead[slot];
    slot = slot == 2 ? 0 : slot + 1;
    uint2 next = make_uint2(0, 0);
    if (tid < 32 && i + 1 < count) next = load(i + 1);
    auto afterWait = [&] {  // nobody reads the slot of two ops ago any more
      if (tid < 32) reinterpret_cast<uint2*>(ahead + slot)[lane] = next;
    };
    if (in.kind == kAttention) {
      if (int(blockIdx.x) < in.attention.kvHeads * in.attention.splits)
        attend<D>(q, in.attention, base, absent, shared + slots * kSlotBytes, afterWait);
      else afterWait();
      barSync(1, kConsumers * 32);
    } else {
      const Product a = in.product;
      product(q, a, base, s, afterWait);
    }
  }

  // The last block to end moves the tags on. Close to the end of their range all words are cleared and it starts anew.
  barSync(1, kConsumers * 32);
  if (tid == 0) {
    __threadfence();
    last = atomicAdd(&control->arrivals, 1) == gridDim.x - 1;
    __threadfence();
  }
  barSync(1, kConsumers * 32);
  if (!last) return;
  const bool anew = base > 0xf0000000u;
  if (anew)
    for (int64_t i = tid; i < wordPairs; i += kConsumers * 32) words[i] = make_uint4(0, 0, 0, 0);
  if (tid == 0) control->arrivals = 0, control->base = anew ? 0 : base + count;
}

}  // namespace interpreter

namespace {

auto kernelOf(int dim) { return dim == 64 ? interpreter::interpret<64> : interpreter::interpret<128>; }

}  // namespace

bool interpreterStarts(const Context& c, int dim, int sharedBytes) {
  const auto kernel = kernelOf(dim);
  int blocks = 0;
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, sharedBytes), "interpreter");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, interpreter::kThreads, size_t(sharedBytes)), "interpreter");
  return blocks >= 1 && c.sms >= 1;
}
int interpreterStaticBytes(int dim) {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernelOf(dim))), "interpreter");
  return int(attributes.sharedSizeBytes);
}
void startInterpreter(Context& c, const InterpreterLaunch& l) {
  launch(c, "interpreter", kernelOf(l.dim), dim3(unsigned(c.sms)), dim3(interpreter::kThreads), size_t(l.sharedBytes), l.list, l.count, l.slots, l.control,
         static_cast<uint4*>(l.words), l.wordBytes / 16);
}
