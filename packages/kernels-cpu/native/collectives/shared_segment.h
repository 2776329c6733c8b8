// The memory that ranks on one host share: who is there, how far each has come, and two slots a rank for what they exchange.
// It has a name only until all ranks have it open, so that whatever happens afterwards leaves nothing behind.
#pragma once
#include <pthread.h>
#include <atomic>
#include <string>
#include <vector>
#include "communicator.h"
#include "reason.h"

struct Segment {
  static constexpr int kCoreWords = 16;

  /// How far a rank has come. Only its owner writes it, so that others' polls do not slow each other down.
  struct alignas(64) Progress {
    std::atomic<uint32_t> sequence;
    Operation operations[2];  // of this sequence number and the one before, by its last bit
  };
  struct alignas(64) Member {
    std::atomic<uint32_t> sleepers;  // who waits for this rank's progress in the kernel
    std::atomic<uint32_t> presence;
    pthread_mutex_t alive;  // robust: held by the rank's thread; the kernel marks it when that thread ends, however it ends
  };
  enum Presence : uint32_t { absent, joined, closed };
  struct alignas(64) Header {
    std::atomic<uint64_t> magic;  // last, when the rest is there
    uint32_t size, reserved;
    uint64_t slotBytes, bytes;
    std::atomic<uint32_t> threads;  // of all ranks
    std::atomic<uint64_t> cores[kCoreWords];  // that one rank or another may use, a bit each
    alignas(64) std::atomic<uint32_t> failed;  // 0: no; 1: the reason is being written; 2: yes
    char reason[512];
  };

  /// Rank 0 makes it, the others wait for it; returns when all ranks have it open. Throws RankFailure: also when
  /// `abandoned` gets a reason meanwhile. `threads` and `cores`: of this rank.
  Segment(const std::string& name, int rank, int size, int threads, const std::vector<int>& cores, double timeout, const Reason& abandoned);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  Header& header() const { return *reinterpret_cast<Header*>(memory_); }
  Progress& progress(int rank) const { return reinterpret_cast<Progress*>(memory_ + sizeof(Header))[rank]; }
  Member& member(int rank) const {
    return reinterpret_cast<Member*>(memory_ + sizeof(Header) + size_t(size_) * sizeof(Progress))[rank];
  }
  char* slot(int rank, int which) const { return memory_ + slots_ + size_t(rank * 2 + which) * slotBytes_; }
  size_t slotBytes() const { return slotBytes_; }

  /// Whether the ranks have more threads than cores to run them.
  bool crowded() const;
  /// Gives up for all ranks and wakes them; the first reason stays.
  void fail(const std::string& reason);
  bool failed() const { return header().failed.load(std::memory_order_relaxed) != 0; }
  std::string reason() const;

 private:
  void make();
  void waitForAll(int rank, double until, const Reason& abandoned);
  char* memory_ = nullptr;
  const int size_;
  const size_t slotBytes_, slots_, bytes_;
};

long futexWait(std::atomic<uint32_t>& word, uint32_t value, double seconds);
void futexWakeAll(std::atomic<uint32_t>& word);
