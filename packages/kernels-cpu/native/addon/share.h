// Sharing an op's work among the threads: only where it is worth waking them.
#pragma once
#include <stdint.h>
#include "pool.h"

/// Calls f(begin, end, worker) for parts of 0 … items, which take nsEach nanoseconds each. Inline when all of it takes less
/// than two or three fork-joins would; parts begin at multiples of `grain`.
template <class F> void share(Pool& pool, int64_t items, double nsEach, int64_t grain, F f) {
  constexpr double kWorthSharing = 20e3, kPart = 10e3;
  double total = double(items) * nsEach;
  int64_t most = (items + grain - 1) / grain;
  int64_t parts = int64_t(total / kPart);
  if (parts > pool.threads() * 4) parts = pool.threads() * 4;
  if (parts > most) parts = most;
  if (total < kWorthSharing || parts < 2 || pool.threads() == 1) return f(int64_t(0), items, 0);
  int64_t each = (most + parts - 1) / parts * grain;
  pool.run(int((items + each - 1) / each), [&](int part, int worker) {
    int64_t begin = part * each, end = begin + each;
    f(begin, end < items ? end : items, worker);
  });
}
