// Ranks of one host, exchanging through shared memory.
#pragma once
#include "communicator.h"
#include "reason.h"
#include "shared_segment.h"

class SharedCommunicator : public Communicator {
 public:
  /// threads: that this rank computes with; cores: those that its process may use.
  SharedCommunicator(int rank, int size, double timeout, const std::string& name, int threads, std::vector<int> cores)
      : Communicator(rank, size, timeout), name_(name), threads_(threads), cores_(std::move(cores)) {}
  ~SharedCommunicator() override;
  void join() override;
  void enter() override;
  void allReduce(Context& context, const Rows& x) override;
  void allGather(Context& context, const Rows& out, const Rows& x) override;
  void abort(const std::string& reason) override;
  void close() override;

 private:
  [[noreturn]] void fail(const std::string& reason);
  void begin() const;
  void meet(const Operation& operation);
  void await(int other, uint32_t sequence, const Operation& operation, double& since);
  void look(int other, uint32_t sequence, const Operation& operation, double since);

  const std::string name_;
  const int threads_;
  const std::vector<int> cores_;
  Reason abandoned_;
  std::unique_ptr<Segment> segment_;
  std::atomic<Segment*> shared_{nullptr};  // segment_, for `abort`
  double spin_ = 0, yield_ = 0;            // seconds
  uint32_t sequence_ = 0;
  int slot_ = 0;
  bool entered_ = false;
};
