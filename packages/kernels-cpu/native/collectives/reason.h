// Why a communicator was given up: set once, from any thread.
#pragma once
#include <atomic>
#include <mutex>
#include <string>

class Reason {
 public:
  bool given() const { return given_.load(); }
  std::string text() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return text_;
  }
  /// False where there is one already.
  bool give(const std::string& text) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (given_.load()) return false;
    text_ = text;
    given_.store(true);
    return true;
  }

 private:
  std::atomic<bool> given_{false};
  mutable std::mutex mutex_;
  std::string text_;
};
