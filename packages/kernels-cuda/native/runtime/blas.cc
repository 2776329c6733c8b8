#include "blas.h"

std::unique_ptr<Blas> openBlas(const Context&) { return nullptr; }
