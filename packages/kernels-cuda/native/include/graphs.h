// Captured work: enqueued once, started again in one call.
#pragma once
#include <map>
#include "context.h"

struct Graphs {
  ~Graphs() {
    for (auto& g : made) cudaGraphExecDestroy(g.second);
  }
  std::map<double, cudaGraphExec_t> made;
  double next = 1;
};
