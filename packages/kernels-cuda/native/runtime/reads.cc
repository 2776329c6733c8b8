#include "reads.h"
#include <chrono>

Reads::~Reads() {
  for (auto& [handle, read] : open_) idle_.push_back(read);
  for (auto& read : idle_) {
    cudaEventDestroy(read.event);
    cudaFreeHost(read.pinned);
  }
}

double Reads::begin(const void* from, size_t bytes, cudaStream_t stream) {
  Read read{nullptr, 0, 0, nullptr};
  for (size_t i = 0; i < idle_.size(); i++)
    if (idle_[i].capacity >= bytes) {
      read = idle_[i];
      idle_.erase(idle_.begin() + long(i));
      break;
    }
  if (!read.pinned) {
    size_t capacity = 4096;
    while (capacity < bytes) capacity *= 2;
    check(cudaHostAlloc(reinterpret_cast<void**>(&read.pinned), capacity, cudaHostAllocDefault), "cudaHostAlloc");
    read.capacity = capacity;
    check(cudaEventCreateWithFlags(&read.event, cudaEventDisableTiming), "cudaEventCreate");
  }
  read.bytes = bytes;
  check(cudaMemcpyAsync(read.pinned, from, bytes, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  check(cudaEventRecord(read.event, stream), "cudaEventRecord");
  open_[next_] = read;
  return next_++;
}

bool Reads::poll(double handle, int64_t microseconds) {
  auto found = open_.find(handle);
  if (found == open_.end()) return true;  // `wait` says that there is none
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  for (;;) {
    const cudaError_t code = cudaEventQuery(found->second.event);
    if (code != cudaErrorNotReady) {
      check(code, "cudaEventQuery");
      return true;
    }
    if (std::chrono::steady_clock::now() >= end) return false;
  }
}

const Reads::Read* Reads::wait(double handle) {
  auto found = open_.find(handle);
  if (found == open_.end()) return nullptr;
  check(cudaEventSynchronize(found->second.event), "cudaEventSynchronize");
  return &found->second;
}

void Reads::finish(double handle) {
  auto found = open_.find(handle);
  if (found == open_.end()) return;
  idle_.push_back(found->second);
  open_.erase(found);
}
