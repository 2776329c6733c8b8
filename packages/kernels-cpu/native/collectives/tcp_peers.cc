#include "tcp_peers.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include "portability.h"
#include "tcp_handshake.h"

namespace {

constexpr double kLook = 20e-3;       // between looks at whether we were given up
constexpr double kRetry = 50e-3;      // a rank that does not listen yet
constexpr double kPatience = 10;      // with one connection that says nothing
constexpr size_t kMostStrangers = 64;  // connections that have not shown yet who they are

struct Socket {
  int fd = -1;
  explicit Socket(int fd) : fd(fd) {}
  Socket(Socket&& o) noexcept : fd(o.take()) {}
  Socket& operator=(Socket&& o) noexcept { std::swap(fd, o.fd); return *this; }
  ~Socket() { if (fd >= 0) close(fd); }
  int take() { int f = fd; fd = -1; return f; }
};

struct Addresses {
  addrinfo* list = nullptr;
  std::string failure;
  Addresses(const Address& a, bool toListen) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC, hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (toListen ? AI_PASSIVE : 0);
    if (int code = getaddrinfo(a.host.empty() ? nullptr : a.host.c_str(), a.port.c_str(), &hints, &list)) failure = gai_strerror(code);
  }
  ~Addresses() { if (list) freeaddrinfo(list); }
};

void randomBytes(uint8_t* p, size_t n) {
  for (size_t at = 0; at < n;) {
    const ssize_t got = getrandom(p + at, n - at, 0);
    if (got < 0 && errno != EINTR) throw RankFailure{std::string("getrandom: ") + strerror(errno)};
    if (got > 0) at += size_t(got);
  }
}

void configure(int fd, double timeout) {
  const int on = 1, milliseconds = int(timeout * 1000);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
}

std::string nameOf(const sockaddr_storage& a, socklen_t length) {
  char host[NI_MAXHOST];
  const int code = getnameinfo(reinterpret_cast<const sockaddr*>(&a), length, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return code == 0 ? host : "an unknown address";
}

class Meeting {
 public:
  Meeting(const TcpOptions& options, int listener, const Reason& abandoned)
      : o_(options), listener_(listener), abandoned_(abandoned), until_(now() + options.timeout), peers_(size_t(options.size)) {}
  ~Meeting() { closePeers(peers_); }

  std::vector<Peer> run() {
    for (int r = 0; r < o_.rank; r++)
      for (Channel channel : {Channel::control, Channel::data}) place(r, channel) = connectTo(r, channel);
    while (waitsForHigher()) acceptSome();
    return std::move(peers_);
  }

 private:
  struct Stranger {
    Socket socket;
    std::string from;
    double until;
    Hello hello;
    Reply reply;
    uint8_t confirm[32];
    size_t got = 0;
  };

  int& place(int rank, Channel channel) { return channel == Channel::data ? peers_[size_t(rank)].data : peers_[size_t(rank)].control; }

  void check() const {
    if (abandoned_.given()) throw RankFailure{abandoned_.text()};
  }

  // A connection of ours to a lower rank: the address is known, so what goes wrong there is an error, but for one that is not up yet.
  int connectTo(int rank, Channel channel) {
    const Address& address = o_.addresses[size_t(rank)];
    const std::string who = "rank " + std::to_string(rank) + " at " + address.text();
    for (std::string why;;) {
      check();
      Addresses found(address, false);
      why = found.failure;
      for (addrinfo* a = found.list; a; a = a->ai_next) {
        Socket s(socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (s.fd < 0 || (connect(s.fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS)) { why = strerror(errno); continue; }
        if (!wait(s.fd, POLLOUT, std::min(until_, now() + kPatience))) { why = "no answer"; continue; }
        int code = 0;
        socklen_t length = sizeof code;
        getsockopt(s.fd, SOL_SOCKET, SO_ERROR, &code, &length);
        if (code != 0) { why = strerror(code); continue; }
        configure(s.fd, o_.timeout);
        introduce(s.fd, rank, channel, who);
        return s.take();
      }
      if (now() > until_) throw RankFailure{who + " did not come within " + seconds(o_.timeout) + ": " + why};
      wait(-1, 0, std::min(until_, now() + kRetry));
    }
  }

  void introduce(int fd, int rank, Channel channel, const std::string& who) {
    Hello hello{};
    memcpy(hello.magic, kHelloMagic, sizeof hello.magic);
    hello.byteOrder = kByteOrder, hello.rank = uint32_t(o_.rank), hello.size = uint32_t(o_.size), hello.channel = uint32_t(channel);
    randomBytes(hello.nonce, sizeof hello.nonce);
    Reply reply;
    transfer(fd, &hello, sizeof hello, true, who);
    transfer(fd, &reply, sizeof reply, false, who);
    if (!sameDigest(proof(o_.secret, "acceptor", hello, reply).data(), reply.proof)) throw RankFailure{who + " does not know the secret of this run"};
    if (int(reply.rank) != rank) throw RankFailure{who + " is rank " + std::to_string(reply.rank)};
    const Digest mine = proof(o_.secret, "connector", hello, reply);
    transfer(fd, const_cast<uint8_t*>(mine.data()), mine.size(), true, who);
    uint8_t welcome = 0;
    transfer(fd, &welcome, 1, false, who);
    if (welcome == uint8_t(Welcome::otherSize)) throw RankFailure{who + " expects " + std::to_string(reply.size) + " ranks, rank " + std::to_string(o_.rank) + " " + std::to_string(o_.size)};
    if (welcome == uint8_t(Welcome::taken)) throw RankFailure{who + " has a rank " + std::to_string(o_.rank) + " already"};
    if (welcome != uint8_t(Welcome::yes)) throw RankFailure{who + " sent something that is no welcome"};
  }

  void transfer(int fd, void* bytes, size_t n, bool out, const std::string& who) {
    char* p = static_cast<char*>(bytes);
    for (size_t at = 0; at < n;) {
      const ssize_t moved = out ? send(fd, p + at, n - at, MSG_NOSIGNAL) : recv(fd, p + at, n - at, 0);
      if (moved > 0) { at += size_t(moved); continue; }
      if (moved == 0) throw RankFailure{who + " ended the handshake: has it the same secret and the same version?"};
      if (errno == EINTR) continue;
      if (errno != EAGAIN) throw RankFailure{who + ": " + strerror(errno)};
      if (!wait(fd, out ? POLLOUT : POLLIN, until_)) throw RankFailure{who + " did not finish the handshake within " + seconds(o_.timeout)};
    }
  }

  bool wait(int fd, short events, double until) const {
    for (;;) {
      check();
      const double left = until - now();
      if (left <= 0) return false;
      pollfd p{fd, events, 0};
      if (poll(&p, 1, int(std::min(left, kLook) * 1000) + 1) > 0) return true;
    }
  }

  // Connections to us: anybody may come, so whatever is wrong with one closes that one.
  bool waitsForHigher() {
    for (int r = o_.rank + 1; r < o_.size; r++)
      if (peers_[size_t(r)].control < 0 || peers_[size_t(r)].data < 0) return true;
    return false;
  }

  void acceptSome() {
    check();
    if (now() > until_) {
      bool missing[Communicator::kMostRanks] = {};
      for (int r = o_.rank + 1; r < o_.size; r++) missing[r] = peers_[size_t(r)].control < 0 || peers_[size_t(r)].data < 0;
      throw RankFailure{nameRanks(missing, o_.size) + " did not come to rank " + std::to_string(o_.rank) + " within " + seconds(o_.timeout) + refused_};
    }
    std::vector<pollfd> all{{listener_, POLLIN, 0}};
    for (auto& s : strangers_) all.push_back({s.socket.fd, POLLIN, 0});
    poll(all.data(), nfds_t(all.size()), int(kLook * 1000));
    for (size_t i = strangers_.size(); i-- > 0;) {
      Stranger& s = strangers_[i];
      const bool late = now() > s.until;
      if (all[i + 1].revents == 0 && !late) continue;
      if (late) refuse(s, "said nothing");
      if (late || !hear(s)) strangers_.erase(strangers_.begin() + long(i));
    }
    if (all[0].revents) greet();
  }

  void greet() {
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    Socket s(accept4(listener_, reinterpret_cast<sockaddr*>(&from), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (s.fd < 0) return;
    configure(s.fd, o_.timeout);
    if (strangers_.size() == kMostStrangers) strangers_.erase(strangers_.begin());
    strangers_.push_back({std::move(s), nameOf(from, length), now() + kPatience, {}, {}, {}, 0});
  }

  void refuse(const Stranger& s, const char* why) { refused_ = "; a connection from " + s.from + " " + why; }

  /// False when it is done with: accepted or refused.
  bool hear(Stranger& s) {
    for (;;) {
      const bool toConfirm = s.got >= sizeof s.hello;
      char* p = toConfirm ? reinterpret_cast<char*>(s.confirm) + (s.got - sizeof s.hello) : reinterpret_cast<char*>(&s.hello) + s.got;
      const size_t want = toConfirm ? sizeof s.hello + sizeof s.confirm - s.got : sizeof s.hello - s.got;
      const ssize_t n = recv(s.socket.fd, p, want, 0);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
      if (n <= 0) return refuse(s, "ended its handshake: has it the same secret?"), false;
      s.got += size_t(n);
      if (s.got == sizeof s.hello && !answer(s)) return false;
      if (s.got == sizeof s.hello + sizeof s.confirm) return admit(s), false;
    }
  }

  bool answer(Stranger& s) {
    const bool known = memcmp(s.hello.magic, kHelloMagic, sizeof s.hello.magic) == 0 && s.hello.byteOrder == kByteOrder &&
                       s.hello.channel <= uint32_t(Channel::data) && int64_t(s.hello.rank) > o_.rank && s.hello.rank < s.hello.size && s.hello.size <= uint32_t(Communicator::kMostRanks);
    if (!known) return refuse(s, "is no rank"), false;
    s.reply.rank = uint32_t(o_.rank), s.reply.size = uint32_t(o_.size);
    randomBytes(s.reply.nonce, sizeof s.reply.nonce);
    const Digest mine = proof(o_.secret, "acceptor", s.hello, s.reply);
    memcpy(s.reply.proof, mine.data(), mine.size());
    return say(s, &s.reply, sizeof s.reply);  // into an empty buffer: it fits
  }

  void admit(Stranger& s) {
    if (!sameDigest(proof(o_.secret, "connector", s.hello, s.reply).data(), s.confirm)) return refuse(s, "does not know the secret of this run");
    Welcome welcome = Welcome::yes;
    if (int(s.hello.size) != o_.size) welcome = Welcome::otherSize, refuse(s, "expects another number of ranks");
    else if (place(int(s.hello.rank), Channel(s.hello.channel)) >= 0) welcome = Welcome::taken, refuse(s, "is a rank that is here already");
    if (say(s, &welcome, 1) && welcome == Welcome::yes) place(int(s.hello.rank), Channel(s.hello.channel)) = s.socket.take();
  }

  bool say(Stranger& s, const void* bytes, size_t n) { return send(s.socket.fd, bytes, n, MSG_NOSIGNAL) == ssize_t(n); }

  const TcpOptions& o_;
  const int listener_;
  const Reason& abandoned_;
  const double until_;
  std::vector<Peer> peers_;
  std::vector<Stranger> strangers_;
  std::string refused_;
};

}  // namespace

int listenOn(const Address& address) {
  Addresses found(address, true);
  std::string why = found.failure;
  for (addrinfo* a = found.list; a; a = a->ai_next) {
    Socket s(socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (s.fd >= 0) setsockopt(s.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (s.fd >= 0 && bind(s.fd, a->ai_addr, a->ai_addrlen) == 0 && listen(s.fd, 512) == 0) return s.take();
    why = strerror(errno);
  }
  throw RankFailure{why};
}

int portOf(int listener) {
  sockaddr_storage a{};
  socklen_t length = sizeof a;
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&a), &length) != 0) return 0;
  return ntohs(a.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&a)->sin6_port : reinterpret_cast<sockaddr_in*>(&a)->sin_port);
}

std::vector<Peer> meetPeers(const TcpOptions& options, int listener, const Reason& abandoned) { return Meeting(options, listener, abandoned).run(); }

void closePeers(std::vector<Peer>& peers) {
  for (Peer& p : peers)
    for (int fd : {p.data, p.control})
      if (fd >= 0) close(fd);
  peers.clear();
}
