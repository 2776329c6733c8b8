// Ranks that reach each other through TCP.
#pragma once
#include <atomic>
#include <mutex>
#include <vector>
#include "communicator.h"
#include "reason.h"
#include "tcp_peers.h"

class TcpCommunicator : public Communicator {
 public:
  /// Takes the listener.
  TcpCommunicator(TcpOptions options, int listener);
  ~TcpCommunicator() override;
  void join() override;
  void allReduce(Context& context, const Rows& x) override;
  void allGather(Context& context, const Rows& out, const Rows& x) override;
  void abort(const std::string& reason) override;
  void close() override;

 private:
  /// What stands in front of every message.
  struct Header {
    uint64_t magic, sequence;
    Operation operation;
    uint64_t bytes;
  };
  /// One message to a peer and one from it, as far as they have gone.
  struct Exchange {
    int peer;
    Header out, in;
    const char* send;
    char* receive;
    size_t sendBytes, receiveBytes;
    size_t sent = 0, received = 0;
    bool sentAll() const { return sent == sizeof out + sendBytes; }
    bool receivedAll() const { return received == sizeof in + receiveBytes; }
  };

  [[noreturn]] void fail(const std::string& reason);
  void begin();
  /// Sends to and receives from every other rank: of(r) gives what. Returns when all of it has arrived.
  template <class F> void exchange(const Operation& operation, F of);
  void run(const Operation& operation);
  bool push(Exchange& e);
  bool pull(Exchange& e, const Operation& operation);
  void lost(int peer);
  void hearControl(int milliseconds, const std::vector<Exchange>* pending);
  void tell(char kind, const std::string& reason);
  char* packed(int64_t bytes);
  char* received(int64_t bytes);
  std::string name(int peer) const { return "rank " + std::to_string(peer); }

  const TcpOptions options_;
  int listener_;
  const int wake_;  // an eventfd: `abort` on another thread
  Reason abandoned_;
  std::vector<Peer> peers_;
  std::vector<bool> closed_;
  std::vector<Exchange> exchanges_;
  std::vector<char> packed_, received_;
  uint64_t sequence_ = 0;
  std::mutex telling_;       // guards who may be told
  bool reachable_ = false;
};
