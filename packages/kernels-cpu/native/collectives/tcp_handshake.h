// How two ranks show each other that they know the secret. All sizes are fixed: a stranger makes nobody read or keep more.
//
//   hello    connector → acceptor   magic, byte order, rank, size, channel, nonce
//   reply    acceptor → connector   rank, size, nonce, HMAC(secret, "acceptor" hello reply)
//   confirm  connector → acceptor   HMAC(secret, "connector" hello reply)
//   welcome  acceptor → connector   one byte
#pragma once
#include <string.h>
#include "sha256.h"

enum class Channel : uint32_t { control, data };
enum class Welcome : uint8_t { yes = 1, otherSize = 2, taken = 3 };

struct Hello {
  char magic[8];
  uint32_t byteOrder, rank, size, channel;
  uint8_t nonce[32];
};
struct Reply {
  uint32_t rank, size;
  uint8_t nonce[32], proof[32];
};
static_assert(sizeof(Hello) == 56 && sizeof(Reply) == 72, "no gaps");
constexpr char kHelloMagic[8] = {'a', 'p', 'h', 'r', 't', 'p', '1', '\n'};
constexpr uint32_t kByteOrder = 0x01020304;

inline Digest proof(const std::string& secret, const char* role, const Hello& hello, const Reply& reply) {
  std::string bytes = role;
  bytes.append(reinterpret_cast<const char*>(&hello), sizeof hello);
  bytes.append(reinterpret_cast<const char*>(&reply), offsetof(Reply, proof));
  return hmacSha256(secret, bytes);
}
