// What ranks exchange on the CPU. A communicator is used by the JavaScript thread that made it and may be aborted by any.
#pragma once
#include <memory>
#include <string>
#include "context.h"
#include "rows.h"

/// A collective that cannot be done any more; the sentence names the rank.
struct RankFailure {
  std::string reason;
};

/// What a rank calls, so that ranks that call different things are told so.
struct Operation {
  enum Kind : int32_t { none, allReduce, allGather };
  Kind kind;
  DType dtype;
  int64_t rows, cols;
  bool operator==(const Operation& o) const { return kind == o.kind && dtype == o.dtype && rows == o.rows && cols == o.cols; }
};
/// `allReduce of bf16 [1, 2048]`
std::string describe(const Operation& operation);
/// The sentence for two ranks that called different things.
std::string mismatch(int rank, const Operation& mine, int other, const Operation& theirs);
/// `rank 1`, `ranks 1 and 3`, `ranks 1, 2 and 3`
std::string nameRanks(const bool* missing, int size);
/// `30 s`, `1.5 s`
std::string seconds(double s);

class Communicator {
 public:
  static constexpr int kMostRanks = 256;

  /// timeout: seconds that anything waits for the other ranks.
  Communicator(int rank, int size, double timeout) : rank(rank), size(size), timeout(timeout) {}
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  const int rank, size;
  const double timeout;

  /// Meets the other ranks; called once, on a thread of its own. Throws RankFailure.
  virtual void join() = 0;
  /// On the thread that will use it, once all have joined.
  virtual void enter() {}
  /// Sums over ranks in place. Throws RankFailure.
  virtual void allReduce(Context& context, const Rows& x) = 0;
  /// Columns [r · x.cols, …) of out: rank r's x. Throws RankFailure.
  virtual void allGather(Context& context, const Rows& out, const Rows& x) = 0;
  /// From any thread: every pending and later call, of every rank that can be reached, throws this. The first reason stays.
  virtual void abort(const std::string& reason) = 0;
  /// On the thread that uses it: the others may not wait for this rank any more.
  virtual void close() = 0;
};

/// Elements of rank r's part of n: whole cache lines of the smallest type, but for the last.
inline int64_t shareBegin(int64_t n, int rank, int size) {
  const int64_t each = (n + size - 1) / size, whole = (each + 31) / 32 * 32, begin = whole * rank;
  return begin < n ? begin : n;
}
