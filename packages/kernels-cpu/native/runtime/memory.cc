// Slabs, and the scratch memory of ops.
#include <sys/mman.h>
#include <map>
#include <new>
#include "context.h"

namespace {
constexpr size_t kHuge = size_t(2) << 20;
size_t wholePages(size_t bytes) { return (bytes + kHuge - 1) & ~(kHuge - 1); }
}  // namespace

void* mapPages(size_t bytes) {
  if (bytes > (size_t(1) << 46)) return nullptr;
  size_t want = wholePages(bytes ? bytes : 1);
  void* raw = mmap(nullptr, want + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(raw);
  char* p = reinterpret_cast<char*>((reinterpret_cast<size_t>(begin) + kHuge - 1) & ~(kHuge - 1));
  if (p != begin) munmap(begin, size_t(p - begin));
  if (p + want != begin + want + kHuge) munmap(p + want, size_t(begin + kHuge - p));
  madvise(p, want, MADV_HUGEPAGE);  // refused where huge pages are off: then it is slower, no more
  return p;
}
void unmapPages(void* p, size_t bytes) { munmap(p, wholePages(bytes ? bytes : 1)); }

struct Slabs::Record {
  std::map<const char*, size_t> slabs;
};
Slabs::Slabs() : record_(new Record) {}
Slabs::~Slabs() {
  for (auto& [p, bytes] : record_->slabs) unmapPages(const_cast<char*>(p), bytes);
  delete record_;
}
void* Slabs::allocate(size_t bytes) {
  void* p = mapPages(bytes);
  if (p) record_->slabs.emplace(static_cast<char*>(p), wholePages(bytes ? bytes : 1));
  return p;
}
bool Slabs::release(void* p) {
  auto it = record_->slabs.find(static_cast<char*>(p));
  if (it == record_->slabs.end()) return false;
  unmapPages(p, it->second);
  record_->slabs.erase(it);
  return true;
}
bool Slabs::contains(const void* p, size_t bytes) const {
  const char* q = static_cast<const char*>(p);
  auto it = record_->slabs.upper_bound(q);
  if (it == record_->slabs.begin()) return false;
  --it;
  size_t offset = size_t(q - it->first);
  return offset <= it->second && bytes <= it->second - offset;
}

Context::~Context() {
  for (int i = 0; i < slots; i++)
    if (scratch_[i]) unmapPages(scratch_[i], scratchBytes_[i]);
}
void* Context::scratch(Slot slot, size_t bytes) {
  if (bytes <= scratchBytes_[slot]) return scratch_[slot];
  size_t want = wholePages(bytes + bytes / 4);  // a little more, so that slowly growing batches do not map each time
  void* p = mapPages(want);
  if (!p) throw std::bad_alloc();
  if (scratch_[slot]) unmapPages(scratch_[slot], scratchBytes_[slot]);
  scratch_[slot] = p, scratchBytes_[slot] = want;
  return p;
}
