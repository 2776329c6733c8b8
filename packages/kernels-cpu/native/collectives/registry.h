// The communicators of this process by handle. Process-wide on purpose, the one thing here that is: a thread that is blocked in
// a collective can only be freed by another, whose JavaScript environment has lists of its own.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include "communicator.h"

class Registered {
 public:
  /// Starts to meet the other ranks on a thread of its own.
  explicit Registered(std::unique_ptr<Communicator> communicator, const void* owner);
  /// Gives up what is still going on.
  ~Registered();

  enum State { joining, joined, failed };
  Communicator& communicator() const { return *communicator_; }
  const void* owner() const { return owner_; }  // the environment whose thread may use it
  State state() const { return state_.load(); }
  std::string failure() const { return failure_; }  // once it has failed
  bool entered = false;

 private:
  const std::unique_ptr<Communicator> communicator_;
  const void* const owner_;
  std::atomic<State> state_{joining};
  std::string failure_;
  std::thread thread_;
};

/// From any thread.
double registerCommunicator(std::shared_ptr<Registered> entry);
std::shared_ptr<Registered> findCommunicator(double handle);
void forgetCommunicator(double handle);
