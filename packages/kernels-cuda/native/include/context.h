// What one CUDA device owns: its stream, the memory it gave out, scratch memory, pinned staging, captured graphs.
#pragma once
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>
#include <map>
#include <memory>
#include <mutex>
#include <vector>
#include "copy_threads.h"

/// A CUDA call that failed; `what` names the call or the kernel. The addon turns it into an error with the op's name and shapes.
struct CudaFailure {
  cudaError_t code;
  const char* what;
};
inline void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw CudaFailure{code, what};
}

/// Device memory, and a record of it, so that every address that comes from JavaScript can be checked.
class Slabs {
 public:
  ~Slabs();
  /// Zeroed, in the order of the stream. Throws CudaFailure.
  void* allocate(size_t bytes, cudaStream_t stream);
  bool release(void* p, cudaStream_t stream);
  /// Whether all of [p, p + bytes) was given out in one piece.
  bool contains(const void* p, size_t bytes) const;

 private:
  std::map<uintptr_t, size_t> slabs_;
};

/// Pinned host memory through which small data crosses to the device and back without a wait.
class Staging {
 public:
  explicit Staging(size_t bytes);
  ~Staging();
  /// Copies `bytes` from host to device in the order of the stream; `from` may change as soon as this returns.
  void upload(void* to, const void* from, size_t bytes, cudaStream_t stream);
  /// Pinned memory, at most `capacity` bytes, that nothing reads any more: to be filled, and copied from on this stream.
  char* reserve(size_t bytes, cudaStream_t stream);
  size_t capacity() const { return bytes_; }
  /// Copies host memory with several threads.
  CopyThreads threads;

 private:
  void turn(cudaStream_t stream);
  struct Half {
    cudaEvent_t event;
    bool used = false;
  };
  char* memory_ = nullptr;
  size_t bytes_, at_ = 0;
  int current_ = 0;
  Half halves_[2];
};

/// Copies of device memory on their way to the host (reads.cc).
struct Reads;
/// Captured graphs (graph.cc).
struct Graphs;
/// Lists of ops that one kernel walks (interpreter.h).
struct Interpreters;
/// cuBLASLt, opened at run time; absent where there is none (blas.cc).
struct Blas;

struct Context {
  explicit Context(int device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const int device;
  cudaStream_t stream = nullptr;
  int sms = 0;           // multiprocessors
  int capability = 0;    // 80, 89, 90 …
  int sharedBytes = 0;   // shared memory that a block may ask for
  size_t l2Bytes = 0;
  /// Programmatic dependent launch: capability 9.0 and newer.
  bool pdl = false;
  /// While the stream is captured: no copies from or to the host, no waits.
  bool capturing = false;

  Slabs slabs;
  std::unique_ptr<Staging> staging;
  std::unique_ptr<Reads> reads;
  std::unique_ptr<Graphs> graphs;
  std::unique_ptr<Interpreters> interpreters;
  std::unique_ptr<Blas> blas;

  /// Memory for one op at a time, there from the start so that captured graphs may hold its address. Ops of a stream follow one
  /// another, so each may use all of it; nothing stays in it between ops.
  static constexpr size_t kScratchBytes = size_t(96) << 20;
  char* scratch = nullptr;
  /// Zeros at the start of every op; who changes them sets them back to zero before its last block ends.
  static constexpr size_t kCounters = 65536;
  unsigned int* counters = nullptr;
};

/// Makes the context's device the current one of this thread.
void use(const Context& context);
