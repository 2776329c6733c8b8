// Prefill attention with wgmma. One block a multiprocessor takes work until none is left: a warp that fetches, and two warpgroups
// that compute 64 rows each. The fetching warp runs ahead: it finds the next tile and copies whole pages into a ring of two
// buffers for keys and two for values, where wgmma reads them as they lie. The two warpgroups take turns: while one has its
// products on the tensor cores, the other one turns scores into probabilities; and within a warpgroup the scores of the next keys
// are issued before the values of these are weighed. 8-bit caches: four warps fetch, and turn numbers into the queries' type.
#pragma once
#include "attention_prefill.cuh"
#include "attention_prefill_launch.h"
#include "launch.h"
#include "wgmma.cuh"

namespace prefillWgmma {

constexpr int kThreads = 384, kRows = 128, kWarpgroupRows = 64, kStages = 2, kSlots = 2;

/// What the fetching warp tells the others about a tile: its rows and keys, [lowest, n] tiles of keys from the last to the first.
struct Work {
  int start, firstRow, rows, offset, kvHead, split, n, lowest;
};

template <int DK, int DV, int N> struct Shared {
  alignas(1024) char q[kRows * DK * 2];
  alignas(1024) char k[kStages][N * DK * 2];
  alignas(1024) char v[kStages][N * DV * 2];
  uint64_t fullK[kStages], fullV[kStages], emptyK[kStages], emptyV[kStages], fullWork[kSlots], emptyWork[kSlots];
  Work work[kSlots];
  int ticket[2];
};

/// Whole pages, to stay in the L2 cache: other blocks read them too.
__device__ __forceinline__ void copyPage(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void fenceAsyncReads() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
template <int registers> __device__ __forceinline__ void giveRegisters() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers)); }
template <int registers> __device__ __forceinline__ void takeRegisters() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers)); }
__device__ __forceinline__ void barArrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

/// Copies a tile's pages of keys or values. `page`: of this lane, -1: zeros. Tokens from `valid` on become zeros too if `exact`.
template <int D, int N> __device__ __forceinline__ void fetch(char* shared, uint64_t* full, const char* base, int64_t pageBytes, int page, int valid, bool exact) {
  constexpr PageRows rows(D, 2);
  constexpr int kPages = N / kPageTokens;
  const int lane = threadIdx.x & 31;
  const bool whole = page >= 0 && (!exact || (lane + 1) * kPageTokens <= valid);
  const unsigned copied = __ballot_sync(~0u, lane < kPages && whole);
  if (copied != (1u << kPages) - 1) {
    for (int p = 0; p < kPages; p++) {
      if (copied >> p & 1) continue;
      const int number = __shfl_sync(~0u, page, p);
      for (int i = lane; i < rows.bytes() / 16; i += 32) {
        const int group = i / D, token = p * kPageTokens + group * 8 + i % D % (8 * rows.width) / rows.width;
        uint4 v = {};
        if (number >= 0 && token < valid) v = *reinterpret_cast<const uint4*>(base + number * pageBytes + i * 16);
        *reinterpret_cast<uint4*>(shared + p * rows.bytes() + i * 16) = v;
      }
    }
    fenceAsyncReads();
    __syncwarp();
  }
  if (lane == 0) barrierExpect(sharedAddress(full), __popc(copied) * rows.bytes());
  __syncwarp();
  if (lane < kPages && whole) copyPage(sharedAddress(shared + lane * rows.bytes()), base + page * pageBytes, rows.bytes(), sharedAddress(full));
}

/// Fetches a tile's keys and values, 8-bit floats, by four warps that turn them into T. Tokens from `valid` on become zeros.
template <class T, int DK, int DV, int N>
__device__ __forceinline__ void fetchBytes(Shared<DK, DV, N>& shared, int stage, int parity, DType type, const char* base, int pageBytes, int page, int valid) {
  constexpr int kKeys = N * DK / 16 / 128, kAll = kKeys + N * DV / 16 / 128, kAhead = 4;  // pieces of 16 numbers of a thread
  static_assert(N * DK / 16 % 128 == 0 && N * DV / 16 % 128 == 0);
  unsigned thread = threadIdx.x;
  asm volatile("" : "+r"(thread));  // places are found anew for every tile: to keep those of all pieces takes too many registers
  thread &= 127;                    // known to the compiler: for heads of 64, 128 and 256 pieces are a fixed distance apart
  // Where the thread's piece j is: its page, byte in there, token of the tile and chunk of its row.
  auto locate = [&](unsigned j, auto dim, unsigned& byte, unsigned& token, unsigned& c) {
    constexpr unsigned D = decltype(dim)::value, kWidth = PageRows(int(D), 1).width;
    const unsigned i = thread + j * 128, p = i / D, rest = i % D, group = rest / (D / 2), line = rest % (D / 2) % (8 * kWidth), t = line / kWidth;
    byte = rest * 16, token = p * kPageTokens + group * 8 + t;
    c = rest % (D / 2) / (8 * kWidth) * kWidth + (line % kWidth ^ t * kWidth >> 3);
  };
  using Key = std::integral_constant<int, DK>;
  using Value = std::integral_constant<int, DV>;
  auto load = [&](int j) {
    unsigned byte, token, c;
    if (j < kKeys) locate(j, Key{}, byte, token, c);
    else locate(j - kKeys, Value{}, byte, token, c), byte += PageRows(DK, 1).bytes();
    const int number = __shfl_sync(~0u, page, token / kPageTokens);
    return number >= 0 && int(token) < valid ? *reinterpret_cast<const uint4*>(base + int64_t(number) * pageBytes + byte) : uint4{};
  };
  auto done = [&](uint64_t* full) {
    fenceAsyncReads();
    __syncwarp();
    if ((thread & 31) == 0) barrierArrive(sharedAddress(full));
  };
  uint4 v[kAhead];
#pragma unroll
  for (int j = 0; j < kAhead; j++) v[j] = load(j);
  barrierWait(sharedAddress(&shared.emptyK[stage]), parity);
#pragma unroll
  for (int j = 0; j < kAll; j++) {
    if (j == kKeys) done(&shared.fullK[stage]), barrierWait(sharedAddress(&shared.emptyV[stage]), parity);
    unsigned byte, token, c;
    if (j < kKeys) {
      locate(j, Key{}, byte, token, c);
      storeBytes<T>(type, v[j % kAhead], shared.k[stage] + PageRows(DK, 2).chunk(int(token), int(2 * c)), shared.k[stage] + PageRows(DK, 2).chunk(int(token), int(2 * c + 1)));
    } else {
      locate(j - kKeys, Value{}, byte, token, c);
      storeBytes<T>(type, v[j % kAhead], shared.v[stage] + PageRows(DV, 2).chunk(int(token), int(2 * c)), shared.v[stage] + PageRows(DV, 2).chunk(int(token), int(2 * c + 1)));
    }
    if (j + kAhead < kAll) v[j % kAhead] = load(j + kAhead);
  }
  done(&shared.fullV[stage]);
}

/// The fetching warp, or four of them. `tickets`: [0] the next work, [1] blocks that are done; zeros before and after.
template <class T, int DK, int DV, int N, bool Bytes> __device__ __forceinline__ void produce(const PrefillArgs& a, Shared<DK, DV, N>& shared, unsigned* tickets) {
  constexpr int kPages = N / kPageTokens;
  const int lane = threadIdx.x & 31, total = a.tiles * a.cache.kvHeads * a.splits;
  const int64_t pageBytes = a.cache.pageBytes();
  const bool leads = threadIdx.x < 32;
  int tiles = 0;  // of keys, so far
  for (int works = 0, draws = 0;; draws++) {
    int number = 0;
    if (leads && lane == 0) number = int(atomicAdd(&tickets[0], 1u));
    if (Bytes) {
      // The place of the draw before may still be read.
      if (threadIdx.x == 0) shared.ticket[draws & 1] = number;
      barSync(5, 128);
      number = shared.ticket[draws & 1];
    } else {
      number = __shfl_sync(~0u, number, 0);
    }
    PrefillTile t;
    Work work{};
    if (number < total) {
      const WorkNumber which = workOf(a, number);
      if (!tileOf<kRows>(a, which.tile, sequenceOfTile<kRows>(a, which.tile), t)) continue;
      const int last = t.lastPosition(a.group), first = t.firstPosition(a.group);
      work = {t.start, t.firstRow, t.rows, t.offset, which.kvHead, which.split, last < 0 ? -1 : last / N, a.window ? max(0, first - a.window + 1) / N : 0};
      narrow(a, work.split, work.lowest, work.n);
    }
    const int slot = works % kSlots;
    if (leads) {
      barrierWait(sharedAddress(&shared.emptyWork[slot]), (works / kSlots & 1) ^ 1);
      if (lane == 0) shared.work[slot] = work, barrierArrive(sharedAddress(&shared.fullWork[slot]));
    }
    works++;
    if (number >= total) break;
    const char *keys = a.cache.head(0, work.kvHead), *values = keys + PageRows(DK, 2).bytes();
    auto pageAt = [&](int n) { return lane < kPages && n >= work.lowest ? pageOf(a, t, n * kPages + lane) : -1; };
    int page = pageAt(work.n);
    for (int n = work.n; n >= work.lowest; n--) {
      const int next = pageAt(n - 1), stage = tiles % kStages, parity = (tiles / kStages & 1) ^ 1;
      if (Bytes) {
        fetchBytes<T>(shared, stage, parity, DType(a.cache.dtype), keys, int(pageBytes), page, t.context - n * N);
        page = next, tiles++;
        continue;
      }
      barrierWait(sharedAddress(&shared.emptyK[stage]), parity);
      fetch<DK, N>(shared.k[stage], &shared.fullK[stage], keys, pageBytes, page, t.context - n * N, false);
      barrierWait(sharedAddress(&shared.emptyV[stage]), parity);
      fetch<DV, N>(shared.v[stage], &shared.fullV[stage], values, pageBytes, page, t.context - n * N, true);
      page = next, tiles++;
    }
  }
  if (leads && lane == 0 && atomicAdd(&tickets[1], 1u) == gridDim.x - 1) tickets[0] = tickets[1] = 0;
}

/// A warpgroup's part: 64 rows of every tile.
template <class T, int DK, int DV, int N> __device__ __forceinline__ void consume(const PrefillArgs& a, Shared<DK, DV, N>& shared) {
  constexpr int kScores = N / 2, kOut = DV / 2;
  const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x & 31;
  char* q = shared.q + group * kWarpgroupRows * DK * 2;
  const uint64_t queries = alongRows<DK>(sharedAddress(q));
  const int mine = 1 + group, theirs = 2 - group, inside = 3 + group;  // named barriers
  auto arrive = [&](uint64_t* barrier) {
    if (lane == 0) barrierArrive(sharedAddress(barrier));
  };
  if (group == 1) barArrive(1, 256);  // the first turn is the first warpgroup's

  int tiles = 0;
  for (int works = 0;; works++) {
    const int slot = works % kSlots;
    barrierWait(sharedAddress(&shared.fullWork[slot]), works / kSlots & 1);
    const Work work = shared.work[slot];
    __syncwarp();
    arrive(&shared.emptyWork[slot]);
    if (work.rows == 0) break;
    PrefillTile t;
    t.start = work.start, t.firstRow = work.firstRow, t.rows = work.rows, t.offset = work.offset;
    const int row = group * kWarpgroupRows + warp * 16;  // the warp's first
    loadQueries<T, DK, 16, 32>(a, t, work.kvHead, q, group * kWarpgroupRows, warp * 16, lane);
    fenceAsyncReads();
    barSync(inside, 128);

    int position[2];
    float slope[2] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {};
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = t.firstRow + row + h * 8 + lane / 4, token = r / a.group;
      position[h] = t.offset + token;
      if (a.slopes) slope[h] = a.slopes[work.kvHead * a.group + r - token * a.group] * kLog2e;
    }
    const int firstPosition = t.firstPosition(a.group), lastPosition = t.lastPosition(a.group);
    const float factor = a.transform ? 1.f : a.scale;
    float s[kScores], o[kOut], shrink[2];
    uint32_t p[N / 16][4];
#pragma unroll
    for (int i = 0; i < kOut; i++) o[i] = 0.f;

    auto scores = [&](int stage) {
      const uint64_t keys = alongRows<DK>(sharedAddress(shared.k[stage]));
#pragma unroll
      for (int k = 0; k < DK / 16; k++) wgmmaShared<T, N>(s, queries + columnStep<DK>(k), keys + columnStep<DK>(k), k > 0);
      wgmmaCommit();
    };
    auto weigh = [&](int stage) {
      const uint64_t values = acrossRows<DV>(sharedAddress(shared.v[stage]));
#pragma unroll
      for (int k = 0; k < N / 16; k++) wgmmaRegisters<T, DV>(o, p[k], values + uint64_t(k * 2 * PageRows(DV, 2).groupBytes() >> 4));
      wgmmaCommit();
    };
    // Scores to weights, in place; shrink: what the output so far is to be multiplied by. True if any is not 1.
    auto weights = [&](int n) {
      const int column = n * N + lane % 4 * 2;
      if (a.transform) transformScores(a, s, slope, column, position);
      if (n * N + N - 1 > firstPosition || (a.window && n * N <= lastPosition - a.window)) {
#pragma unroll
        for (int i = 0; i < kScores; i++) {
          const int behind = position[i / 2 % 2] - (column + i / 4 * 8 + i % 2);
          if (behind < 0 || (a.window && behind >= a.window)) s[i] = -INFINITY;
        }
      }
      bool grew = false;
      float peak[2];
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float m = fmaxf(s[2 * h], s[2 * h + 1]);
#pragma unroll
        for (int j = 1; j < N / 8; j++) m = fmaxf(m, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
        m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
        peak[h] = m * factor, shrink[h] = 1.f;
        grew |= peak[h] > most[h] + 8.f;
      }
      // A row's reference need not be its maximum, only so near that nothing overflows: most tiles change none.
      grew = __any_sync(~0u, grew);
      if (grew) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const float next = fmaxf(most[h], peak[h]);
          shrink[h] = next == -INFINITY ? 1.f : exp2Approx(most[h] - next);
          most[h] = next, sum[h] *= shrink[h];
        }
      }
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float reference = most[h] == -INFINITY ? 0.f : most[h];
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
          for (int e = 4 * j + 2 * h; e < 4 * j + 2 * h + 2; e++) s[e] = exp2Approx(fmaf(s[e], factor, -reference)), sum[h] += s[e];
      }
      return grew;
    };
    auto pack = [&] {
#pragma unroll
      for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int e = 0; e < 4; e++) p[k][e] = Pair<T>::pack(s[8 * k + 2 * e], s[8 * k + 2 * e + 1]);
    };

    if (work.n >= work.lowest) {
      int stage = tiles % kStages, parity = tiles / kStages & 1;
      barrierWait(sharedAddress(&shared.fullK[stage]), parity);
      barSync(mine, 256);
      pinRegisters(s);
      wgmmaFence();
      scores(stage);
      barArrive(theirs, 256);
      wgmmaWait<0>();
      pinRegisters(s);
      arrive(&shared.emptyK[stage]);
      weights(work.n);
      pack();
      for (int n = work.n - 1; n >= work.lowest; n--) {
        const int before = stage, parityBefore = parity;
        tiles++;
        stage = tiles % kStages, parity = tiles / kStages & 1;
        barrierWait(sharedAddress(&shared.fullK[stage]), parity);
        barSync(mine, 256);
        pinRegisters(s), pinRegisters(o);
        wgmmaFence();
        scores(stage);
        barrierWait(sharedAddress(&shared.fullV[before]), parityBefore);
        weigh(before);
        barArrive(theirs, 256);
        wgmmaWait<1>();
        pinRegisters(s);
        arrive(&shared.emptyK[stage]);
        const bool grew = weights(n);
        wgmmaWait<0>();
        pinRegisters(o);
        arrive(&shared.emptyV[before]);
        if (grew) {
#pragma unroll
          for (int i = 0; i < kOut; i++) o[i] *= shrink[i / 2 % 2];
        }
        pack();
      }
      barrierWait(sharedAddress(&shared.fullV[stage]), parity);
      pinRegisters(o);
      wgmmaFence();
      weigh(stage);
      wgmmaWait<0>();
      pinRegisters(o);
      arrive(&shared.emptyV[stage]);
      tiles++;
    }

    if (a.splits > 1) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int r = row + h * 8 + lane / 4;
        sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
        sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
        if (r < t.rows) storePartial<DV>(a, partialRow(a, t, work.kvHead, work.split, r), &o[2 * h], most[h], sum[h]);
      }
      barSync(inside, 128);
      continue;
    }
    // Every warp of the warpgroup is through with q: its place takes the output.
    barSync(inside, 128);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int r = row + h * 8 + lane / 4;
      float total = sum[h];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const float scale = outputScale(most[h], total, a.sinks ? a.sinks + work.kvHead * a.group + (t.firstRow + r) % a.group : nullptr);
#pragma unroll
      for (int j = 0; j < DV / 8; j++)
        *reinterpret_cast<uint32_t*>(q + PageRows(DV, 2).chunk(r - group * kWarpgroupRows, j) + lane % 4 * 4) = Pair<T>::pack(o[4 * j + 2 * h] * scale, o[4 * j + 2 * h + 1] * scale);
    }
    __syncwarp();
    storeRows<T, DV, 16>(a, t, work.kvHead, q, group * kWarpgroupRows, warp * 16);
    __syncwarp();
  }
  // The turn that nobody took.
  if (group == 0) barSync(1, 256);
}

template <class T, int DK, int DV, int N, bool Bytes> __global__ void __launch_bounds__(kThreads, 1) kernel(PrefillArgs a, unsigned* tickets) {
  extern __shared__ __align__(1024) char memory[];
  auto& shared = *reinterpret_cast<Shared<DK, DV, N>*>(memory);
  pdlTrigger();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; i++) {
      barrierInit(sharedAddress(&shared.fullK[i]), Bytes ? 4 : 1), barrierInit(sharedAddress(&shared.fullV[i]), Bytes ? 4 : 1);
      barrierInit(sharedAddress(&shared.emptyK[i]), 8), barrierInit(sharedAddress(&shared.emptyV[i]), 8);
    }
    for (int i = 0; i < kSlots; i++) barrierInit(sharedAddress(&shared.fullWork[i]), 1), barrierInit(sharedAddress(&shared.emptyWork[i]), 8);
    barrierInitFence();
  }
  __syncthreads();
  pdlWait();
  if (threadIdx.x < 128) {
    giveRegisters<Bytes ? 88 : 40>();
    if (Bytes || threadIdx.x < 32) produce<T, DK, DV, N, Bytes>(a, shared, tickets);
  } else {
    takeRegisters<Bytes ? 208 : 232>();
    consume<T, DK, DV, N>(a, shared);
  }
}

template <class T, int DK, int DV, int N, bool Bytes> void start(Context& c, PrefillArgs a, const PrefillShape& shape) {
  a.tiles = int(shape.rows / kRows + 1 + a.sequences);
  splitKeys(c, a, shape, kRows, DV, N, c.sms);
  launch(c, "attention prefill", kernel<T, DK, DV, N, Bytes>, dim3(c.sms), dim3(kThreads), sizeof(Shared<DK, DV, N>), a, c.counters);
  if (a.splits > 1) mergeSplits(c, a, shape.type);
}
/// False: no kernel of this size.
template <class T, bool Bytes> bool startFor(Context& c, const PrefillArgs& a, const PrefillShape& shape) {
  const int key = (a.cache.keyDim + 15) / 16 * 16, value = (a.cache.valueDim + 15) / 16 * 16;
  if (key == 192 && value == 128) return start<T, 192, 128, 128, Bytes>(c, a, shape), true;
  if (key != value) return false;
  switch (key) {
    case 64: return start<T, 64, 64, 128, Bytes>(c, a, shape), true;
    case 80: return start<T, 80, 80, 128, Bytes>(c, a, shape), true;
    case 96: return start<T, 96, 96, 128, Bytes>(c, a, shape), true;
    case 112: return start<T, 112, 112, 128, Bytes>(c, a, shape), true;
    case 128: return start<T, 128, 128, 128, Bytes>(c, a, shape), true;
    case 192: return start<T, 192, 192, 96, Bytes>(c, a, shape), true;
    case 256: return start<T, 256, 256, 64, Bytes>(c, a, shape), true;
    default: return false;
  }
}

}  // namespace prefillWgmma
