// Pinned memory in two halves: while the copies out of one are under way, the other is filled.
#include <string.h>
#include "context.h"

Staging::Staging(size_t bytes) : bytes_(bytes) {
  check(cudaHostAlloc(reinterpret_cast<void**>(&memory_), bytes * 2, cudaHostAllocDefault), "cudaHostAlloc");
  for (auto& half : halves_) check(cudaEventCreateWithFlags(&half.event, cudaEventDisableTiming), "cudaEventCreate");
}
Staging::~Staging() {
  for (auto& half : halves_) cudaEventDestroy(half.event);
  cudaFreeHost(memory_);
}

void Staging::turn(cudaStream_t stream) {
  // The copies of this half end with the event; the other half is free once its own has come.
  check(cudaEventRecord(halves_[current_].event, stream), "cudaEventRecord");
  halves_[current_].used = true;
  current_ ^= 1, at_ = 0;
  if (halves_[current_].used) check(cudaEventSynchronize(halves_[current_].event), "cudaEventSynchronize");
}

char* Staging::reserve(size_t bytes, cudaStream_t stream) {
  if (bytes > bytes_ - at_) turn(stream);
  char* pinned = memory_ + size_t(current_) * bytes_ + at_;
  at_ += (bytes + 63) / 64 * 64;
  if (at_ > bytes_) at_ = bytes_;
  return pinned;
}

void Staging::upload(void* to, const void* from, size_t bytes, cudaStream_t stream) {
  const char* source = static_cast<const char*>(from);
  char* target = static_cast<char*>(to);
  while (bytes > 0) {
    if (at_ == bytes_) turn(stream);
    const size_t part = bytes < bytes_ - at_ ? bytes : bytes_ - at_;
    char* pinned = reserve(part, stream);
    memcpy(pinned, source, part);
    check(cudaMemcpyAsync(target, pinned, part, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
    source += part, target += part, bytes -= part;
  }
}
