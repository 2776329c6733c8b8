// interpreterFits, makeInterpreter, runInterpreter, releaseInterpreter: stretches of a captured step as one kernel.
#include "interpreter.h"
#include "fused_calls.h"
#include "op.h"

namespace {

/// A call's own numbers: those of fusedLinear or fusedAttention.
void callOf(Args& a, InterpreterOp& op) {
  if (op.isAttention) {
    const FusedAttentionCall f = fusedAttentionCall(a);
    op.attention = f.attention, op.qkv = f.qkv;
  } else op.linear = fusedLinearCall(a);
}
bool takes(const Context& c, const InterpreterOp& op) {
  return op.isAttention ? interpreterTakes(c, op.attention, op.qkv) : interpreterTakes(c, op.linear);
}

/// kind (0 linear, 1 attention), its numbers
Napi::Value Fits(Args& a) {
  InterpreterOp op;
  op.isAttention = a.flag("kind");
  if (!interpreterRuns(a.context())) return Napi::Boolean::New(a.env(), false);
  callOf(a, op);
  return Napi::Boolean::New(a.env(), takes(a.context(), op));
}

InterpreterSource sourceOf(Args& a, int64_t before) {
  InterpreterSource s;
  s.op = int(a.integer("source", 0, before));
  s.offset = a.size("offset");
  return s;
}

/// calls: for each kind, three sources (op and offset), buffer or -1, stored, how many numbers follow, its numbers; lastTag: the tags of
/// words that are new begin behind it. The list's handle, or 0.
Napi::Value Make(Args& a) {
  Context& c = a.context();
  a.require(!c.capturing, "a graph is being captured");
  const HostBytes calls = a.host("calls");
  const uint32_t lastTag = uint32_t(a.integer("lastTag", 0, UINT32_MAX));
  const double* const numbers = reinterpret_cast<const double*>(calls.p);
  const size_t count = calls.bytes / sizeof(double);
  std::vector<InterpreterOp> ops;
  for (size_t at = 0; at < count;) {
    Args head(a.env(), c, a.op(), numbers + at, count - at);
    InterpreterOp op;
    op.isAttention = head.flag("kind");
    const int64_t before = int64_t(ops.size());
    const InterpreterSource s0 = sourceOf(head, before), s1 = sourceOf(head, before), s2 = sourceOf(head, before);
    if (op.isAttention) op.q = s0, op.k = s1, op.v = s2;
    else op.x = s0, op.old = s1;
    op.buffer = int(head.integer("buffer", -1, 1 << 20)), op.store = head.flag("stored");
    const size_t own = size_t(head.integer("numbers", 0, 1 << 10));
    at += 10;
    a.require(own <= count - at, "a call has fewer numbers than it says");
    Args call(a.env(), c, op.isAttention ? "fusedAttention" : "fusedLinear", numbers + at, own);
    callOf(call, op);
    at += own;
    ops.push_back(op);
  }
  auto list = makeInterpreterList(c, ops, lastTag);
  if (!list) return Napi::Number::New(a.env(), 0);
  c.interpreters->made[c.interpreters->next] = std::move(list);
  return Napi::Number::New(a.env(), c.interpreters->next++);
}

void Run(Args& a) {
  Context& c = a.context();
  auto found = c.interpreters->made.find(a.number("list"));
  a.require(found != c.interpreters->made.end(), "there is no such list");
  const InterpreterLaunch& launch = found->second->launch;
  if (c.capturing) c.interpreters->captured = true, startInterpreter(c, launch);
  else inTurn(c, [&] { startInterpreter(c, launch); });
}

/// After the graphs that run it.
void Release(Args& a) {
  Context& c = a.context();
  auto found = c.interpreters->made.find(a.number("list"));
  if (found == c.interpreters->made.end()) return;
  check(cudaStreamSynchronize(c.stream), "cudaStreamSynchronize");
  c.interpreters->made.erase(found);
}

}  // namespace

void InitInterpreter(Napi::Env env, Napi::Object exports) {
  addValue<Fits>(env, exports, "interpreterFits");
  addValue<Make>(env, exports, "makeInterpreter");
  add<Run>(env, exports, "runInterpreter");
  add<Release>(env, exports, "releaseInterpreter");
}
