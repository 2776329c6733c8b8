#include "copy_threads.h"
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <system_error>

namespace {

constexpr size_t kPart = size_t(1) << 20;
constexpr size_t kMostThreads = 8;

/// Maps the pages of a stretch in one call: cheaper than a fault for every few of them. Where the system cannot, faults do it.
void populate(const char* from, size_t bytes) {
#ifdef MADV_POPULATE_READ
  static const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  const uintptr_t start = uintptr_t(from) / page * page;
  madvise(reinterpret_cast<void*>(start), uintptr_t(from) + bytes - start, MADV_POPULATE_READ);
#else
  (void)from, (void)bytes;
#endif
}

/// Bytes [begin, end) of the pieces laid end to end.
void copyPart(const CopyJob& job, size_t begin, size_t end) {
  while (begin < end) {
    const size_t piece = begin / job.bytes, offset = begin % job.bytes;
    const size_t n = job.bytes - offset < end - begin ? job.bytes - offset : end - begin;
    memcpy(job.to + begin, job.from + piece * job.stride + offset, n);
    begin += n;
  }
}

}  // namespace

CopyThreads::~CopyThreads() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
  }
  start_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void CopyThreads::takeParts() {
  for (;;) {
    const size_t begin = next_.fetch_add(kPart);
    if (begin >= total_) return;
    const size_t end = begin + kPart < total_ ? begin + kPart : total_;
    if (job_.stride == job_.bytes) populate(job_.from + begin, end - begin);
    copyPart(job_, begin, end);
  }
}

void CopyThreads::work() {
  size_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    start_.wait(lock, [&] { return ended_ || generation_ != seen; });
    if (ended_) return;
    seen = generation_;
    lock.unlock();
    takeParts();
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

void CopyThreads::copy(const CopyJob& job) {
  CopyJob j = job;
  if (j.stride == j.bytes || j.pieces == 1) j.bytes *= j.pieces, j.stride = j.bytes, j.pieces = 1;
  const size_t total = j.bytes * j.pieces;
  if (total < 2 * kPart) return copyPart(j, 0, total);
  if (threads_.empty()) {
    size_t n = std::thread::hardware_concurrency() / 2;
    if (n > kMostThreads) n = kMostThreads;
    try {
      for (size_t i = 1; i < n; i++) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // No more threads to be had: those that started do it, or this one alone.
    }
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    job_ = j, total_ = total, next_ = 0, running_ = threads_.size(), generation_++;
  }
  start_.notify_all();
  takeParts();
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [&] { return running_ == 0; });
}
