// How a small product is divided among blocks, and shared memory inside a block.
#include <algorithm>
#include "linear_small_launch.cuh"

namespace {

constexpr int kMostTokens = 32;  // that the kernels can do
constexpr int kBestTokens = 16;  // up to which they are the better choice
/// More than half of a multiprocessor's shared memory: two blocks of one kernel would otherwise share one and leave another idle.
constexpr int kAlone = 115200;

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
  if (plan.lines < 1 || plan.cluster < 1 || plan.cluster > kMostCluster || power2(plan.cluster) != plan.cluster) return false;
  if (plan.cluster > 1 && (!plan.ring || normed)) return false;
  if (plan.ring && c.capability < 90) return false;
  const bool abreastFits = normed || a.tokens <= 8 ? plan.abreast == 1 || plan.abreast == 2 : plan.abreast == 2 || (plan.abreast == 4 && a.tokens <= 16);
  if (!abreastFits) return false;

  SmallCall& call = to.call;
  call = SmallCall{};
  call.op = a;
  call.pair = a.epilogue == kGated ? 2 : 1;
  call.rows = int(a.n / call.pair);
  call.cluster = plan.cluster;
  const int perSm = plan.ring ? 1 : 2;
  const int groups = int(std::min<int64_t>(std::min(c.sms * perSm / plan.cluster, mostGroups), call.rows));
  const int64_t groupRows = ceilDiv(call.rows, groups), units = ceilDiv(groupRows, kUnit) * call.pair;
  const int myLines = int(ceilDiv(lines, plan.cluster));  // of a block, at most
  call.lines = int(ceilDiv(myLines, ceilDiv(myLines, plan.lines)));
  call.whole = plan.ring && plan.cluster == 1 && call.lines >= lines;
  call.pitch = call.whole ? int(a.kp * 2) : call.lines * 128 + 64;
  call.slotBytes = int(ceilDiv(call.pitch * kUnit, 128) * 128);

  const int xColumns = int(std::min<int64_t>(a.kp, int64_t(myLines) * kLine));
  call.xPitch = xColumns * 2 + (xColumns * 2 % 128 == 0 ? 64 : 0);
  const int xBytes = int(ceilDiv(int64_t(call.xPitch) * a.tokens * (normed ? 2 : 1), 128) * 128);
  call.flush = std::max(std::max(plan.abreast, call.pair), std::min(a.tokens <= 2 ? 8 : 4, power2(units)));
  call.buffers = a.tokens <= 4 && units > call.flush ? 2 : 1;
  const int partBytes = call.buffers * kConsumers * call.flush * int(a.tokens * kUnit + kUnit) * 4;
  const int all = int(a.tokens) * call.flush / call.pair * kUnit, owned = int(ceilDiv(all, plan.cluster));
  const int receivedBytes = plan.cluster > 1 ? 2 * plan.cluster * owned * call.pair * 4 : 0;
  const int rest = xBytes + int(ceilDiv(partBytes, 128) * 128) + receivedBytes;

  const int most = std::min(plan.sharedBytes, c.sharedBytes) - 2048;  // static shared memory, and what the system keeps
  const int64_t need = units * ceilDiv(myLines, call.lines);
  const int64_t fit = most > rest ? (most - rest) / call.slotBytes : 0;
  call.stages = plan.ring ? int(std::min<int64_t>(std::min<int64_t>(need, fit), kMostStages)) : 0;
  if (plan.ring && call.stages < std::min<int64_t>(need, plan.abreast + 1)) return false;
  if (!plan.ring && rest > most) return false;
  call.xAt = call.stages * call.slotBytes;
  call.partsAt = call.xAt + xBytes;
  call.receivedAt = call.partsAt + int(ceilDiv(partBytes, 128) * 128);
  int bytes = call.xAt + rest;
  if (plan.ring && plan.sharedBytes > kAlone) bytes = std::max(bytes, kAlone);

  const int xSize = sizeOf(a.xType), gSize = sizeOf(a.gType);
  call.xVectors = aligned(a.x, a.tokens > 1 ? a.xStride * 2 : 0, 16);
  call.normVectors = normed && a.k % 4 == 0 && aligned(a.x, a.tokens > 1 ? a.xStride * xSize : 0, 4 * xSize) && aligned(a.g, 0, 4 * gSize);
  to.how = {plan.ring, plan.abreast, groups * plan.cluster, bytes};
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
  SmallPlan plan{};
  plan.ring = c.capability >= 90;
  plan.cluster = 1;
  plan.abreast = a.tokens <= 2 ? 1 : a.tokens <= 8 || a.g ? 2 : 4;
  const int lines = int(ceilDiv(a.kp, kLine));
  if (!plan.ring) {
    plan.lines = lines, plan.sharedBytes = c.sharedBytes;
    if (a.tokens > 8 && !a.g) plan.abreast = 4;
    return plan;
  }
  // x stays in shared memory: blocks of a cluster divide it where it would leave the ring too little.
  const int64_t xBytes = a.kp * 2 * a.tokens * (a.g ? 2 : 1);
  while (!a.g && plan.cluster < kMostCluster && xBytes / plan.cluster > 66 << 10) plan.cluster *= 2;
  const int64_t weightBytes = a.n * a.kp * 2;
  plan.sharedBytes = weightBytes <= int64_t(12) << 20 ? 112 << 10 : c.sharedBytes;
  plan.lines = weightBytes <= int64_t(12) << 20 ? 16 : 32;
  if (plan.cluster == 1 && lines <= 32 && (plan.abreast == 1 || lines <= 16)) plan.lines = lines;
  return plan;
}

bool planFits(const Context& c, const SmallLinear& a, const SmallPlan& plan) {
  Layout layout;
  return possible(a) && layClusters(c, a, plan, layout);
}
bool smallLinearFits(const Context& c, const SmallLinear& a) { return a.tokens <= kBestTokens && planFits(c, a, planSmallLinear(c, a)); }

void smallLinear(Context& c, const SmallLinear& a, const SmallPlan& plan) {
  Layout layout;
  if (!possible(a) || !layClusters(c, a, plan, layout)) throw CudaFailure{cudaErrorInvalidValue, "smallLinear"};
  (a.format == DType::bf16 ? launchSmallBf16 : launchSmallF16)(c, layout.call, layout.how);
}
void smallLinear(Context& c, const SmallLinear& a) { smallLinear(c, a, planSmallLinear(c, a)); }
