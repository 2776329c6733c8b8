// The part of NCCL's interface that we call, declared here so that the library is needed neither to build nor to start. Every
// version from 2.18 on agrees on all of it.
#pragma once
#include <cuda_runtime.h>
#include <stddef.h>
#include <limits.h>
#include <string>

struct Nccl {
  enum Result : int { success = 0, remoteError = 6, inProgress = 7 };
  enum DataType : int { f16 = 6, f32 = 7, bf16 = 9 };
  enum Reduction : int { sum = 0 };
  using Comm = struct NcclCommOpaque*;
  struct Id {
    char bytes[128];
  };
  static constexpr int kLeastVersion = 21800;
  /// As of 2.18; newer versions take an older one's.
  struct Config {
    size_t size = sizeof(Config);
    unsigned int magic = 0xcafebeef, version = kLeastVersion;
    int blocking = INT_MIN, cgaClusterSize = INT_MIN, minCTAs = INT_MIN, maxCTAs = INT_MIN;
    const char* netName = nullptr;
    int splitShare = INT_MIN;
  };

  Result (*getVersion)(int*);
  Result (*getUniqueId)(Id*);
  Result (*commInitRankConfig)(Comm*, int size, Id, int rank, Config*);
  Result (*commGetAsyncError)(Comm, Result*);
  Result (*commDestroy)(Comm);
  Result (*commAbort)(Comm);
  Result (*allReduce)(const void* in, void* out, size_t count, DataType, Reduction, Comm, cudaStream_t);
  Result (*allGather)(const void* in, void* out, size_t countOfEach, DataType, Comm, cudaStream_t);
  const char* (*getErrorString)(Result);
  const char* (*getLastError)(Comm);
  int version = 0;
};

/// The library's functions, or nullptr and the reason. It stays loaded as long as the process. APHRODITE_NCCL_PATH names a
/// folder that is looked into first.
const Nccl* openNccl(std::string& reason);
