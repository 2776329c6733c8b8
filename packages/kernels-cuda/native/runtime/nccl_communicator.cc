#include "nccl_communicator.h"
#include <chrono>

namespace {

Nccl::DataType typeOf(DType t) { return t == DType::f32 ? Nccl::f32 : t == DType::bf16 ? Nccl::bf16 : Nccl::f16; }
void nap(int microseconds) { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); }
using Clock = std::chrono::steady_clock;

}  // namespace

NcclCommunicator::NcclCommunicator(const Nccl& nccl, int device, int rank, int size, const Nccl::Id& id, double timeout)
    : rank(rank), size(size), nccl_(nccl), device_(device), timeout_(timeout) {
  Nccl::Config config;
  config.blocking = 0;  // whatever takes long returns at once, and is asked about
  std::unique_lock<std::mutex> lock(mutex_);
  const Nccl::Result code = nccl_.commInitRankConfig(&comm_, size, id, rank, &config);
  if (code != Nccl::success && code != Nccl::inProgress) fail(lock, code);
}

NcclCommunicator::~NcclCommunicator() {
  close();
  if (!ending_.joinable()) return;
  for (int i = 0; i < 1000 && !ended_->load(); i++) nap(10000);
  if (ended_->load()) ending_.join();
  else ending_.detach();  // a graph that nobody released still refers to it
}

bool NcclCommunicator::ready() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!comm_) throw RankFailure{reason_};
  Nccl::Result state = Nccl::inProgress;
  const Nccl::Result code = nccl_.commGetAsyncError(comm_, &state);
  if (code != Nccl::success) fail(lock, code);
  if (state != Nccl::success && state != Nccl::inProgress) fail(lock, state);
  return state == Nccl::success;
}

void NcclCommunicator::check() { ready(); }

/// Enqueues with f. The first operation of a kind connects the ranks, in the background; nothing may come behind it before.
template <class F> void NcclCommunicator::enqueue(F f) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!comm_) throw RankFailure{reason_};
  Nccl::Result code = f(comm_);
  const auto until = Clock::now() + std::chrono::duration<double>(timeout_);
  while (code == Nccl::inProgress) {
    const Nccl::Result asked = nccl_.commGetAsyncError(comm_, &code);
    if (asked != Nccl::success) fail(lock, asked);
    if (code != Nccl::inProgress) break;
    lock.unlock();  // for `abort`
    const bool late = Clock::now() > until;
    if (late) abort("the ranks did not connect for a collective in time: one of them did not come");
    else nap(20);
    lock.lock();
    if (!comm_) throw RankFailure{reason_};
  }
  if (code != Nccl::success) fail(lock, code);
}

void NcclCommunicator::allReduce(const Context& c, void* x, int64_t elements, DType t) {
  enqueue([&](Nccl::Comm comm) { return nccl_.allReduce(x, x, size_t(elements), typeOf(t), Nccl::sum, comm, c.stream); });
}

void NcclCommunicator::allGather(const Context& c, const void* x, void* out, int64_t elements, DType t) {
  enqueue([&](Nccl::Comm comm) { return nccl_.allGather(x, out, size_t(elements), typeOf(t), comm, c.stream); });
}

void NcclCommunicator::fail(std::unique_lock<std::mutex>& lock, Nccl::Result code) {
  const char* detail = nccl_.getLastError(comm_);
  if (reason_.empty()) {
    reason_ = code == Nccl::remoteError ? "another rank ended or failed: rank " + std::to_string(rank) + " lost it"
                                        : "rank " + std::to_string(rank) + " cannot exchange with the other ranks";
    reason_ += std::string(": NCCL: ") + nccl_.getErrorString(code) + (detail && *detail ? std::string(": ") + detail : "");
  }
  letGo(lock, true);
  throw RankFailure{reason_};
}

void NcclCommunicator::abort(const std::string& reason) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (reason_.empty()) reason_ = reason;
  letGo(lock, true);
}

void NcclCommunicator::close() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (reason_.empty()) reason_ = "rank " + std::to_string(rank) + " closed its communicator";
  letGo(lock, false);
}

/// On a thread of its own: NCCL waits for what is enqueued, and for graphs that captured it to be destroyed.
void NcclCommunicator::letGo(std::unique_lock<std::mutex>&, bool abort) {
  const Nccl::Comm comm = comm_;
  if (!comm) return;
  comm_ = nullptr;
  ended_ = std::make_shared<std::atomic<bool>>(false);
  ending_ = std::thread([&nccl = nccl_, comm, abort, device = device_, ended = ended_] {
    cudaSetDevice(device);
    if (abort) nccl.commAbort(comm);
    else nccl.commDestroy(comm);
    ended->store(true);
  });
}
