// beginCapture, endCapture, replay, releaseGraph: ops between the first two are captured instead of done.
#include "graphs.h"
#include "interpreter.h"
#include "op.h"

namespace {

void Begin(Args& a) {
  Context& c = a.context();
  a.require(!c.capturing, "a graph is being captured already");
  check(cudaStreamBeginCapture(c.stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  c.capturing = true;
  c.interpreters->captured = false;
}

/// endCapture(context, keep): the graph's handle; 0 for one that is thrown away
Napi::Value End(Args& a) {
  Context& c = a.context();
  const bool keep = a.flag("keep");
  a.require(c.capturing, "no graph is being captured");
  c.capturing = false;
  cudaGraph_t graph = nullptr;
  cudaError_t code = cudaStreamEndCapture(c.stream, &graph);
  if (!keep) {
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    return Napi::Number::New(a.env(), 0);
  }
  check(code, "cudaStreamEndCapture");
  cudaGraphExec_t made = nullptr;
  code = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  check(code, "cudaGraphInstantiate");
  code = cudaGraphUpload(made, c.stream);
  if (code != cudaSuccess) cudaGraphExecDestroy(made);
  check(code, "cudaGraphUpload");
  c.graphs->made[c.graphs->next] = {made, c.interpreters->captured};
  return Napi::Number::New(a.env(), c.graphs->next++);
}

void Replay(Args& a) {
  Context& c = a.context();
  auto found = c.graphs->made.find(a.number("graph"));
  a.require(found != c.graphs->made.end(), "there is no such graph");
  a.require(!c.capturing, "a graph is being captured");
  const Graph& graph = found->second;
  auto start = [&] { check(cudaGraphLaunch(graph.work, c.stream), "cudaGraphLaunch"); };
  if (graph.takesTurns) inTurn(c, start);
  else start();
}

void Release(Args& a) {
  Context& c = a.context();
  auto found = c.graphs->made.find(a.number("graph"));
  if (found == c.graphs->made.end()) return;
  check(cudaStreamSynchronize(c.stream), "cudaStreamSynchronize");
  cudaGraphExecDestroy(found->second.work);
  c.graphs->made.erase(found);
}

}  // namespace

void InitGraph(Napi::Env env, Napi::Object exports) {
  add<Begin>(env, exports, "beginCapture");
  addValue<End>(env, exports, "endCapture");
  add<Replay>(env, exports, "replay");
  add<Release>(env, exports, "releaseGraph");
}
