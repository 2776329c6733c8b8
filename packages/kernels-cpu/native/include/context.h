// What one CPU device owns: its threads, its instruction set, the memory it gave out.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include "pool.h"

/// Instruction sets in rising order; a kernel takes the highest that it has and that the context allows.
enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2, avx512bf16 = 3 };

Isa bestIsa();                 // what this processor has
const char* isaName(Isa isa);  // "avx512-bf16"

/// Zeroed memory with huge pages, and a record of it, so that every address that comes from JavaScript can be checked.
class Slabs {
 public:
  ~Slabs();
  void* allocate(size_t bytes);  // nullptr when the system has no more
  bool release(void* p);
  bool contains(const void* p, size_t bytes) const;

 private:
  std::map<uintptr_t, size_t> slabs_;  // address -> mapped bytes
};

struct Context {
  Context(int threads, bool pin, Isa isa) : pool(threads, pin), isa(isa) {}
  Pool pool;
  Isa isa;
  Slabs slabs;
  /// Memory for one op at a time, of at least this many bytes, 64-byte aligned; kept between ops. Slot: who asks.
  enum Slot { rowsSlot, tilesSlot, attentionSlot, samplerSlot, slots };
  void* scratch(Slot slot, size_t bytes);

 private:
  void* scratch_[slots] = {};
  size_t scratchBytes_[slots] = {};
};
