// Calls of ops that were written down, to be made again in one go: what a step costs beside its arithmetic is then paid once.
#pragma once
#include <map>
#include <memory>
#include <vector>

class Args;

/// Ops in order, each with its numbers as JavaScript gave them, without the context.
struct Recording {
  struct Call {
    void (*op)(Args&);
    const char* name;
    size_t first, count;  // in numbers
  };
  std::vector<Call> calls;
  std::vector<double> numbers;
};

/// A context's recordings, by handle, and the one that is being made.
struct Recordings {
  std::map<double, std::unique_ptr<Recording>> made;
  std::unique_ptr<Recording> open;
  double next = 1;
};
