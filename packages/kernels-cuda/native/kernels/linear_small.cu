// How a small product is divided among blocks, and shared memory inside a block.
#include <algorithm>
#include "linear_small_launch.cuh"

namespace {

/// Weights up to this size: two kernels share a multiprocessor, and the next one's weights arrive while this one waits.
constexpr int64_t kSmallWeight = int64_t(12) << 20;
constexpr int kShared = 112 << 10;

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int power2(int64_t n) {
  int p = 1;
  while (p < n) p *= 2;
  return p;
}
bool aligned(const void* p, int64_t strideBytes, uintptr_t to) { return uintptr_t(p) % to == 0 && strideBytes % int64_t(to) == 0; }

bool possible(const SmallLinear& a) {
  if (a.format != DType::bf16 && a.format != DType::f16) return false;
  if (a.tokens < 1 || a.tokens > kMostTokens || a.n < 1 || a.n > INT32_MAX / 2 || a.k < 1 || a.kp > 1 << 20) return false;
  if (a.epilogue == kGated && a.n % 2) return false;
  return a.g ? a.tokens <= kMostNormed : a.xType == a.format;
}

/// False where the plan cannot be done.
bool lay(const Context& c, const SmallLinear& a, const SmallPlan& plan, SmallCall& call, SmallLaunch& how) {
  const bool normed = a.g != nullptr, ring = plan.kind == kResident;
  if (!possible(a) || plan.kind < kDirect || plan.kind > kResident || plan.lines < 1 || (ring && c.capability < 90)) return false;
  call = SmallCall{};
  call.op = a;
  call.pair = a.epilogue == kGated ? 2 : 1;
  call.rows = int(a.n / call.pair);
  const int blocks = std::min(c.sms * (ring ? 1 : 2), call.rows);
  const int64_t units = ceilDiv(ceilDiv(call.rows, blocks), kUnit) * call.pair;  // of a block, at most
  const int lines = int(ceilDiv(a.kp, kLine));
  call.lines = int(ceilDiv(lines, ceilDiv(lines, plan.lines)));  // slots of one size
  call.whole = call.lines == lines;
  call.pitch = call.whole ? int(a.kp * 2) : call.lines * 128 + 64;
  call.slotBytes = int(ceilDiv(call.pitch * kUnit, 128) * 128);

  call.xPitch = int(a.kp * 2 + (a.kp * 2 % 128 == 0 ? 64 : 0));
  const int xBytes = int(ceilDiv(int64_t(call.xPitch) * a.tokens * (normed ? 2 : 1), 128) * 128);
  call.flush = std::max(call.pair, std::min(a.tokens <= 2 ? 8 : 4, power2(units)));
  call.buffers = a.tokens <= 4 && units > call.flush ? 2 : 1;
  const int partBytes = call.buffers * kConsumers * call.flush * int(a.tokens * kUnit + kUnit) * 4;
  const int rest = xBytes + partBytes;

  const int most = std::min(plan.sharedBytes, c.sharedBytes) - 2048;  // less static shared memory
  if (rest > most) return false;
  const int64_t need = units * ceilDiv(lines, call.lines), fit = (most - rest) / call.slotBytes;
  call.stages = ring ? int(std::min<int64_t>(std::min(need, fit), kMostStages)) : 0;
  if (ring && call.stages < std::min<int64_t>(need, 2)) return false;
  call.xAt = call.stages * call.slotBytes;
  call.partsAt = call.xAt + xBytes;
  const int bytes = call.xAt + rest;

  const int xSize = sizeOf(a.xType), gSize = sizeOf(a.gType);
  call.xVectors = aligned(a.x, a.tokens > 1 ? a.xStride * 2 : 0, 16);
  call.normVectors = normed && a.k % 4 == 0 && aligned(a.x, a.tokens > 1 ? a.xStride * xSize : 0, 4 * xSize) && aligned(a.g, 0, 4 * gSize);
  how = {plan.kind, blocks, ring && plan.sharedBytes > kAlone ? std::max(bytes, kAlone) : bytes};
  return true;
}

/// The first plan that fits, best first; false where none does.
bool choose(const Context& c, const SmallLinear& a, SmallPlan& plan) {
  const int lines = int(ceilDiv(a.kp, kLine));
  if (c.capability < 90) return planFits(c, a, plan = {kDirect, lines, c.sharedBytes});
  const bool small = a.n * a.kp * 2 <= kSmallWeight;
  const int shared = small ? kShared : c.sharedBytes;
  // Where a block has 8 rows or fewer, all of them are one copy.
  // Large weights with long rows are read fastest by whole rows: then 8 of them fill a slot.
  const bool tiles = a.kp < 4096 || a.n * a.kp * 2 <= int64_t(64) << 20;
  for (int l : {a.epilogue != kGated && a.n <= kUnit * int64_t(c.sms) ? 64 : 32, 32, 16})
    if (tiles && planFits(c, a, plan = {kTiles, l, shared})) return true;
  // Whole rows are one copy; but the last slot's products come behind everything else, so that blocks of more rows take less at once.
  const bool few = a.n <= 2 * kUnit * int64_t(c.sms);
  // The ring stands still while x is normalised: then a few rows a block get going sooner by smaller slots.
  const int most = a.g && a.n <= 8 * kUnit * int64_t(c.sms) ? 32 : lines <= 64 ? 64 : 56;
  for (int l : {small && !few ? 16 : most, 32, 16, 8})
    if (planFits(c, a, plan = {kResident, l, shared})) return true;
  return planFits(c, a, plan = {kResident, 8, c.sharedBytes});
}

}  // namespace

SmallPlan planSmallLinear(const Context& c, const SmallLinear& a) {
  SmallPlan plan{};
  choose(c, a, plan);
  return plan;
}

bool planFits(const Context& c, const SmallLinear& a, const SmallPlan& plan) {
  if (plan.kind == kTiles) return tilesFit(c, a, plan);
  SmallCall call;
  SmallLaunch how;
  return lay(c, a, plan, call, how);
}
bool smallLinearFits(const Context& c, const SmallLinear& a) {
  SmallPlan plan;
  return choose(c, a, plan);
}

void smallLinear(Context& c, const SmallLinear& a, const SmallPlan& plan) {
  if (plan.kind == kTiles) return launchTiles(c, a, plan);
  SmallCall call;
  SmallLaunch how;
  if (!lay(c, a, plan, call, how)) throw CudaFailure{cudaErrorInvalidValue, "smallLinear"};
  (a.format == DType::bf16 ? launchSmallBf16 : launchSmallF16)(c, call, how);
}
void smallLinear(Context& c, const SmallLinear& a) { smallLinear(c, a, planSmallLinear(c, a)); }
