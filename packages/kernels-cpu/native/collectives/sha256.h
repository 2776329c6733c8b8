// SHA-256 and HMAC (FIPS 180-4, RFC 2104), for the handshake of connections: a few hundred bytes, once.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <array>
#include <string>

using Digest = std::array<uint8_t, 32>;
Digest sha256(const std::string& bytes);
Digest hmacSha256(const std::string& key, const std::string& bytes);
/// Takes the same time wherever the first difference is.
bool sameDigest(const uint8_t* a, const uint8_t* b);
