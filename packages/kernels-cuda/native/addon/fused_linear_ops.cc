// Products with what stands beside them done by the same kernel: a norm before, an activation or the residual sum behind.
#include "fused_calls.h"
#include "linear.h"
#include "linear_small.h"
#include "op.h"
#include "packed.h"

namespace {

/// out matrix, x matrix, weight 4 numbers, bias vector or none, norm weight vector or none, eps, norm weight's offset,
/// residual flag (out is the residual, and added to), activation or -1 (out has a column for each pair of output features)
SmallLinear fusedCall(Args& a) {
  Matrix out = a.floats("out"), x = a.floats("x");
  PackedMatrix w = packedMatrix(a, "weight");
  Vector bias = a.optional("bias"), norm = a.optional("norm");
  SmallLinear c{};
  c.eps = a.real("eps"), c.gOffset = a.real("offset");
  const bool residual = a.flag("residual");
  c.activation = int(a.integer("activation", -1, 4));
  const bool gated = c.activation >= 0;
  a.require(!(residual && gated), "there is either a residual or an activation");
  a.require(!gated || w.n % 2 == 0, "weight should have as many rows for the gate as for what it multiplies");
  a.require(out.rows == x.rows, "out and x should have as many rows");
  a.require(out.cols == (gated ? w.n / 2 : w.n), "out should have a column for each output feature, or pair of them with an activation");
  a.require(x.cols == w.k, "x should have a column for each input feature of weight");
  a.require(!bias.p || (isFloat(bias.dtype) && bias.length == w.n), "bias should be floats, one for each output feature of weight");
  a.require(!norm.p || (isFloat(norm.dtype) && norm.length == w.k), "norm should be floats, one for each input feature of weight");
  a.require(out.rows == 0 || out.p != x.p, "out and x should not be the same memory");
  c.w = w.p, c.format = w.format, c.n = w.n, c.k = w.k, c.kp = w.kp();
  c.x = x.p, c.xType = x.dtype, c.xStride = x.stride, c.tokens = x.rows;
  c.bias = bias.p, c.biasType = bias.dtype, c.g = norm.p, c.gType = norm.dtype;
  c.epilogue = residual ? kResidual : gated ? kGated : kStore;
  c.out = out.p, c.outType = out.dtype, c.outStride = out.stride;
  return c;
}

/// The same for more rows than smallLinear takes: gated products alone.
LinearCall manyRows(const SmallLinear& c) {
  LinearCall l{};
  l.out = static_cast<char*>(c.out), l.outType = c.outType, l.outStride = c.outStride;
  l.x = static_cast<const char*>(c.x), l.xType = c.xType, l.xStride = c.xStride, l.m = c.tokens;
  l.w = {static_cast<char*>(const_cast<void*>(c.w)), c.format, c.n, c.k};
  l.bias = static_cast<const char*>(c.bias), l.biasType = c.biasType, l.activation = c.activation;
  return l;
}
bool manyRowsFit(const Context& context, const SmallLinear& c) { return !c.g && c.epilogue == kGated && linearGatedFits(context, manyRows(c)); }

void FusedLinear(Args& a) {
  const SmallLinear c = fusedCall(a);
  if (c.tokens == 0) return;
  if (smallLinearFits(a.context(), c)) return smallLinear(a.context(), c);
  a.require(manyRowsFit(a.context(), c), "no kernel does this; ask fusedLinearFits first");
  linearGated(a.context(), manyRows(c));
}

/// tokens, weight format, output features, input features, dtype of x, dtype of out, norm flag, residual flag, activation or -1
SmallLinear wish(Args& a) {
  static const char kNorm = 0;
  SmallLinear c{};
  c.tokens = a.size("tokens");
  c.format = a.dtype("format");
  c.n = a.size("outFeatures"), c.k = a.size("inFeatures"), c.kp = (c.k + 31) / 32 * 32;
  c.xType = a.dtype("x"), c.xStride = c.k, c.outType = a.dtype("out");
  // Only whether there is one matters; its address says "aligned" as a null one would.
  if (a.flag("norm")) c.g = reinterpret_cast<const void*>(uintptr_t(&kNorm) & ~uintptr_t(255)), c.gType = c.format;
  const bool residual = a.flag("residual");
  c.activation = int(a.integer("activation", -1, 4));
  c.epilogue = residual ? kResidual : c.activation >= 0 ? kGated : kStore;
  return c;
}

/// Whether fusedLinear does it, and faster than separate ops.
Napi::Value FusedLinearFits(Args& a) {
  const SmallLinear c = wish(a);
  return Napi::Boolean::New(a.env(), isFloat(c.xType) && isFloat(c.outType) && (smallLinearFits(a.context(), c) || manyRowsFit(a.context(), c)));
}

/// The plan that fusedLinear would choose: [kind, lines, sharedBytes] (linear_small.h).
Napi::Value FusedLinearPlan(Args& a) {
  const SmallPlan plan = planSmallLinear(a.context(), wish(a));
  auto numbers = Napi::Array::New(a.env(), 3);
  const int values[] = {plan.kind, plan.lines, plan.sharedBytes};
  for (uint32_t i = 0; i < 3; i++) numbers[i] = Napi::Number::New(a.env(), values[i]);
  return numbers;
}

/// fusedLinear by a given plan, for measurements and tests; false where the plan cannot be done.
Napi::Value FusedLinearBy(Args& a) {
  SmallPlan plan;
  plan.kind = int(a.integer("kind", 0, 2)), plan.lines = int(a.integer("lines", 1, 1 << 16));
  plan.sharedBytes = int(a.integer("sharedBytes", 0, 1 << 20));
  const SmallLinear c = fusedCall(a);
  const bool fits = planFits(a.context(), c, plan);
  if (fits) smallLinear(a.context(), c, plan);
  return Napi::Boolean::New(a.env(), fits);
}

}  // namespace

SmallLinear fusedLinearCall(Args& a) { return fusedCall(a); }

void InitFusedLinear(Napi::Env env, Napi::Object exports) {
  add<FusedLinear>(env, exports, "fusedLinear");
  addValue<FusedLinearFits>(env, exports, "fusedLinearFits");
  addValue<FusedLinearPlan>(env, exports, "fusedLinearPlan");
  addValue<FusedLinearBy>(env, exports, "fusedLinearBy");
}
