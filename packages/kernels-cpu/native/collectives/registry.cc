#include "registry.h"
#include <map>
#include <mutex>

Registered::Registered(std::unique_ptr<Communicator> communicator, const void* owner) : communicator_(std::move(communicator)), owner_(owner) {
  thread_ = std::thread([this] {
    try {
      communicator_->join();
      state_.store(joined);
    } catch (const RankFailure& f) {
      failure_ = f.reason;
      communicator_->abort(f.reason);
      state_.store(failed);
    }
  });
}

Registered::~Registered() {
  if (state() == joining) communicator_->abort("rank " + std::to_string(communicator_->rank) + " gave up while the ranks met");
  thread_.join();
}

namespace {
struct Registry {
  std::mutex mutex;
  std::map<double, std::shared_ptr<Registered>> entries;
  double next = 1;
};
Registry& registry() {
  // Not ended with the process: the kernel tells the others better that this rank is gone than code that runs while it goes.
  static Registry& r = *new Registry;
  return r;
}
}  // namespace

double registerCommunicator(std::shared_ptr<Registered> entry) {
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  r.entries[r.next] = std::move(entry);
  return r.next++;
}

std::shared_ptr<Registered> findCommunicator(double handle) {
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  auto found = r.entries.find(handle);
  return found == r.entries.end() ? nullptr : found->second;
}

void forgetCommunicator(double handle) {
  std::shared_ptr<Registered> last;  // declared first, so that it ends when the lock is gone
  Registry& r = registry();
  std::lock_guard<std::mutex> lock(r.mutex);
  auto found = r.entries.find(handle);
  if (found == r.entries.end()) return;
  last = std::move(found->second);
  r.entries.erase(found);
}
