// The interpreter: stretches of a decode step of one sequence as one kernel that stays on every multiprocessor. docs/interpreter.md
// has the reasons and the numbers.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <vector>
#include "attention.h"
#include "interpreter_list.h"
#include "linear_small.h"
#include "rotary.h"

/// Where an operand comes from: words of an earlier op of the list (1 …), from an element on; 0: memory, as the call says.
struct InterpreterSource {
  int op = 0;
  int64_t offset = 0;
};

/// A call that the interpreter does.
struct InterpreterOp {
  bool isAttention = false;
  SmallLinear linear{};
  AttentionCall attention{};
  QkvCall qkv{};
  InterpreterSource x, old;  // of a linear
  InterpreterSource q, k, v;  // of attention; never memory
  /// Where its words are, for a later op of the list; -1: no op reads them. Whoever shares a buffer writes when every block has
  /// read what was there before.
  int buffer = -1;
  bool store = false;  // something else reads the result, from memory
};

struct InterpreterLaunch {
  const interpreter::Instruction* list;
  int count, slots, dim, sharedBytes;
  interpreter::Control* control;
  void* words;
  int64_t wordBytes;
};

/// Words that the lists of a context share: their launches follow one another, and no two use the same tags.
struct InterpreterWords {
  ~InterpreterWords();
  char* memory = nullptr;  // Control, then words
  size_t bytes = 0;
};

/// A list in device memory. It must outlive the graphs that it is launched in.
struct InterpreterList {
  ~InterpreterList();
  InterpreterLaunch launch{};
  void* memory = nullptr;
  std::shared_ptr<InterpreterWords> words;
};

/// Lists, by handle, and the words of the latest.
struct Interpreters {
  explicit Interpreters(const Context& c) : device(c.device) {}
  ~Interpreters();
  const int device;
  bool waits = false;     // is counted among those of its device that take turns
  bool captured = false;  // a list was launched since the graph's capture began
  std::map<double, std::unique_ptr<InterpreterList>> made;
  double next = 1;
  std::shared_ptr<InterpreterWords> words;
};

/// Whether the card and the driver's mode let a kernel count on all of its blocks running at once.
bool interpreterRuns(const Context& c);
/// Whether it has a case for a call, wherever its operands come from.
bool interpreterTakes(const Context& c, const SmallLinear& a);
bool interpreterTakes(const Context& c, const AttentionCall& a, const QkvCall& qkv);
/// Null where the ops do not fit together or into shared memory. Allocates and copies: not while a graph is captured.
/// lastTag: what tags of new words begin behind, for tests.
std::unique_ptr<InterpreterList> makeInterpreterList(Context& c, const std::vector<InterpreterOp>& ops, uint32_t lastTag = 0);

/// Does `start`, which enqueues lists on the context's stream, behind those of other contexts of the device: of two at once each
/// could hold half of the multiprocessors and wait for the other half.
void inTurn(Context& c, const std::function<void()>& start);

// of the kernel's file
bool interpreterStarts(const Context& c, int dim, int sharedBytes);
int interpreterStaticBytes(int dim);
void startInterpreter(Context& c, const InterpreterLaunch& l);
