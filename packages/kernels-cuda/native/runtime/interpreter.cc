#include "interpreter.h"
#include <string.h>
#include <algorithm>
#include <mutex>

using namespace interpreter;

namespace {

constexpr int kSplitPages = 4;  // a split of the context has as many pages at least
constexpr int kFewSplits = 4, kFarPages = 128;

bool aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }
int dimOf(const AttentionCall& a) { return a.cache.keyDim; }

/// Splits of the context: few where they would find little, as many as there are blocks where contexts may be long.
int splitsOf(const Context& c, const AttentionCall& a) {
  const int64_t pages = (a.maxContextLength + kPageTokens - 1) / kPageTokens;
  const int most = c.sms / a.cache.kvHeads;
  return pages > kFarPages ? most : std::min(most, kFewSplits);
}
size_t wordsOf(const Context& c, const InterpreterOp& op) {
  if (op.isAttention) return size_t(splitsOf(c, op.attention)) * size_t(op.attention.heads) * size_t(dimOf(op.attention) / 2 + 1);
  return size_t(op.linear.epilogue == kGated ? op.linear.n / 4 : op.linear.n);
}
/// Numbers of a result, and whether two share a word.
int64_t resultOf(const InterpreterOp& op) {
  if (op.isAttention) return op.attention.heads * dimOf(op.attention);
  return op.linear.epilogue == kGated ? op.linear.n / 2 : op.linear.n;
}
bool inPairs(const InterpreterOp& op) { return op.isAttention || op.linear.epilogue == kGated; }

/// Address of words of an earlier op; null: there are none like that.
const uint64_t* wordsAt(const std::vector<InterpreterOp>& ops, const std::vector<uint64_t*>& words, size_t reader, const InterpreterSource& s, int64_t length, int64_t alignment) {
  if (s.op < 1 || size_t(s.op) > reader || !words[size_t(s.op - 1)]) return nullptr;
  const InterpreterOp& from = ops[size_t(s.op - 1)];
  if (s.offset < 0 || length > resultOf(from) || s.offset > resultOf(from) - length) return nullptr;
  const int64_t each = inPairs(from) ? 2 : 1;
  if (s.offset % (each * alignment)) return nullptr;
  return words[size_t(s.op - 1)] + s.offset / each;
}

bool fillProduct(const Context& c, const std::vector<InterpreterOp>& ops, const std::vector<uint64_t*>& words, size_t i, Product& p) {
  const InterpreterOp& op = ops[i];
  const SmallLinear& a = op.linear;
  const bool gated = a.epilogue == kGated;
  p.w = a.w, p.g = a.g, p.bias = a.bias;
  p.n = int(gated ? a.n / 2 : a.n), p.k = int(a.k);
  const int step = gated ? 2 : 1, units = p.n / step;
  p.each = units / c.sms, p.left = units % c.sms;
  p.eps = a.eps, p.offset = a.gOffset, p.epilogue = uint8_t(a.epilogue), p.storeFloat = a.outType == DType::f32;
  p.op = uint32_t(i + 1), p.words = words[i], p.store = op.store ? a.out : nullptr;
  p.x = a.x;
  if (op.x.op) {
    p.x = wordsAt(ops, words, i, op.x, a.k, 2), p.xOp = uint32_t(op.x.op);
    if (!p.x) return false;
    p.xPairs = inPairs(ops[size_t(op.x.op - 1)]);
    if (a.g && p.xPairs) return false;
  }
  if (a.epilogue == kResidual) {
    p.old = a.out;
    if (op.old.op) {
      p.old = wordsAt(ops, words, i, op.old, a.n, 1), p.oldOp = uint32_t(op.old.op);
      if (!p.old || inPairs(ops[size_t(op.old.op - 1)])) return false;
    }
  }
  return true;
}

bool fillAttention(const Context& c, const std::vector<InterpreterOp>& ops, const std::vector<uint64_t*>& words, size_t i, Attention& t) {
  const InterpreterOp& op = ops[i];
  const AttentionCall& a = op.attention;
  const QkvCall& x = op.qkv;
  const int dim = dimOf(a);
  const InterpreterSource* const sources[3] = {&op.q, &op.k, &op.v};
  const uint64_t** const places[3] = {&t.q, &t.k, &t.v};
  uint32_t* const numbers[3] = {&t.qOp, &t.kOp, &t.vOp};
  for (int s = 0; s < 3; s++) {
    *places[s] = wordsAt(ops, words, i, *sources[s], (s ? a.cache.kvHeads : a.heads) * dim, 1);
    if (!*places[s] || inPairs(ops[size_t(sources[s]->op - 1)])) return false;
    *numbers[s] = uint32_t(sources[s]->op);
  }
  t.cache = a.cache.p, t.qNorm = x.qNorm.weight, t.kNorm = x.kNorm.weight, t.angles = x.rotary.p;
  t.position = x.rotary.positions, t.table = a.pageTables, t.length = a.contextLengths, t.slot = x.slots;
  t.words = words[i], t.store = op.store ? a.out : nullptr, t.op = uint32_t(i + 1);
  t.heads = int(a.heads), t.kvHeads = a.cache.kvHeads, t.splits = splitsOf(c, a), t.splitPages = kSplitPages;
  t.maxPages = int(a.maxPages), t.pages = int(std::min<int64_t>(a.cache.pages, INT32_MAX));
  t.angleRows = int(std::min<int64_t>(x.rotary.rows, INT32_MAX)), t.angleStride = int(x.rotary.stride);
  t.eps = x.eps, t.offset = x.offset, t.scale = a.scale;
  return true;
}

}  // namespace

// ---- turns ------------------------------------------------------------------------------------------------------------------
namespace {

/// What the contexts of a device have in common in this process, whatever thread they are of.
struct Turns {
  std::mutex mutex;
  int contexts = 0;            // that have lists
  cudaEvent_t done = nullptr;  // the latest launch, while there are several
};
Turns& turnsOf(int device) {
  static std::mutex mutex;
  static std::map<int, Turns> devices;
  std::lock_guard<std::mutex> lock(mutex);
  return devices[device];
}

/// From here on the context's launches are counted with; false: not now.
bool join(Context& c) {
  if (c.interpreters->waits) return true;
  Turns& turns = turnsOf(c.device);
  std::lock_guard<std::mutex> lock(turns.mutex);
  if (turns.contexts == 1) {  // the other one's launches so far have left no event
    if (!turns.done) check(cudaEventCreateWithFlags(&turns.done, cudaEventDisableTiming), "cudaEventCreate");
    if (cudaDeviceSynchronize() != cudaSuccess) {  // it is being captured
      cudaGetLastError();
      return false;
    }
  }
  turns.contexts++;
  return c.interpreters->waits = true;
}

}  // namespace

Interpreters::~Interpreters() {
  if (!waits) return;
  Turns& turns = turnsOf(device);
  std::lock_guard<std::mutex> lock(turns.mutex);
  turns.contexts--;
}

void inTurn(Context& c, const std::function<void()>& start) {
  Turns& turns = turnsOf(c.device);
  std::lock_guard<std::mutex> lock(turns.mutex);
  const bool several = turns.contexts > 1;
  if (several) check(cudaStreamWaitEvent(c.stream, turns.done, 0), "cudaStreamWaitEvent");
  start();
  if (several) check(cudaEventRecord(turns.done, c.stream), "cudaEventRecord");
}

InterpreterWords::~InterpreterWords() { cudaFree(memory); }
InterpreterList::~InterpreterList() { cudaFree(memory); }

bool interpreterRuns(const Context& c) {
  if (c.capability != 90) return false;
  int shared = 0;  // with other processes: their blocks may be where ours should be
  return cudaDeviceGetAttribute(&shared, cudaDevAttrMpsEnabled, c.device) != cudaSuccess || shared == 0;
}

bool interpreterTakes(const Context& c, const SmallLinear& a) {
  const int64_t n = a.epilogue == kGated ? a.n / 2 : a.n;
  return interpreterRuns(c) && a.tokens == 1 && a.format == DType::bf16 && a.k % 32 == 0 && a.kp == a.k && a.k <= 32768 && a.n <= (1 << 24) && n % 2 == 0 &&
         a.xType == (a.g ? DType::f32 : DType::bf16) && (!a.g || a.gType == DType::bf16) && (!a.bias || a.biasType == DType::bf16) &&
         (a.epilogue == kResidual ? a.outType == DType::f32 : a.epilogue == kGated ? a.outType == DType::bf16 : a.outType != DType::f16) &&
         (a.epilogue != kGated || a.activation == 0) && aligned(a.x, 16) && aligned(a.out, 4) && aligned(a.g, 4);
}

bool interpreterTakes(const Context& c, const AttentionCall& a, const QkvCall& x) {
  const int dim = dimOf(a);
  const DType type = DType::bf16;
  return interpreterRuns(c) && a.tokens == 1 && a.sequences == 1 && a.maxQueryLength == 1 && (dim == 64 || dim == 128) && a.cache.valueDim == dim &&
         DType(a.cache.dtype) == type && a.qType == type && a.outType == type && x.k.type == type && x.v.type == type && a.group() <= kMostHeadsOfGroup &&
         a.cache.kvHeads <= c.sms && a.window == 0 && a.softCap == 0 && !a.slopes && !a.sinks && x.rotary.p && x.rotary.half == dim / 2 && !x.rotary.interleaved &&
         !x.rotary.selector && bool(x.qNorm.weight) == bool(x.kNorm.weight) && (!x.qNorm.weight || (x.qNorm.type == type && x.kNorm.type == type)) &&
         aligned(a.out, 4) && x.slots && a.maxPages > 0;
}

std::unique_ptr<InterpreterList> makeInterpreterList(Context& c, const std::vector<InterpreterOp>& ops, uint32_t lastTag) {
  if (ops.empty() || ops.size() > 4000) return nullptr;
  int input = 0, dim = 0;
  std::vector<size_t> buffers(ops.size());  // bytes
  for (const InterpreterOp& op : ops) {
    if (op.isAttention) {
      if (!interpreterTakes(c, op.attention, op.qkv) || (dim && dim != dimOf(op.attention))) return nullptr;
      dim = dimOf(op.attention);
      input = std::max(input, attentionBytes(dim, int(op.attention.group())));
    } else {
      if (!interpreterTakes(c, op.linear)) return nullptr;
      input = std::max(input, inputBytes(int(op.linear.k), op.linear.g != nullptr));
    }
    if (op.buffer < -1 || op.buffer >= int(ops.size()) || (op.isAttention && op.buffer < 0)) return nullptr;
    if (op.buffer >= 0) buffers[size_t(op.buffer)] = std::max(buffers[size_t(op.buffer)], (wordsOf(c, op) * 8 + 127) / 128 * 128);
  }
  size_t total = 256;  // Control
  for (const size_t bytes : buffers) total += bytes;
  if (!dim) dim = 128;
  const int fixed = interpreterStaticBytes(dim), slots = std::min(kMostSlots, (c.sharedBytes - fixed - input) / kSlotBytes);
  if (slots < 3) return nullptr;
  auto list = std::make_unique<InterpreterList>();
  InterpreterLaunch& l = list->launch;
  l.count = int(ops.size()), l.slots = slots, l.dim = dim, l.sharedBytes = slots * kSlotBytes + input;
  if (!interpreterStarts(c, dim, l.sharedBytes)) return nullptr;

  if (!join(c)) return nullptr;
  auto& shared = c.interpreters->words;
  if (!shared || shared->bytes < total) {
    auto words = std::make_shared<InterpreterWords>();
    words->bytes = total;
    check(cudaMalloc(reinterpret_cast<void**>(&words->memory), total), "cudaMalloc");
    const Control start{lastTag, 0};
    check(cudaMemsetAsync(words->memory, 0, total, c.stream), "cudaMemsetAsync");
    c.staging->upload(words->memory, &start, sizeof start, c.stream);
    shared = words;
  }
  list->words = shared;
  l.control = reinterpret_cast<Control*>(shared->memory);
  l.words = shared->memory + 256, l.wordBytes = int64_t(shared->bytes - 256);

  std::vector<Instruction> instructions(ops.size());
  std::vector<uint64_t*> words(ops.size());
  std::vector<char*> places(ops.size());
  char* at = static_cast<char*>(l.words);
  for (size_t b = 0; b < buffers.size(); b++) places[b] = at, at += buffers[b];
  for (size_t i = 0; i < ops.size(); i++)
    if (ops[i].buffer >= 0) words[i] = reinterpret_cast<uint64_t*>(places[size_t(ops[i].buffer)]);
  for (size_t i = 0; i < ops.size(); i++) {
    Instruction& in = instructions[i];
    memset(static_cast<void*>(&in), 0, sizeof in);
    in.kind = ops[i].isAttention ? kAttention : kProduct;
    if (!(ops[i].isAttention ? fillAttention(c, ops, words, i, in.attention) : fillProduct(c, ops, words, i, in.product))) return nullptr;
  }
  const size_t bytes = instructions.size() * sizeof(Instruction);
  check(cudaMalloc(&list->memory, bytes), "cudaMalloc");
  c.staging->upload(list->memory, instructions.data(), bytes, c.stream);
  l.list = static_cast<const Instruction*>(list->memory);
  return list;
}
