// The host's side of prefill attention: what is chosen from the sizes of a batch.
#pragma once
#include "attention_prefill.cuh"

/// Sizes that the choice of kernel and splits looks at.
struct PrefillShape {
  DType type;
  int64_t rows;     // tokens times heads of a group
  int64_t context;  // most keys that a tile sees
};

/// Splits the keys of every tile where there are too few tiles for the device: a few tokens behind a long prefix. `tileRows`: rows
/// of a tile, `dim`: numbers of a row's part, `tileKeys`: keys of a step, `slots`: tiles the device works on at once.
void splitKeys(const Context& c, PrefillArgs& a, const PrefillShape& shape, int tileRows, int dim, int tileKeys, int slots);
/// Adds the parts up into out.
void mergeSplits(Context& c, const PrefillArgs& a, DType type);

void prefillMmaBf16(Context& c, const PrefillArgs& a, const PrefillShape& shape);
void prefillMmaF16(Context& c, const PrefillArgs& a, const PrefillShape& shape);
/// Over caches of 8-bit floats.
void prefillMmaBf16Bytes(Context& c, const PrefillArgs& a, const PrefillShape& shape);
void prefillMmaF16Bytes(Context& c, const PrefillArgs& a, const PrefillShape& shape);
/// False: no such kernel for these sizes.
bool prefillWgmmaBf16(Context& c, const PrefillArgs& a, const PrefillShape& shape);
bool prefillWgmmaF16(Context& c, const PrefillArgs& a, const PrefillShape& shape);
bool prefillWgmmaBf16Bytes(Context& c, const PrefillArgs& a, const PrefillShape& shape);
bool prefillWgmmaF16Bytes(Context& c, const PrefillArgs& a, const PrefillShape& shape);
