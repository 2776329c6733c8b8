// Copies of host memory by several threads: one core reads a mapped file at a fraction of what the bus to the device takes.
#pragma once
#include <stddef.h>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

/// `pieces` stretches of `bytes`, `stride` bytes apart, laid end to end.
struct CopyJob {
  char* to;
  const char* from;
  size_t bytes, pieces, stride;
};

/// The threads start with the first large copy and sleep between copies.
class CopyThreads {
 public:
  ~CopyThreads();
  void copy(const CopyJob& job);

 private:
  void work();
  void takeParts();

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  CopyJob job_{};
  size_t total_ = 0, generation_ = 0;
  std::atomic<size_t> next_{0};
  size_t running_ = 0;
  bool ended_ = false;
};
