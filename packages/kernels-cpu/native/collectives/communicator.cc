#include "communicator.h"
#include <stdio.h>

std::string describe(const Operation& o) {
  static const char* const kKinds[] = {"nothing", "allReduce", "allGather"};
  static const char* const kTypes[] = {"f32", "bf16", "f16"};
  const bool known = o.kind >= 0 && o.kind <= Operation::allGather && isFloat(o.dtype) && int(o.dtype) >= 0;
  if (!known) return "something unknown";
  return std::string(kKinds[o.kind]) + " of " + kTypes[int(o.dtype)] + " [" + std::to_string(o.rows) + ", " + std::to_string(o.cols) + "]";
}

std::string mismatch(int rank, const Operation& mine, int other, const Operation& theirs) {
  return "rank " + std::to_string(rank) + " calls " + describe(mine) + " where rank " + std::to_string(other) + " calls " + describe(theirs);
}

std::string nameRanks(const bool* missing, int size) {
  int count = 0, seen = 0;
  for (int r = 0; r < size; r++) count += missing[r];
  std::string text = count == 1 ? "rank " : "ranks ";
  for (int r = 0; r < size; r++) {
    if (!missing[r]) continue;
    if (seen++) text += seen == count ? " and " : ", ";
    text += std::to_string(r);
  }
  return text;
}

std::string seconds(double s) {
  char text[32];
  snprintf(text, sizeof text, "%.3g s", s);
  return text;
}
