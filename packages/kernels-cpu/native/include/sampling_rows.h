// What is done with one row of logits: choosing a token, reporting log-probabilities.
#pragma once
#include "sampling.h"

struct Filter {
  float temperature;
  int32_t topK;
  float topP, minP;
};

/// Working memory for one row of n logits; every thread needs its own.
struct RowScratch {
  static size_t bytes(int64_t n);
  RowScratch(void* memory, int64_t n);

  struct Candidate { float value, weight; int32_t id; };
  static constexpr int64_t kListed = 4096, kBuckets = 2048;
  float* maxima;        // [blocks]
  float* order;         // [blocks]
  double* mass;         // [4 * kBuckets]
  float* weights;       // [n]
  int32_t* buckets;     // [n]
  Candidate* list;      // [n]
  int32_t* listedIds;   // [kListed]
  float* listedWeights; // [kListed]
};

/**
 * A token of the row. Temperature divides what a logit lies below the greatest; at 0, below, or NaN, and where the greatest
 * logit is infinite, the likeliest token is the result (id 0 where every logit is -infinity or NaN). Then top-k: the k
 * likeliest (0: all). Then top-p: of those, likeliest first, a token is kept while what comes before it holds less than topP of
 * their probability. Then min-p: of those, the tokens at least minP as likely as the likeliest. The likeliest is always
 * kept; ties go to the lower id. Among what is kept: the race of sampling.h.
 */
int32_t sampleRow(const SamplingKernels& k, const float* x, int64_t n, Filter filter, const int32_t seeds[3], RowScratch& s);

/// values and ids [count + 1]: the chosen token, then the `count` likeliest in falling order. The chosen one's rank, from 1;
/// 0 and -infinity for a token outside the vocabulary.
int32_t logProbsRow(const SamplingKernels& k, const float* x, int64_t n, int32_t chosen, int64_t count, float* values, int32_t* ids,
                    RowScratch& s);
