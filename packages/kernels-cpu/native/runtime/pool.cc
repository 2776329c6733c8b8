#include "pool.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <atomic>
#include <thread>
#include <vector>
#include "portability.h"

namespace {

/// Gives the core away between chunks, shortly before the scheduler would take it in the middle of one. Only while a
/// rival was seen lately: a step longer than 0.5 ms in which the kernel counted an involuntary switch.
class Slice {
 public:
  void begin() { if (last_ == 0) last_ = start_ = now(), switches_ = switches(); }

  /// After a chunk. True when the core was taken away since the last time.
  bool between() {
    double t = now();
    bool taken = false;
    if (t - last_ > kLong) {
      long n = switches();
      if (n != switches_) {
        switches_ = n, taken = true;
        run_ = bounded(run_ == 0 ? last_ - start_ : 0.75 * run_ + 0.25 * (last_ - start_));
        seen_ = start_ = t;
      }
    }
    last_ = t;
    if (!rival(t) || t - start_ < 0.5 * run_) return taken;
    sched_yield();
    last_ = start_ = now();
    if (last_ - t > 1e-4) seen_ = last_;
    switches_ = switches();
    return taken;
  }
  bool rival(double t) const { return t - seen_ < kRemember; }

 private:
  static constexpr double kLong = 5e-4, kRemember = 0.05;
  // How long a slice lasts here, as learnt. What was measured around a pause or a late start is no slice: a yield too early
  // gives away more than its share (the rival gets a whole slice for a part of ours), one too late comes after the fact.
  static double bounded(double run) { return run < 3e-3 ? 3e-3 : run > 6e-3 ? 6e-3 : run; }

  static long switches() {
    rusage u;
    getrusage(RUSAGE_THREAD, &u);
    return u.ru_nivcsw;
  }
  double last_ = 0, start_ = 0, seen_ = -1, run_ = 0;
  long switches_ = 0;
};

void pinTo(int core) {
  cpu_set_t s;
  CPU_ZERO(&s);
  CPU_SET(core, &s);
  pthread_setaffinity_np(pthread_self(), sizeof s, &s);  // refused in some containers: then the scheduler places us
}

/// How often this thread is pinned by a pool, and where it was allowed to run before: two devices may share it.
struct Pinned {
  int times = 0;
  cpu_set_t before;
};
thread_local Pinned pinned;

long futex(std::atomic<uint32_t>* a, int op, uint32_t v) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(a), op, v, nullptr, nullptr, 0);
}

constexpr double kSpinsPerUs = 60;  // a pause is about 16 ns on Zen 5, 40 on Skylake: only orders of magnitude matter
constexpr long kWorkerSpins = long(200 * kSpinsPerUs);  // how long an idle worker spins before it parks
constexpr long kJoinSpins = long(50 * kSpinsPerUs);     // asleep, the caller's core can run the worker that holds the chunk

}  // namespace

struct Pool::Shared {
  Fn fn = nullptr;
  void* context = nullptr;
  long workerSpins, joinSpins;
  bool pinsCaller = false;
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<uint64_t> ticket{0};
  alignas(64) std::atomic<uint32_t> epoch{0};
  alignas(64) std::atomic<uint32_t> done{0};
  alignas(64) std::atomic<uint32_t> parked{0}, joining{0};
  struct alignas(64) Worker {
    Slice slice;
    int pinnedTo = -1;
    std::atomic<int> core{-1};        // where it should be; -1: anywhere
    std::atomic<double> contended{-1};  // when it last lost its core to a rival
  };
  std::vector<Worker> workers;
  double moved = 0;
  std::vector<std::thread> threads;

  // ticket = epoch : 32 | chunks : 16 | next : 16. One word, so that a claim can never mix two jobs.
  void publish(int chunks) {
    uint32_t e = epoch.load(std::memory_order_relaxed) + 1;
    ticket.store(uint64_t(e) << 32 | uint64_t(chunks) << 16, std::memory_order_release);
    epoch.store(e);  // sequentially consistent against parked
    if (parked.load()) futex(&epoch, FUTEX_WAKE_PRIVATE, 0x7fffffff);
  }

  // fn and context are read only after a claim succeeded: the claim keeps run() from returning, so they are this job's.
  void drain(uint32_t e, int worker) {
    Worker& w = workers[size_t(worker)];
    w.slice.begin();
    uint64_t t = ticket.load(std::memory_order_acquire);
    while (uint32_t(t >> 32) == e && (t & 0xffff) < (t >> 16 & 0xffff)) {
      if (!ticket.compare_exchange_weak(t, t + 1, std::memory_order_acq_rel)) continue;
      uint32_t total = t >> 16 & 0xffff;
      fn(context, int(t & 0xffff), worker);
      if (done.fetch_add(1) + 1 == total && joining.load()) futex(&done, FUTEX_WAKE_PRIVATE, 1);
      if (w.slice.between()) lost(worker);
      t = ticket.load(std::memory_order_acquire);
    }
  }

  /// A rival took this worker's core. When it is the caller's, everything waits for it, the serial parts too: it changes places
  /// with a worker that nobody disturbs, whose part others can do.
  void lost(int worker) {
    double t = now();
    workers[size_t(worker)].contended.store(t, std::memory_order_relaxed);
    if (worker != 0 || workers[0].pinnedTo < 0 || t - moved < 0.02) return;
    for (size_t i = 1; i < workers.size(); i++) {
      if (t - workers[i].contended.load(std::memory_order_relaxed) < 0.1) continue;
      int mine = workers[0].pinnedTo;
      workers[0].core.store(workers[i].core.exchange(mine), std::memory_order_relaxed);
      settle(workers[0]);
      moved = t;
      return;
    }
  }
  /// Moves the calling thread, whose worker this is, to where it should be.
  void settle(Worker& w) {
    int core = w.core.load(std::memory_order_relaxed);
    if (core != w.pinnedTo) pinTo(w.pinnedTo = core);
  }

  void work(int id) {
    uint32_t seen = 0;
    Worker& w = workers[size_t(id)];
    for (;;) {
      settle(w);
      for (long i = 0; epoch.load(std::memory_order_acquire) == seen; i++) {
        if (i < workerSpins) { spinPause(); continue; }
        parked.fetch_add(1);
        futex(&epoch, FUTEX_WAIT_PRIVATE, seen);
        parked.fetch_sub(1);
      }
      if (stop.load()) return;
      seen = epoch.load(std::memory_order_acquire);
      drain(seen, id);
    }
  }
};

Pool::Pool(int threads, const int* cores, bool spin) : threads_(threads), shared_(new Shared) {
  Shared& s = *shared_;
  s.workerSpins = spin ? kWorkerSpins : 0, s.joinSpins = spin ? kJoinSpins : 0;
  s.workers = std::vector<Shared::Worker>(size_t(threads));
  for (int i = 0; i < threads; i++) s.workers[size_t(i)].core = cores ? cores[i] : -1;
  try {
    for (int i = 1; i < threads; i++) s.threads.emplace_back([&s, i] { s.work(i); });
  } catch (...) {
    s.stop = true;
    s.publish(0);
    for (auto& t : s.threads) t.join();
    delete shared_;
    throw;
  }
  if (cores) {
    if (pinned.times++ == 0) pthread_getaffinity_np(pthread_self(), sizeof pinned.before, &pinned.before);
    s.pinsCaller = true;
    s.settle(s.workers[0]);
  }
}

Pool::~Pool() {
  Shared& s = *shared_;
  s.stop = true;
  s.publish(0);
  for (auto& t : s.threads) t.join();
  if (s.pinsCaller && --pinned.times == 0) pthread_setaffinity_np(pthread_self(), sizeof pinned.before, &pinned.before);
  delete shared_;
}

void Pool::runRaw(int chunks, Fn fn, void* context) {
  Shared& s = *shared_;
  if (chunks == 1 || threads_ == 1) {
    for (int c = 0; c < chunks; c++) fn(context, c, 0);
    return;
  }
  constexpr int kMost = 0xffff;  // what a ticket can count; more go in rounds
  while (chunks > kMost) {
    struct Shifted { Fn fn; void* context; int by; } shifted{fn, context, chunks - kMost};
    runRaw(kMost, [](void* c, int chunk, int worker) {
      auto* it = static_cast<Shifted*>(c);
      it->fn(it->context, chunk + it->by, worker);
    }, &shifted);
    chunks -= kMost;
  }
  if (chunks <= 0) return;
  s.fn = fn, s.context = context;
  s.done.store(0, std::memory_order_relaxed);
  s.publish(chunks);
  s.drain(s.epoch.load(std::memory_order_relaxed), 0);
  for (long i = 0; s.done.load(std::memory_order_acquire) != uint32_t(chunks); i++) {
    if (i < s.joinSpins) { spinPause(); continue; }
    s.joining.store(1);
    uint32_t d = s.done.load();
    if (d != uint32_t(chunks)) futex(&s.done, FUTEX_WAIT_PRIVATE, d);
    s.joining.store(0);
  }
}
