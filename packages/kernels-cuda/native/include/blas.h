// Matrix products by cuBLASLt where the machine has it: opened at run time, with declarations of our own.
#pragma once
#include <memory>
#include "context.h"
#include "linear.h"

struct Blas {
  virtual ~Blas() = default;
  /// Enqueues the product, or returns false where it is not one for cuBLASLt: mixed types, odd addresses, nothing found. Uses the
  /// first kBlasWorkspace bytes of the context's scratch memory.
  virtual bool multiply(Context& c, const LinearCall& call) = 0;
};
constexpr size_t kBlasWorkspace = size_t(32) << 20;

/// nullptr where there is no cuBLASLt.
std::unique_ptr<Blas> openBlas(const Context& context);
