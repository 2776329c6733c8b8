// One rank's end of a group of GPUs that NCCL connects.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include "context.h"
#include "dtype.h"
#include "nccl.h"

/// A collective that cannot be done any more.
struct RankFailure {
  std::string reason;
};

class NcclCommunicator {
 public:
  /// Begins to meet the other ranks, in the background. Throws RankFailure.
  NcclCommunicator(const Nccl& nccl, int device, int rank, int size, const Nccl::Id& id, double timeout);
  /// Waits a while for NCCL to let go; graphs that captured it hold it back.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  const int rank, size;

  /// Whether all ranks have met. Throws RankFailure.
  bool ready();
  /// Sums in place, on the context's stream. Throws RankFailure.
  void allReduce(const Context& c, void* x, int64_t elements, DType t);
  /// out: every rank's `elements`, one after the other.
  void allGather(const Context& c, const void* x, void* out, int64_t elements, DType t);
  /// Throws RankFailure when it was given up, or NCCL says that something failed meanwhile.
  void check();
  /// From any thread: what is enqueued ends, what is called later throws. The first reason stays.
  void abort(const std::string& reason);
  /// After the last operation.
  void close();

 private:
  template <class F> void enqueue(F f);
  [[noreturn]] void fail(std::unique_lock<std::mutex>& lock, Nccl::Result code);
  void letGo(std::unique_lock<std::mutex>& lock, bool abort);

  const Nccl& nccl_;
  const int device_;
  const double timeout_;
  std::mutex mutex_;
  Nccl::Comm comm_ = nullptr;  // nullptr: given up, or closed
  std::string reason_;
  std::thread ending_;
  std::shared_ptr<std::atomic<bool>> ended_;
};
