// The connections between ranks: two a pair, one for what collectives exchange and one for the word that a rank gives up.
// Nothing that a connection sends is believed before both ends have shown that they know the secret; what follows is neither
// signed nor encrypted.
#pragma once
#include <string>
#include <vector>
#include "communicator.h"
#include "reason.h"

struct Address {
  std::string host, port;
  std::string text() const { return host + ":" + port; }
};

/// A socket that listens. Throws RankFailure.
int listenOn(const Address& address);
/// The port that the system gave it.
int portOf(int listener);

struct Peer {
  int data = -1, control = -1;
};

struct TcpOptions {
  int rank, size;
  double timeout;  // seconds
  std::vector<Address> addresses;
  std::string secret;
};

/// Connects to all lower ranks and accepts all higher ones. Throws RankFailure, also when `abandoned` gets a reason meanwhile.
std::vector<Peer> meetPeers(const TcpOptions& options, int listener, const Reason& abandoned);
void closePeers(std::vector<Peer>& peers);
