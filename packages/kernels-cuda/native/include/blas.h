// Matrix products by cuBLASLt where the machine has it: opened at run time, with declarations of our own.
#pragma once
#include <memory>
#include "context.h"

struct Blas {
  virtual ~Blas() = default;
};
/// nullptr where there is no cuBLASLt.
std::unique_ptr<Blas> openBlas(const Context& context);
