#include "shared_segment.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>
#include "portability.h"

namespace {

constexpr uint64_t kMagic = 0x3250545f41484441;  // changes with the layout
constexpr size_t kPage = 4096;
size_t wholePages(size_t bytes) { return (bytes + kPage - 1) & ~(kPage - 1); }

/// Small enough to stay in the cores' caches between writing and reading, large enough that meeting costs little beside it.
size_t slotBytesFor(int size) { return std::max(size_t(64) << 10, std::min(size_t(256) << 10, (size_t(16) << 20) / size_t(size) & ~(kPage - 1))); }

void nap(double seconds) {
  timespec t{time_t(seconds), long((seconds - double(time_t(seconds))) * 1e9)};
  nanosleep(&t, nullptr);
}

struct Descriptor {
  const int fd;
  ~Descriptor() { if (fd >= 0) close(fd); }
};

[[noreturn]] void system(const std::string& what) { throw RankFailure{what + ": " + strerror(errno)}; }

}  // namespace

long futexWait(std::atomic<uint32_t>& word, uint32_t value, double seconds) {
  timespec t{time_t(seconds), long((seconds - double(time_t(seconds))) * 1e9)};
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, value, &t, nullptr, 0);
}
void futexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, 0x7fffffff, nullptr, nullptr, 0);
}

Segment::Segment(const std::string& name, int rank, int size, int threads, const std::vector<int>& cores, double timeout, const Reason& abandoned)
    : size_(size),
      slotBytes_(slotBytesFor(size)),
      slots_(wholePages(sizeof(Header) + size_t(size) * (sizeof(Progress) + sizeof(Member)))),
      bytes_(slots_ + size_t(size) * 2 * slotBytes_) {
  const std::string path = "/aphrodite-" + name;
  const double until = now() + timeout;
  auto check = [&] {
    if (abandoned.given()) throw RankFailure{abandoned.text()};
  };
  // Whoever fails before all are there takes the name away: the others cannot meet any more either.
  struct Unlink {
    const std::string& path;
    bool armed;
    ~Unlink() { if (armed) shm_unlink(path.c_str()); }
  } unlink{path, false};

  int fd = -1;
  if (rank == 0) {
    fd = shm_open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST) throw RankFailure{"shared memory of the name " + name + " is there already: a name serves once"};
    if (fd < 0) system("rank 0 cannot make shared memory of the name " + name);
    unlink.armed = true;
  } else {
    while ((fd = shm_open(path.c_str(), O_RDWR | O_CLOEXEC, 0)) < 0) {
      if (errno != ENOENT) system("rank " + std::to_string(rank) + " cannot open shared memory of the name " + name);
      check();
      if (now() > until) throw RankFailure{"rank 0 did not come within " + seconds(timeout) + ": there is no shared memory of the name " + name};
      nap(1e-3);
    }
    unlink.armed = true;
  }
  Descriptor descriptor{fd};
  if (rank == 0) {
    // Reserved at once: a write to a page that the file system cannot give would end the process.
    if (int code = posix_fallocate(fd, 0, off_t(bytes_))) {
      errno = code;
      system("the ranks need " + std::to_string(bytes_ >> 20) + " MiB of shared memory (/dev/shm; docker: --shm-size)");
    }
  } else {
    struct stat s;
    for (;;) {
      if (fstat(fd, &s) != 0) system("shared memory of the name " + name);
      if (s.st_uid != geteuid()) throw RankFailure{"shared memory of the name " + name + " belongs to another user"};
      if (s.st_size == off_t(bytes_)) break;
      if (s.st_size > off_t(bytes_)) throw RankFailure{"shared memory of the name " + name + " is of another number of ranks, or another version"};
      check();
      if (now() > until) throw RankFailure{"rank 0 did not finish the shared memory of the name " + name + " within " + seconds(timeout)};
      nap(1e-3);
    }
  }
  void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (p == MAP_FAILED) system("shared memory of the name " + name + " cannot be mapped");
  memory_ = static_cast<char*>(p);
  try {
    Header& h = header();
    if (rank == 0) make();
    while (h.magic.load(std::memory_order_acquire) != kMagic) {
      if (h.magic.load() != 0) throw RankFailure{"shared memory of the name " + name + " is of another version"};
      check();
      if (now() > until) throw RankFailure{"rank 0 did not finish the shared memory of the name " + name + " within " + seconds(timeout)};
      nap(1e-3);
    }
    if (int(h.size) != size || h.bytes != bytes_) throw RankFailure{"rank 0 expects " + std::to_string(h.size) + " ranks, rank " + std::to_string(rank) + " " + std::to_string(size)};
    uint32_t none = absent;
    h.threads.fetch_add(uint32_t(threads));
    for (int core : cores)
      if (core >= 0 && core < 64 * kCoreWords) h.cores[core / 64].fetch_or(uint64_t(1) << (core % 64));
    if (!member(rank).presence.compare_exchange_strong(none, joined)) {
      fail("there are two ranks " + std::to_string(rank));
      throw RankFailure{reason()};
    }
    waitForAll(rank, until, abandoned);
  } catch (...) {
    munmap(memory_, bytes_);
    throw;
  }
}

Segment::~Segment() { munmap(memory_, bytes_); }

/// All of it is zero so far.
void Segment::make() {
  Header& h = header();
  h.size = uint32_t(size_), h.slotBytes = slotBytes_, h.bytes = bytes_;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  for (int r = 0; r < size_; r++) pthread_mutex_init(&member(r).alive, &attributes);
  pthread_mutexattr_destroy(&attributes);
  h.magic.store(kMagic, std::memory_order_release);
}

void Segment::waitForAll(int rank, double until, const Reason& abandoned) {
  for (;;) {
    bool missing[Communicator::kMostRanks] = {};
    int count = 0;
    for (int r = 0; r < size_; r++) count += missing[r] = member(r).presence.load() == absent;
    if (failed()) throw RankFailure{reason()};
    if (count == 0) return;
    if (abandoned.given()) fail(abandoned.text());
    else if (now() > until) fail(nameRanks(missing, size_) + " did not come to rank " + std::to_string(rank) + " in time");
    else nap(5e-4);
  }
}

bool Segment::crowded() const {
  int cores = 0;
  for (const auto& word : header().cores) cores += __builtin_popcountll(word.load());
  return int(header().threads.load()) > cores;
}

void Segment::fail(const std::string& reason) {
  Header& h = header();
  uint32_t no = 0;
  if (!h.failed.compare_exchange_strong(no, 1)) return;
  snprintf(h.reason, sizeof h.reason, "%s", reason.c_str());
  h.failed.store(2);
  for (int r = 0; r < size_; r++) futexWakeAll(progress(r).sequence);
}

std::string Segment::reason() const {
  const Header& h = header();
  for (double until = now() + 1; h.failed.load() == 1 && now() < until;) nap(1e-4);  // its writer may have ended meanwhile
  if (h.failed.load() != 2) return "another rank gave up";
  return std::string(h.reason, strnlen(h.reason, sizeof h.reason));
}
