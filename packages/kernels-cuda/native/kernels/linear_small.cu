// How a small product is divided among blocks, and shared memory inside a block.
#include <algorithm>
#include "linear_small_launch.cuh"

namespace {

constexpr int kMostTokens = 16;
/// More than half of a multiprocessor's shared memory: two blocks of one kernel would otherwise share one and leave another idle.
constexpr int kAlone = 115200;
/// More than a third: the kernel behind may come in beside this one, but not a third block.
constexpr int kOfTwo = 79872;

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int power2(int64_t n) {
  int p = 1;
  while (p < n) p *= 2;
  return p;
}
bool aligned(const void* p, int64_t strideBytes, uintptr_t to) { return uintptr_t(p) % to == 0 && strideBytes % int64_t(to) == 0; }

struct Layout {
  SmallCall call;
  SmallLaunch how;
};

/// False where the plan cannot be done.
bool lay(const Context& c, const SmallLinear& a, const SmallPlan& plan, int mostGroups, Layout& to) {
  const bool normed = a.g != nullptr;
  const int lines = int(ceilDiv(a.kp, kLine));
  const bool ring = plan.kind != kDirect;
  if (plan.kind < kDirect || plan.kind > kStreamed || plan.lines < 1 || plan.cluster < 1 || plan.cluster > kMostCluster) return false;
  if (power2(plan.cluster) != plan.cluster || (plan.cluster > 1 && (!ring || normed)) || (ring && c.capability < 90)) return false;
  const bool xVectors = aligned(a.x, a.tokens > 1 ? a.xStride * 2 : 0, 16);
  if (plan.kind == kStreamed) {
    if (normed || !xVectors || a.k % 8 || (plan.abreast != 1 && plan.abreast != 2 && plan.abreast != 4)) return false;
  } else if (plan.kind == kResident && a.tokens > 8) return false;
  const int abreast = plan.kind == kStreamed ? plan.abreast : plan.kind == kDirect && !normed && a.tokens > 8 ? 2 : 1;

  SmallCall& call = to.call;
  call = SmallCall{};
  call.op = a;
  call.pair = a.epilogue == kGated ? 2 : 1;
  call.rows = int(a.n / call.pair);
  call.cluster = plan.cluster;
  const int perSm = ring ? 1 : 2;
  const int groups = int(std::min<int64_t>(std::min(c.sms * perSm / plan.cluster, mostGroups), call.rows));
  const int64_t groupRows = ceilDiv(call.rows, groups), units = ceilDiv(groupRows, kUnit) * call.pair;
  const int myLines = int(ceilDiv(lines, plan.cluster));  // of a block, at most
  call.lines = int(ceilDiv(myLines, ceilDiv(myLines, plan.lines)));
  if (plan.kind == kStreamed) call.lines = int(ceilDiv(call.lines, kConsumers) * kConsumers);
  call.whole = ring && plan.cluster == 1 && call.lines >= lines;
  call.pitch = call.whole ? int(a.kp * 2) : call.lines * 128 + 64;
  call.slotBytes = int(ceilDiv(call.pitch * kUnit, 128) * 128);

  const int xColumns = int(std::min<int64_t>(a.kp, int64_t(myLines) * kLine));
  call.xPitch = xColumns * 2 + (xColumns * 2 % 128 == 0 ? 64 : 0);
  const int xBytes = plan.kind == kStreamed ? 0 : int(ceilDiv(int64_t(call.xPitch) * a.tokens * (normed ? 2 : 1), 128) * 128);
  call.flush = std::max(std::max(abreast, call.pair), std::min(a.tokens <= 2 ? 8 : 4, power2(units)));
  call.buffers = a.tokens <= 4 && units > call.flush ? 2 : 1;
  const int partBytes = call.buffers * kConsumers * call.flush * int(a.tokens * kUnit + kUnit) * 4;
  const int all = int(a.tokens) * call.flush / call.pair * kUnit, owned = int(ceilDiv(all, plan.cluster));
  const int receivedBytes = plan.cluster > 1 ? 2 * plan.cluster * owned * call.pair * 4 : 0;
  const int rest = xBytes + int(ceilDiv(partBytes, 128) * 128) + receivedBytes;

  const int most = std::min(plan.sharedBytes, c.sharedBytes) - 2048;  // static shared memory, and what the system keeps
  const int64_t need = units * ceilDiv(myLines, call.lines);
  const int64_t fit = most > rest ? (most - rest) / call.slotBytes : 0;
  call.stages = ring ? int(std::min<int64_t>(std::min<int64_t>(need, fit), kMostStages)) : 0;
  if (ring && call.stages < std::min<int64_t>(need, abreast + 1)) return false;
  if (!ring && rest > most) return false;
  call.xAt = call.stages * call.slotBytes;
  call.partsAt = call.xAt + xBytes;
  call.receivedAt = call.partsAt + int(ceilDiv(partBytes, 128) * 128);
  int bytes = call.xAt + rest;
  if (ring) bytes = std::max(bytes, plan.sharedBytes > kAlone ? kAlone : kOfTwo);

  const int xSize = sizeOf(a.xType), gSize = sizeOf(a.gType);
  call.xVectors = xVectors;
  call.normVectors = normed && a.k % 4 == 0 && aligned(a.x, a.tokens > 1 ? a.xStride * xSize : 0, 4 * xSize) && aligned(a.g, 0, 4 * gSize);
  to.how = {plan.kind, abreast, groups * plan.cluster, bytes};
  return true;
}

/// As many clusters as can run at once: groups of multiprocessors that may form one are not all of the same size.
bool layClusters(const Context& c, const SmallLinear& a, const SmallPlan& plan, Layout& to) {
  if (!lay(c, a, plan, c.sms * 2, to)) return false;
  if (plan.cluster == 1) return true;
  const int most = (a.format == DType::bf16 ? mostClustersBf16 : mostClustersF16)(to.call, to.how);
  return most > 0 && lay(c, a, plan, most, to);
}

bool possible(const SmallLinear& a) {
  if (a.format != DType::bf16 && a.format != DType::f16) return false;
  if (a.tokens < 1 || a.tokens > kMostTokens || a.n < 1 || a.n > INT32_MAX / 2 || a.k < 1 || a.kp > 1 << 20) return false;
  if (a.epilogue == kGated && a.n % 2) return false;
  return a.g ? a.tokens <= kMostNormed : a.xType == a.format;
}

}  // namespace

SmallPlan planSmallLinear(const Context& c, const SmallLinear& a) {
  const int lines = int(ceilDiv(a.kp, kLine));
  SmallPlan plan{kDirect, lines, 1, 1, c.sharedBytes};
  if (c.capability < 90) return plan;
  // Where all of a block's rows fit into half of the shared memory, two kernels share a multiprocessor and the next one's weights
  // arrive while this one waits.
  const int64_t weightBytes = a.n * a.kp * 2;
  const bool small = weightBytes <= int64_t(12) << 20;
  const int bytes = small ? 112 << 10 : c.sharedBytes, slot = small ? 16 : 64;
  if (a.g || a.tokens <= 2) {
    for (int l : {slot, slot / 2, slot / 4, 8})
      if (planFits(c, a, plan = {kResident, l, 1, 1, bytes})) return plan;
  } else {
    const int64_t units = ceilDiv(ceilDiv(a.n, c.sms), kUnit);
    const int abreast = units >= 4 ? 4 : units >= 2 ? 2 : 1;
    for (int l : {16, 8})
      if (planFits(c, a, plan = {kStreamed, l, abreast, 1, bytes})) return plan;
  }
  return {kDirect, lines, 1, 1, c.sharedBytes};
}

bool planFits(const Context& c, const SmallLinear& a, const SmallPlan& plan) {
  Layout layout;
  return possible(a) && layClusters(c, a, plan, layout);
}
bool smallLinearFits(const Context& c, const SmallLinear& a) { return planFits(c, a, planSmallLinear(c, a)); }

void smallLinear(Context& c, const SmallLinear& a, const SmallPlan& plan) {
  Layout layout;
  if (!possible(a) || !layClusters(c, a, plan, layout)) throw CudaFailure{cudaErrorInvalidValue, "smallLinear"};
  (a.format == DType::bf16 ? launchSmallBf16 : launchSmallF16)(c, layout.call, layout.how);
}
void smallLinear(Context& c, const SmallLinear& a) { smallLinear(c, a, planSmallLinear(c, a)); }
