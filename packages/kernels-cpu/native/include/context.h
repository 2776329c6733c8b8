// What one CPU device owns: its threads, its instruction set, the memory it gave out.
#pragma once
#include <stddef.h>
#include "pool.h"
#include "recording.h"

/// Instruction sets in rising order; a kernel takes the highest that it has and that the context allows.
enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2, avx512bf16 = 3 };

Isa bestIsa();                 // what this processor has and this build holds
const char* isaName(Isa isa);  // "avx512-bf16"

/// Zeroed memory with huge pages, and a record of it, so that every address that comes from JavaScript can be checked.
class Slabs {
 public:
  Slabs();
  ~Slabs();
  Slabs(const Slabs&) = delete;
  Slabs& operator=(const Slabs&) = delete;
  /// A multiple of 2 MiB is mapped and the address is one too; nullptr when the system has no more.
  void* allocate(size_t bytes);
  bool release(void* p);
  /// Whether all of [p, p + bytes) was given out in one piece.
  bool contains(const void* p, size_t bytes) const;

 private:
  struct Record;
  Record* const record_;
};

/// Memory that a process keeps for itself: huge pages, zeroed, 2 MiB-aligned. nullptr when the system has no more.
void* mapPages(size_t bytes);
void unmapPages(void* p, size_t bytes);

struct Context {
  Context(int threads, const int* cores, bool spin, Isa isa) : pool(threads, cores, spin), isa(isa) {}
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Pool pool;
  const Isa isa;
  Slabs slabs;
  Recordings recordings;
  /// Memory for one op at a time, of at least this many bytes, 64-byte aligned; kept between ops. Slot: who asks.
  /// Throws std::bad_alloc.
  enum Slot { rowsSlot, tilesSlot, biasSlot, attentionSlot, samplerSlot, slots };
  void* scratch(Slot slot, size_t bytes);

 private:
  void* scratch_[slots] = {};
  size_t scratchBytes_[slots] = {};
};
