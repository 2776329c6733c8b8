#include "tcp_communicator.h"
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <algorithm>
#include "../addon/share.h"
#include "portability.h"
#include "reduce.h"

namespace {

constexpr uint64_t kMessageMagic = 0x315f67736d505441;
constexpr double kSpin = 50e-6;   // looking at the sockets, before the kernel wakes us
constexpr double kSlice = 0.1;    // between looks at the time limit
constexpr int64_t kSmall = 64 << 10;  // up to here everybody gets everything and sums it; larger ones are summed in shares
constexpr int64_t kChunk = 1 << 20;
constexpr double kCopy = 0.08, kReduce = 0.15;
constexpr size_t kMostReason = 500;
constexpr char kAborted = 'A', kClosed = 'C';

}  // namespace

TcpCommunicator::TcpCommunicator(TcpOptions options, int listener)
    : Communicator(options.rank, options.size, options.timeout),
      options_(std::move(options)),
      listener_(listener),
      wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      closed_(size_t(size)) {}

TcpCommunicator::~TcpCommunicator() {
  closePeers(peers_);
  if (listener_ >= 0) ::close(listener_);
  if (wake_ >= 0) ::close(wake_);
}

void TcpCommunicator::join() {
  auto peers = meetPeers(options_, listener_, abandoned_);
  ::close(listener_);
  listener_ = -1;
  {
    std::lock_guard<std::mutex> lock(telling_);
    peers_ = std::move(peers);
    reachable_ = true;
  }
  if (abandoned_.given()) tell(kAborted, abandoned_.text());
}

void TcpCommunicator::abort(const std::string& reason) {
  if (!abandoned_.give(reason)) return;
  const uint64_t one = 1;
  if (write(wake_, &one, sizeof one) < 0) {}  // full: then it is awake anyway
  tell(kAborted, reason);
}

void TcpCommunicator::close() {
  if (abandoned_.give("rank " + std::to_string(rank) + " closed its communicator")) tell(kClosed, "");
}

/// On the control connections, where nothing else goes and little ever went: into empty buffers.
void TcpCommunicator::tell(char kind, const std::string& reason) {
  const std::string text = reason.substr(0, kMostReason);
  std::string message(1, kind);
  message += char(text.size() & 255), message += char(text.size() >> 8), message += text;
  std::lock_guard<std::mutex> lock(telling_);
  if (!reachable_) return;
  reachable_ = false;
  for (const Peer& p : peers_)
    if (p.control >= 0 && send(p.control, message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {}  // it is gone: its own end tells
}

void TcpCommunicator::fail(const std::string& reason) {
  abort(reason);
  throw RankFailure{abandoned_.text()};
}

void TcpCommunicator::begin() {
  hearControl(0, nullptr);
  if (abandoned_.given()) throw RankFailure{abandoned_.text()};
}

/// Waits for anything: a word of another rank, our own abort, or where `pending` can go on.
void TcpCommunicator::hearControl(int milliseconds, const std::vector<Exchange>* pending) {
  std::vector<pollfd> all;
  all.reserve(size_t(size) * 2 + 1);
  for (int r = 0; r < size; r++)
    if (r != rank) all.push_back({closed_[size_t(r)] ? -1 : peers_[size_t(r)].control, POLLIN, 0});
  all.push_back({wake_, POLLIN, 0});
  if (pending)
    for (const Exchange& e : *pending) {
      const short events = short((e.sentAll() ? 0 : POLLOUT) | (e.receivedAll() ? 0 : POLLIN));
      if (events) all.push_back({peers_[size_t(e.peer)].data, events, 0});
    }
  if (poll(all.data(), nfds_t(all.size()), milliseconds) <= 0) return;
  for (int r = 0, i = 0; r < size; r++) {
    if (r == rank || !all[size_t(i++)].revents) continue;
    unsigned char message[3 + kMostReason];
    const ssize_t n = recv(peers_[size_t(r)].control, message, sizeof message, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n >= 3 && message[0] == kClosed) {
      closed_[size_t(r)] = true;  // what it sent before may still be on its way
      continue;
    }
    if (n >= 3 && message[0] == kAborted) fail(std::string(reinterpret_cast<char*>(message) + 3, std::min(size_t(n - 3), size_t(message[1] | message[2] << 8))));
    fail(name(r) + " ended: its connection is gone");
  }
}

template <class F> void TcpCommunicator::exchange(const Operation& operation, F of) {
  exchanges_.clear();
  sequence_++;
  for (int i = 1; i < size; i++) {
    Exchange e{};
    e.peer = (rank + i) % size;
    of(e);
    e.out = {kMessageMagic, sequence_, operation, e.sendBytes};
    exchanges_.push_back(e);
  }
  run(operation);
}

void TcpCommunicator::run(const Operation& operation) {
  double moved = now();
  for (;;) {
    bool done = true, progress = false;
    for (Exchange& e : exchanges_) {
      if (!e.sentAll()) progress |= push(e);
      if (!e.receivedAll()) progress |= pull(e, operation);
      done &= e.sentAll() && e.receivedAll();
    }
    if (done) return;
    if (abandoned_.given()) throw RankFailure{abandoned_.text()};
    const double t = now();
    if (progress) moved = t;
    if (t - moved < kSpin) continue;
    hearControl(int(std::min(kSlice, timeout) * 1000) + 1, &exchanges_);
    if (now() - moved < timeout) continue;
    bool missing[kMostRanks] = {};
    for (Exchange& e : exchanges_) missing[e.peer] = !e.sentAll() || !e.receivedAll();
    // A message that arrived while the limit passed counts.
    bool more = false;
    for (Exchange& e : exchanges_) more |= (!e.sentAll() && push(e)) || (!e.receivedAll() && pull(e, operation));
    if (!more) fail(nameRanks(missing, size) + " did not come to " + describe(operation) + " within " + seconds(timeout));
    moved = now();
  }
}

/// Whether some of it went.
bool TcpCommunicator::push(Exchange& e) {
  iovec parts[2];
  msghdr message{};
  message.msg_iov = parts;
  size_t payload = 0;
  if (e.sent < sizeof e.out) parts[message.msg_iovlen++] = {reinterpret_cast<char*>(&e.out) + e.sent, sizeof e.out - e.sent};
  else payload = e.sent - sizeof e.out;
  if (e.sendBytes > payload) parts[message.msg_iovlen++] = {const_cast<char*>(e.send) + payload, e.sendBytes - payload};
  const ssize_t n = sendmsg(peers_[size_t(e.peer)].data, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (n <= 0) lost(e.peer);
  e.sent += size_t(n);
  return true;
}

bool TcpCommunicator::pull(Exchange& e, const Operation& operation) {
  const bool header = e.received < sizeof e.in;
  char* to = header ? reinterpret_cast<char*>(&e.in) + e.received : e.receive + (e.received - sizeof e.in);
  const size_t want = header ? sizeof e.in - e.received : sizeof e.in + e.receiveBytes - e.received;
  const ssize_t n = recv(peers_[size_t(e.peer)].data, to, want, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (n <= 0) lost(e.peer);
  e.received += size_t(n);
  if (!header || e.received < sizeof e.in) return true;
  if (e.in.magic != kMessageMagic) fail(name(e.peer) + " sent something that is no message of this version");
  if (!(e.in.operation == operation)) fail(mismatch(rank, operation, e.peer, e.in.operation));
  if (e.in.sequence != sequence_ || e.in.bytes != e.receiveBytes) fail(name(e.peer) + " is at another place of " + describe(operation));
  return true;
}

/// A data connection ended: the reason, where there is one, is on the control connection or comes within a moment.
void TcpCommunicator::lost(int peer) {
  for (double until = now() + 0.2; now() < until && !closed_[size_t(peer)];) hearControl(10, nullptr);
  fail(closed_[size_t(peer)] ? name(peer) + " closed its communicator while rank " + std::to_string(rank) + " waits for it"
                             : name(peer) + " ended: its connection is gone");
}

char* TcpCommunicator::packed(int64_t bytes) {
  if (int64_t(packed_.size()) < bytes) packed_.resize(size_t(bytes));
  return packed_.data();
}
char* TcpCommunicator::received(int64_t bytes) {
  if (int64_t(received_.size()) < bytes) received_.resize(size_t(bytes));
  return received_.data();
}

void TcpCommunicator::allReduce(Context& context, const Rows& x) {
  begin();
  const Operation operation{Operation::allReduce, x.dtype, x.rows, x.cols};
  const int64_t bytes = sizeOf(x.dtype), total = x.elements();
  const bool whole = size == 2 || total * bytes <= kSmall;
  const ReduceKernel reduce = reduceKernel(context.isa);
  for (int64_t at = 0; at < total; at += kChunk / bytes) {
    const int64_t n = std::min(total - at, kChunk / bytes);
    char* const mine = packed(n * bytes);
    x.copyTo(mine, at, n);
    // The elements that this rank sums: all, or its share. Rank r's lie at `theirs` + r times their bytes.
    const int64_t first = whole ? 0 : shareBegin(n, rank, size), count = whole ? n : shareBegin(n, rank + 1, size) - first;
    char* const theirs = received(count * bytes * size);
    exchange(operation, [&](Exchange& e) {
      const int64_t begin = whole ? 0 : shareBegin(n, e.peer, size), end = whole ? n : shareBegin(n, e.peer + 1, size);
      e.send = mine + begin * bytes, e.sendBytes = size_t((end - begin) * bytes);
      e.receive = theirs + e.peer * count * bytes, e.receiveBytes = size_t(count * bytes);
    });
    share(context.pool, count, kReduce * size, 64, [&](int64_t from, int64_t to, int) {
      const void* parts[kMostRanks];
      for (int r = 0; r < size; r++) parts[r] = r == rank ? mine + (first + from) * bytes : theirs + (r * count + from) * bytes;
      reduce(x.dtype, mine + (first + from) * bytes, parts, size, to - from);
    });
    if (!whole)
      exchange(operation, [&](Exchange& e) {
        const int64_t begin = shareBegin(n, e.peer, size), end = shareBegin(n, e.peer + 1, size);
        e.send = mine + first * bytes, e.sendBytes = size_t(count * bytes);
        e.receive = mine + begin * bytes, e.receiveBytes = size_t((end - begin) * bytes);
      });
    x.copyFrom(mine, at, n);
  }
}

void TcpCommunicator::allGather(Context&, const Rows& out, const Rows& x) {
  begin();
  const Operation operation{Operation::allGather, x.dtype, x.rows, x.cols};
  const int64_t bytes = sizeOf(x.dtype), total = x.elements(), most = kChunk / bytes / size;
  for (int64_t at = 0; at < total; at += most) {
    const int64_t n = std::min(total - at, most);
    char* const mine = packed(n * bytes);
    char* const theirs = received(n * bytes * size);
    x.copyTo(mine, at, n);
    exchange(operation, [&](Exchange& e) {
      e.send = mine, e.sendBytes = e.receiveBytes = size_t(n * bytes);
      e.receive = theirs + e.peer * n * bytes;
    });
    for (int r = 0; r < size; r++) out.columns(r * x.cols, x.cols).copyFrom(r == rank ? mine : theirs + r * n * bytes, at, n);
  }
}
