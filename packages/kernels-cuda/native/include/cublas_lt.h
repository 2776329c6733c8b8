// The part of cuBLASLt's interface that we call, declared here so that the library is needed neither to build nor to start.
// Versions 12 and 13 agree on all of it.
#pragma once
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

struct CublasLt {
  using Status = int;  // 0: success
  using Handle = struct HandleOpaque*;
  using Operation = struct OperationOpaque*;    // cublasLtMatmulDesc_t
  using Layout = struct LayoutOpaque*;          // cublasLtMatrixLayout_t
  using Preference = struct PreferenceOpaque*;  // cublasLtMatmulPreference_t

  struct Algorithm {
    uint64_t data[8];
  };
  struct Heuristic {
    Algorithm algorithm;
    size_t workspaceBytes;
    Status status;
    float waves;
    int reserved[4];
  };

  enum DataType : int { r32F = 0, r16F = 2, r16BF = 14 };
  enum ComputeType : int { compute32F = 68 };  // f32 sums; of f32 inputs, products in f32 too
  enum OperationAttribute : int { transA = 3, transB = 4, epilogue = 7, biasPointer = 8, biasType = 26 };
  enum Transpose : int32_t { none = 0, transpose = 1 };
  enum Epilogue : uint32_t { epilogueNone = 1, epilogueBias = 4 };
  /// Where k is divided: parts are added in the sums' type (not in out's, which would round more than once).
  enum ReductionScheme : uint32_t { reduceSums = 2 };
  enum PreferenceAttribute : int { maxWorkspaceBytes = 1, reductionSchemes = 3, alignmentA = 5, alignmentB = 6, alignmentC = 7, alignmentD = 8 };

  Status (*create)(Handle*);
  Status (*destroy)(Handle);
  Status (*operationCreate)(Operation*, ComputeType, DataType scale);
  Status (*operationDestroy)(Operation);
  Status (*operationSet)(Operation, OperationAttribute, const void*, size_t);
  Status (*layoutCreate)(Layout*, DataType, uint64_t rows, uint64_t cols, int64_t ld);
  Status (*layoutDestroy)(Layout);
  Status (*preferenceCreate)(Preference*);
  Status (*preferenceDestroy)(Preference);
  Status (*preferenceSet)(Preference, PreferenceAttribute, const void*, size_t);
  Status (*heuristics)(Handle, Operation, Layout a, Layout b, Layout c, Layout d, Preference, int most, Heuristic*, int* found);
  Status (*multiply)(Handle, Operation, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta, const void* c, Layout, void* d,
                     Layout, const Algorithm*, void* workspace, size_t workspaceBytes, cudaStream_t);
};

/// The library's functions, or nullptr where it is not found. It stays loaded as long as the process.
const CublasLt* openCublasLt();
