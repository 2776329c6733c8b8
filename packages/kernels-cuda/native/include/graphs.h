// Captured work: enqueued once, started again in one call.
#pragma once
#include <map>
#include "context.h"

struct Graph {
  cudaGraphExec_t work;
  bool takesTurns;  // a kernel of it has every multiprocessor to itself (interpreter.h)
};

struct Graphs {
  ~Graphs() {
    for (auto& g : made) cudaGraphExecDestroy(g.second.work);
  }
  std::map<double, Graph> made;
  double next = 1;
};
