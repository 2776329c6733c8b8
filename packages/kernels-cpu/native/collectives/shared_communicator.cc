#include "shared_communicator.h"
#include <errno.h>
#include <sched.h>
#include "../addon/share.h"
#include "portability.h"
#include "reduce.h"

namespace {

// How long a rank that waits keeps its core: as long as a step's products may differ between ranks that have a core each;
// only as long as a cache line travels where they have not, and another rank can use the core. Afterwards it asks whether
// anybody else wants it, for a while, before it sleeps: waking up costs more than all of the exchange.
constexpr double kSpin = 100e-6, kCrowdedSpin = 2e-6, kYield = 400e-6, kCrowdedYield = 50e-6;
// Between looks at what no wake-up tells: a rank that ended, the time limit.
constexpr double kSlice = 20e-3;
// Nanoseconds an element: what decides whether threads share the work.
constexpr double kCopy = 0.08, kReduce = 0.15;
// From here on every rank sums only its share, at the price of meeting twice. Two ranks move the same either way.
constexpr int64_t kShared = 32 << 10;

bool reached(uint32_t sequence, uint32_t wanted) { return int32_t(sequence - wanted) >= 0; }

}  // namespace

void SharedCommunicator::join() {
  auto segment = std::make_unique<Segment>(name_, rank, size, threads_, cores_, timeout, abandoned_);
  const bool crowded = segment->crowded();
  spin_ = crowded ? kCrowdedSpin : kSpin, yield_ = crowded ? kCrowdedYield : kYield;
  segment_ = std::move(segment);
  shared_.store(segment_.get());
  if (abandoned_.given()) segment_->fail(abandoned_.text());
}

void SharedCommunicator::enter() {
  pthread_mutex_lock(&segment_->member(rank).alive);
  entered_ = true;
}

/// One that was not closed. The lock must not go away while this thread holds it.
SharedCommunicator::~SharedCommunicator() {
  if (!entered_) return;
  segment_->fail("rank " + std::to_string(rank) + " ended");
  pthread_mutex_unlock(&segment_->member(rank).alive);
}

void SharedCommunicator::abort(const std::string& reason) {
  abandoned_.give(reason);
  if (Segment* s = shared_.load()) s->fail(reason);
}

void SharedCommunicator::close() {
  abandoned_.give("rank " + std::to_string(rank) + " closed its communicator");
  if (!segment_ || !entered_) return;
  entered_ = false;
  segment_->member(rank).presence.store(Segment::closed);
  pthread_mutex_unlock(&segment_->member(rank).alive);
  futexWakeAll(segment_->progress(rank).sequence);
}

void SharedCommunicator::fail(const std::string& reason) {
  segment_->fail(reason);
  throw RankFailure{segment_->reason()};
}

void SharedCommunicator::begin() const {
  if (segment_->failed()) throw RankFailure{segment_->reason()};
}

/// Returns when all ranks have come this far: what they wrote before is here then.
void SharedCommunicator::meet(const Operation& operation) {
  const uint32_t sequence = ++sequence_;
  Segment::Progress& mine = segment_->progress(rank);
  mine.operations[sequence & 1] = operation;
  mine.sequence.store(sequence);  // sequentially consistent against sleepers
  if (segment_->member(rank).sleepers.load()) futexWakeAll(mine.sequence);
  double since = 0;
  for (int i = 1; i < size; i++) await((rank + i) % size, sequence, operation, since);
}

void SharedCommunicator::await(int other, uint32_t sequence, const Operation& operation, double& since) {
  Segment::Progress& theirs = segment_->progress(other);
  auto here = [&] { return reached(theirs.sequence.load(std::memory_order_acquire), sequence); };
  if (!here()) {
    const double begun = now();
    if (since == 0) since = begun;
    const auto until = [&](double end, auto step) {
      while (!here() && now() < end && !segment_->failed()) step();
    };
    until(begun + spin_, [&] {
      for (int i = 0; i < 16 && !here(); i++) spinPause();
    });
    until(begun + spin_ + yield_, [] { sched_yield(); });
    std::atomic<uint32_t>& sleepers = segment_->member(other).sleepers;
    while (!here()) {
      look(other, sequence, operation, since);
      sleepers.fetch_add(1);
      const uint32_t seen = theirs.sequence.load();
      if (!reached(seen, sequence) && !segment_->failed()) futexWait(theirs.sequence, seen, kSlice < timeout ? kSlice : timeout);
      sleepers.fetch_sub(1);
    }
  }
  // Theirs stays until this rank has come to the operation after the next.
  const Operation& called = theirs.operations[sequence & 1];
  if (!(called == operation)) fail(mismatch(rank, operation, other, called));
}

/// Throws where there is no more to wait for.
void SharedCommunicator::look(int other, uint32_t sequence, const Operation& operation, double since) {
  if (segment_->failed()) throw RankFailure{segment_->reason()};
  auto reachedNow = [&](int r) { return reached(segment_->progress(r).sequence.load(), sequence); };
  Segment::Member& member = segment_->member(other);
  const std::string name = "rank " + std::to_string(other);
  if (member.presence.load() == Segment::closed && !reachedNow(other)) fail(name + " closed its communicator while rank " + std::to_string(rank) + " waits for it");
  const int code = pthread_mutex_trylock(&member.alive);
  if (code == EOWNERDEAD) pthread_mutex_consistent(&member.alive);
  if (code == 0 || code == EOWNERDEAD) pthread_mutex_unlock(&member.alive);
  if (code == EOWNERDEAD && !reachedNow(other)) fail(name + " ended");
  if (now() - since < timeout) return;
  bool missing[kMostRanks] = {};
  int count = 0;
  for (int r = 0; r < size; r++) count += missing[r] = r != rank && !reachedNow(r);
  if (count) fail(nameRanks(missing, size) + " did not come to " + describe(operation) + " within " + seconds(timeout));
}

void SharedCommunicator::allReduce(Context& context, const Rows& x) {
  begin();
  const Operation operation{Operation::allReduce, x.dtype, x.rows, x.cols};
  const int64_t bytes = sizeOf(x.dtype), most = int64_t(segment_->slotBytes()) / bytes, total = x.elements();
  const ReduceKernel reduce = reduceKernel(context.isa);
  // out: where elements [from, from + n) go; parts: the same elements in everybody's slots.
  auto sum = [&](char* out, int64_t from, int64_t n) {
    const void* parts[kMostRanks];
    for (int r = 0; r < size; r++) parts[r] = segment_->slot(r, slot_) + from * bytes;
    reduce(x.dtype, out, parts, size, n);
  };
  for (int64_t at = 0; at < total; at += most) {
    const int64_t n = total - at < most ? total - at : most;
    char* const mine = segment_->slot(rank, slot_);
    share(context.pool, n, kCopy, 64, [&](int64_t from, int64_t to, int) { x.copyTo(mine + from * bytes, at + from, to - from); });
    meet(operation);
    if (size == 2 || n * bytes < kShared) {
      share(context.pool, n, kReduce * size, 64, [&](int64_t from, int64_t to, int) {
        x.stretches(at + from, to - from, [&](char* out, int64_t offset, int64_t count) { sum(out, from + offset, count); });
      });
    } else {
      const int64_t first = shareBegin(n, rank, size), end = shareBegin(n, rank + 1, size);
      share(context.pool, end - first, kReduce * size, 64, [&](int64_t from, int64_t to, int) {
        sum(mine + (first + from) * bytes, first + from, to - from);  // nobody else reads this part before they meet again
      });
      meet(operation);
      for (int r = 0; r < size; r++) {
        const int64_t begin = shareBegin(n, r, size), count = shareBegin(n, r + 1, size) - begin;
        const char* theirs = segment_->slot(r, slot_) + begin * bytes;
        share(context.pool, count, kCopy, 64, [&](int64_t from, int64_t to, int) { x.copyFrom(theirs + from * bytes, at + begin + from, to - from); });
      }
    }
    slot_ ^= 1;  // a slot is written again after the next meeting: everybody is done with it by then
  }
}

void SharedCommunicator::allGather(Context& context, const Rows& out, const Rows& x) {
  begin();
  const Operation operation{Operation::allGather, x.dtype, x.rows, x.cols};
  const int64_t bytes = sizeOf(x.dtype), most = int64_t(segment_->slotBytes()) / bytes, total = x.elements();
  for (int64_t at = 0; at < total; at += most) {
    const int64_t n = total - at < most ? total - at : most;
    char* const mine = segment_->slot(rank, slot_);
    share(context.pool, n, kCopy, 64, [&](int64_t from, int64_t to, int) { x.copyTo(mine + from * bytes, at + from, to - from); });
    meet(operation);
    for (int r = 0; r < size; r++) {
      const Rows place = out.columns(r * x.cols, x.cols);
      const char* theirs = segment_->slot(r, slot_);
      share(context.pool, n, kCopy, 64, [&](int64_t from, int64_t to, int) { place.copyFrom(theirs + from * bytes, at + from, to - from); });
    }
    slot_ ^= 1;
  }
}
