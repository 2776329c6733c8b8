// Device memory on its way to the host: enqueued like an op, waited for on its own, whatever is enqueued after it.
#pragma once
#include <map>
#include <vector>
#include "context.h"

struct Reads {
  struct Read {
    char* pinned;
    size_t capacity, bytes;
    cudaEvent_t event;
  };
  ~Reads();
  /// The handle of a copy of [from, from + bytes).
  double begin(const void* from, size_t bytes, cudaStream_t stream);
  /// Whether it is there, or comes within so many microseconds.
  bool poll(double handle, int64_t microseconds);
  /// Waits for it and gives its bytes, valid until the next call of `finish` or `begin`.
  const Read* wait(double handle);
  void finish(double handle);

 private:
  std::map<double, Read> open_;
  std::vector<Read> idle_;
  double next_ = 1;
};
