// What the tiled kernel does, and how its work and its shared memory are divided.
#include "linear_small_tiles.cuh"
#include <algorithm>
#include "launch.h"
#include "linear_small_launch.cuh"

namespace {

int ceilDiv(int a, int b) { return (a + b - 1) / b; }
bool aligned(const void* p, int64_t strideBytes, uintptr_t to) { return uintptr_t(p) % to == 0 && strideBytes % int64_t(to) == 0; }

bool usual(const SmallLinear& a) {
  if (a.format != DType::bf16 || a.tokens < 1 || a.tokens > 2 || a.k != a.kp || a.k % kLine || a.k > 1 << 18 || a.n < 1 || a.n > 1 << 26) return false;
  if (a.xStride > 1 << 26 || a.outStride > 1 << 26) return false;
  const int64_t stride = a.tokens > 1 ? a.xStride : 0;
  if (a.bias && (a.biasType != DType::bf16 || a.epilogue == kGated)) return false;
  if (!a.g) return a.epilogue == kResidual && a.xType == DType::bf16 && a.outType == DType::f32 && aligned(a.x, stride * 2, 16);
  if (a.xType != DType::f32 || a.gType != DType::bf16 || !aligned(a.x, stride * 4, 16) || !aligned(a.g, 0, 8)) return false;
  if (a.epilogue == kStore) return a.outType == DType::f32 || a.outType == DType::bf16;
  return a.epilogue == kGated && a.n % 2 == 0 && a.activation == 0 && a.outType == DType::bf16;
}

/// False where it cannot be done. bytes: of shared memory.
bool layTiles(const Context& c, const SmallLinear& s, const SmallPlan& plan, TilesCall& a, int& blocks, int& bytes) {
  if (c.capability < 90 || plan.lines < 1 || !usual(s)) return false;
  a = TilesCall{};
  const int pair = s.epilogue == kGated ? 2 : 1, tokens = int(s.tokens), n = int(s.n);
  a.w = static_cast<const char*>(s.w), a.x = static_cast<const char*>(s.x), a.g = static_cast<const char*>(s.g), a.bias = static_cast<const char*>(s.bias);
  a.out = static_cast<char*>(s.out), a.outFloat = s.outType == DType::f32;
  a.k = int(s.k), a.rows = n / pair, a.xStride = int(s.xStride), a.outStride = int(s.outStride), a.eps = s.eps, a.gOffset = s.gOffset;
  blocks = std::min(c.sms, a.rows);
  a.base = a.rows / blocks, a.extra = a.rows % blocks;
  const int most = ceilDiv(a.rows, blocks);
  a.half = pair == 1 && most <= 8;
  a.lines = a.k / kLine;
  a.slotLines = ceilDiv(a.lines, ceilDiv(a.lines, plan.lines));
  a.whole = a.slotLines == a.lines;
  if (!a.whole) a.slotLines = ceilDiv(a.slotLines, kConsumers) * kConsumers;  // a line is one warp's wherever it lies
  a.pitch = a.whole ? a.k * 2 : a.slotLines * 128 + 64;
  a.slotBytes = ceilDiv(a.pitch * (a.half ? 8 : 16), 128) * 128;
  a.xPitch = a.k * 2 + 64;
  const int xBytes = ceilDiv(a.xPitch * tokens * (s.g ? 2 : 1), 128) * 128, partBytes = (tokens == 1 ? kTileParts<1> : kTileParts<2>) * 4;
  const int room = std::min(plan.sharedBytes, c.sharedBytes) - 1024 - xBytes - partBytes;  // less static shared memory
  const int need = ceilDiv(most, 16 / pair) * ceilDiv(a.lines, a.slotLines);
  a.stages = std::min({need, room / a.slotBytes, kMostStages});
  if (room < 0 || a.stages < std::min(need, 2)) return false;
  a.xAt = a.stages * a.slotBytes, a.partsAt = a.xAt + xBytes;
  bytes = a.partsAt + partBytes;
  if (plan.sharedBytes > kAlone) bytes = std::max(bytes, kAlone);
  return true;
}

}  // namespace

bool tilesFit(const Context& c, const SmallLinear& s, const SmallPlan& plan) {
  TilesCall a;
  int blocks, bytes;
  return layTiles(c, s, plan, a, blocks, bytes);
}

void launchTiles(const Context& c, const SmallLinear& s, const SmallPlan& plan) {
  TilesCall a;
  int blocks, bytes;
  if (!layTiles(c, s, plan, a, blocks, bytes)) throw CudaFailure{cudaErrorInvalidValue, "smallLinear"};
  auto start = [&](auto kernel) { launch(c, "smallLinear", kernel, dim3(blocks), dim3(kConsumerThreads + 32), bytes, a); };
  const bool two = s.tokens == 2;
  if (!s.g) two ? start(smallLinearTiles<2, false, kResidual>) : start(smallLinearTiles<1, false, kResidual>);
  else if (s.epilogue == kGated) two ? start(smallLinearTiles<2, true, kGated>) : start(smallLinearTiles<1, true, kGated>);
  else two ? start(smallLinearTiles<2, true, kStore>) : start(smallLinearTiles<1, true, kStore>);
}
